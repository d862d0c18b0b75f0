"""Who has the memory: each process, or all that have something in common, added up."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from pagewalk.account.table import Table, table
from pagewalk.model.columns import I64
from pagewalk.proc.chosen import Chosen
from pagewalk.sources import Source
from pagewalk.system.at_once import never
from pagewalk.system.members import Enough, Looked, Member, look_at_each, total_each
from pagewalk.system.processes import Processes

UNTOLD = "unknown"  # the cgroup of a process that has ended, or that /proc does not tell
AMOUNTS = ("uss", "pss", "rss", "swap")


class Line(NamedTuple):
    """A process, or all processes or mappings that have ``key`` in common; bytes.

    ``key`` is a pid, a program, a user, the path of a cgroup, or the name of a mapping; ``name`` is
    what a process is called, else the key again. ``processes`` counts address spaces. An amount is
    None where it is withheld; ``grown`` is how much ``rss`` has grown since the last look, None if
    there was none.
    """

    key: int | str
    name: str
    processes: int
    uss: int | None
    pss: int | None
    rss: int | None
    swap: int | None
    grown: int | None = None


class Top(NamedTuple):
    """What each of ``lines`` holds, in no order; ``looked`` are the processes behind them."""

    by: str
    lines: tuple[Line, ...]
    looked: Looked


# What a member is grouped by: its key, and what it is called.
Key = Callable[[Member], tuple[int | str, str]]


def by_process(_: Processes) -> Key:
    return lambda member: (member.pids[0], member.name)


def by_program(_: Processes) -> Key:
    def key(member: Member) -> tuple[str, str]:
        program = os.path.basename(member.program) or member.name
        return program, program

    return key


def by_user(where: Processes) -> Key:
    return lambda member: (where.user_of(member.pids[0], member.owner),) * 2


def by_cgroup(where: Processes) -> Key:
    group_of = where.group_of()
    return lambda member: (group_of(member.pids[0]) or UNTOLD,) * 2


BY: dict[str, Callable[[Processes], Key]] = {
    "process": by_process, "program": by_program, "user": by_user, "cgroup": by_cgroup,
}
MAPPING = "mapping"


def look_at_top(
    chosen: Sequence[Chosen], by: str, where: Processes, between: Enough = never
) -> Top:
    """Walk the processes of ``chosen`` and return what each of ``by``, of BY or MAPPING, holds.

    ``between`` is called before each walk: see members.try_each. Raises what that raises, and
    SourceUnavailable without memory cgroups.
    """
    if by != MAPPING:
        return grouped(total_each(chosen, where, between, between), by, where)
    lines: dict[int | str, Line] = {}

    def visit(_: int, __: list[int], opened: Source) -> Table:
        found = table(opened)
        add_up(lines, by_name(found))
        return found

    looked = look_at_each(chosen, where, visit, between)
    return Top(by, tuple(lines.values()), looked)


def grouped(looked: Looked, by: str, where: Processes) -> Top:
    """Return what those of ``looked`` hold by one of BY; raises SourceUnavailable."""
    return Top(by, lines_by(looked.members, BY[by](where)), looked)


def lines_by(members: Iterable[Member], key: Key) -> tuple[Line, ...]:
    """Return what those of ``members`` that have ``key`` in common hold."""
    lines: dict[int | str, Line] = {}
    add_up(lines, (line_of(one, key) for one in members))
    return tuple(lines.values())


def line_of(member: Member, key: Key) -> Line:
    return Line(*key(member), 1, *(member.amounts[name] for name in AMOUNTS))


def by_name(found: Table) -> list[Line]:
    """Return what a process holds by the name of the mapping, in bytes; pss rounded down."""
    names, back = np.unique(np.array(found.vmas.name, object), return_inverse=True)
    columns = [sums(found.columns[name], back, len(names)) for name in AMOUNTS]
    return [Line(name, name, 1, *amounts) for name, *amounts in zip(names, *columns, strict=True)]


def sums(column: I64 | None, back: I64, count: int) -> list[int | None]:
    if column is None:
        return [None] * count
    # exact: below 2**53 bytes
    found: list[int | None] = np.bincount(back, column, count).astype(np.int64).tolist()
    return found


def add_up(found: dict[int | str, Line], lines: Iterable[Line]) -> None:
    """Add each of ``lines`` to the one of its key in ``found``."""
    for line in lines:
        old = found.get(line.key)
        found[line.key] = line if old is None else Line(
            line.key, line.name, old.processes + line.processes,
            *(plus(getattr(old, name), getattr(line, name)) for name in AMOUNTS))


def plus(one: int | None, two: int | None) -> int | None:
    return None if one is None or two is None else one + two


def since(now: Top, before: Top | None) -> Top:
    """Return ``now`` with how much the RSS of each line has grown since ``before``.

    It is left out if ``before`` has other lines.
    """
    if before is None or before.by != now.by:
        return now
    then = {line.key: line.rss for line in before.lines}
    return now._replace(lines=tuple(
        line._replace(grown=None if line.rss is None or (old := then.get(line.key, 0)) is None
                      else line.rss - old) for line in now.lines))
