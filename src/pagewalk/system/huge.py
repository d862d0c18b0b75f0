"""Large folios as many processes map them, and what is in huge pages of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pagewalk.account.huge import COLUMNS, Huge, by_folio
from pagewalk.account.table import Table
from pagewalk.account.zeros import with_zeros
from pagewalk.heap.locate import memory_file
from pagewalk.heap.memory import live
from pagewalk.model.columns import Withheld
from pagewalk.model.errors import NotPermitted
from pagewalk.proc.chosen import Chosen
from pagewalk.sources import Source
from pagewalk.system.members import Looked, look_at_each
from pagewalk.system.processes import Processes
from pagewalk.walking.walk import walk

# The amounts of a process: those of a mapping, but what is about its addresses only.
AMOUNTS = tuple(column.name for column in COLUMNS if column.name not in ("size", "fits",
                                                                         "eligible"))


class Row(NamedTuple):
    """How one process maps large folios: ``amounts`` by AMOUNTS, bytes, None where withheld."""

    pid: int
    name: str
    amounts: dict[str, int | None]

    def value(self, name: str) -> int | str | None:
        """Return what column ``name`` says of it."""
        if name in ("pid", "name"):
            told: int | str = getattr(self, name)
            return told
        return self.amounts[name]


class HugeOfEach(NamedTuple):
    """A row for each process that could be looked at, in no order; and what became of all."""

    rows: tuple[Row, ...]
    looked: Looked

    def sum_of(self, name: str) -> int | None:
        """Return an amount of all added up, None if one withholds it: shared pages count again."""
        amounts = [row.amounts[name] for row in self.rows]
        known = [amount for amount in amounts if amount is not None]
        return None if len(known) < len(amounts) else sum(known)


def look_at_huge_of_each(
    chosen: Sequence[Chosen], where: Processes, look: Callable[[Source], Huge]
) -> HugeOfEach:
    """Return how each process of ``chosen`` maps large folios, as ``look`` tells of one.

    Raises what members.look_at_each raises.
    """
    totals: dict[int, dict[str, int | None]] = {}

    def visit(_: int, pids: list[int], opened: Source) -> Table:
        found = look(opened)
        totals[pids[0]] = {name: found.totals[name] for name in AMOUNTS}
        return found.table

    looked = look_at_each(chosen, where, visit)
    rows = (Row(one.pids[0], one.name, totals[one.pids[0]]) for one in looked.members)
    return HugeOfEach(tuple(rows), looked)


def read_huge(source: Source, *, zeros: bool) -> Huge:
    """Walk a live process; with ``zeros`` its anonymous huge pages are read."""
    found = by_folio(walk(source), source.space.frames)
    return read_zeros(found, source) if zeros else found


def read_zeros(found: Huge, source: Source) -> Huge:
    """Read the anonymous huge pages of ``found``; what is withheld says so if that is refused.

    Raises ProcessGone.
    """
    try:
        with memory_file(source) as fd:
            return with_zeros(found, source, live(fd))
    except NotPermitted as error:
        found.table.outcome.withheld.append(Withheld("zeros", str(error), partial=True))
        return found
