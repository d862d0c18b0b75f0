"""Each of several processes: walked once, whatever is done with its walk, and what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pagewalk.account.table import Table, table
from pagewalk.model.columns import I64, Withheld
from pagewalk.model.errors import (
    BadRequest,
    NoAddressSpace,
    NotPermitted,
    PagewalkError,
    ProcessGone,
    SourceUnavailable,
)
from pagewalk.proc.chosen import Chosen
from pagewalk.sources import Source
from pagewalk.sources.outcome import Outcome
from pagewalk.system.at_once import NONE_AT_ONCE, AtOnce, never
from pagewalk.system.processes import Processes
from pagewalk.walking.at_end import CHANGED, FORKED

LISTED = 5  # processes that changed while they were walked
AMOUNTS = ("rss", "pss", "uss", "swap", "anon", "file", "shmem", "hugetlb", "freed")

# The number of an address space, the pids that run in it, and it, opened: returns what the walk
# found out.
Visit = Callable[[int, list[int], Source], Outcome]
Enough = Callable[[], bool]


class Member(NamedTuple):
    """One address space of a set: the ``pids`` of the set that run in it, and their parent's pid.

    ``amounts`` are totals of its Table by AMOUNTS, None where withheld; ``page_tables`` bytes,
    None if they were not read; ``anon`` bytes of anonymous memory by the name of the mapping;
    ``owner`` the user that owns its directory in /proc.
    """

    pids: tuple[int, ...]
    name: str
    program: str
    parent: int
    amounts: dict[str, int | None]
    page_tables: int | None
    anon: dict[str, int]
    owner: int


class Tried(NamedTuple):
    """What became of the processes that were to be walked.

    ``source`` is what the last was read from. ``not_looked`` are processes that could not be looked
    at, and why, of which the kernel does not permit ``refused``; ``gone`` those that ended before.
    ``stall_ns`` is the longest read that may have held a lock of one of them.
    """

    source: str
    not_looked: tuple[tuple[int, str], ...]
    gone: tuple[int, ...]
    stall_ns: int
    withheld: tuple[Withheld, ...]
    refused: int = 0


class Looked(NamedTuple):
    """The members of a set that could be looked at, and what became of all."""

    members: tuple[Member, ...]
    tried: Tried

    def sum_of(self, name: str) -> int | None:
        """Return one of AMOUNTS of all members, added up; None if it is withheld of one."""
        return sum_of(one.amounts[name] for one in self.members)

    @property
    def page_tables(self) -> int | None:
        """Return the bytes of the page tables of all members, None if they are not read."""
        return sum_of(one.page_tables for one in self.members)


def look_at_each(
    chosen: Sequence[Chosen], where: Processes,
    visit: Callable[[int, list[int], Source], Table], enough: Enough = never,
) -> Looked:
    """Let ``visit`` walk each address space of ``chosen`` once, and return what it found.

    See try_each for ``enough``, and for what it raises.
    """
    by_pid, members = {one.process.pid: one for one in chosen}, list[Member]()

    def add(number: int, pids: list[int], one: Source) -> Outcome:
        found = visit(number, pids, one)
        members.append(member_of([by_pid[pid] for pid in pids], found))
        return found.outcome

    tried = try_each(where.by_memory(by_pid), where, add, enough=enough)
    return Looked(tuple(members), tried)


def total_each(
    chosen: Sequence[Chosen], where: Processes, enough: Enough = never,
    enough_at_once: Enough = never,
) -> Looked:
    """Return what look_at_each does, without ``anon``, page tables and ``freed``.

    So that most need no walk of their own. They are walked in the order of ``chosen``, and those
    that are together first: of these no more are begun once ``enough_at_once()``. See try_each for
    ``enough``, and for what it raises.
    """
    by_pid = {one.process.pid: one for one in chosen}
    order = {pid: place for place, pid in enumerate(by_pid)}
    groups = sorted(where.by_memory(by_pid), key=lambda pids: min(order[pid] for pid in pids))
    once = where.amounts([by_pid[pids[0]].process for pids in groups], enough_at_once)
    totals = dict(once.amounts)

    def add(_: int, pids: list[int], one: Source) -> Outcome:
        found = table(one)
        totals[pids[0]] = found.totals
        return found.outcome

    tried = try_each(groups, where, add, once, enough=enough)
    return Looked(tuple(
        totaled([by_pid[pid] for pid in pids], totals[pids[0]]) for pids in groups
        if pids[0] in totals), tried)


def try_each(
    groups: Sequence[list[int]], where: Processes, visit: Visit,
    before: AtOnce = NONE_AT_ONCE, *, enough: Enough = never,
) -> Tried:
    """Let ``visit`` walk the address space of each of ``groups``, pids that have it in common.

    Returns what became of them, and of those that were walked ``before``. ``enough`` is called
    before each walk, and may raise: after the first one, none is begun once it returns True.
    Raises SourceUnavailable and BadRequest for a source that does not exist or work here, and, if
    no process could be looked at, why the first could not.
    """
    refused: dict[int, PagewalkError] = {}
    name, done, known, stall = before
    name = name or where.source
    notes, moved, visited = dict.fromkeys(known), list[int](), len(done)
    for number, together in enumerate(groups):
        pid = together[0]
        if pid in done:
            continue
        if enough() and visited:
            break
        try:
            with where.opened(pid) as one:
                outcome, name = visit(number, together, one), one.name
        except (SourceUnavailable, BadRequest):
            raise
        except PagewalkError as error:
            refused[pid] = error
            continue
        visited += 1
        stall = max(stall, outcome.stall.longest_ns)
        moved += [pid] * any(row.what in (CHANGED, FORKED) for row in outcome.withheld)
        notes.update(dict.fromkeys(
            row for row in (*one.notes, *outcome.withheld) if row.what not in (CHANGED, FORKED)))
    if refused and not visited:
        raise next(iter(refused.values()))
    ended = (ProcessGone, NoAddressSpace)
    not_looked = {pid: str(error) for pid, error in refused.items() if not isinstance(error, ended)}
    return Tried(name, tuple(not_looked.items()),
                 tuple(pid for pid in refused if pid not in not_looked), stall,
                 (*notes, *unsteady(moved), *unseen(not_looked)),
                 sum(isinstance(error, NotPermitted) for error in refused.values()))


def unsteady(moved: list[int]) -> Iterator[Withheld]:
    if moved:
        many = f"{len(moved)} processes" if len(moved) > 1 else "a process"
        yield Withheld(f"{many} at one moment", "changed or forked while it was walked: process"
                       f" {', '.join(map(str, moved[:LISTED]))}{' ...' * (len(moved) > LISTED)}",
                       partial=True)


def unseen(not_looked: dict[int, str]) -> Iterator[Withheld]:
    if not_looked:
        pid, why = next(iter(not_looked.items()))
        yield Withheld("some processes of the set", f"{len(not_looked)} could not be looked at;"
                       f" process {pid}: {why}", partial=True)


def member_of(group: Sequence[Chosen], found: Table) -> Member:
    column = found.columns["anon"]
    anon = {} if column is None else anon_by_name(found.vmas.name, column)
    return totaled(group, found.totals)._replace(page_tables=found.outcome.page_tables, anon=anon)


def anon_by_name(names: Sequence[str], column: I64) -> dict[str, int]:
    """Return the bytes in ``column``, of VMAs called ``names``, by name."""
    anon: dict[str, int] = {}
    for row in np.flatnonzero(column).tolist():
        anon[names[row]] = anon.get(names[row], 0) + int(column[row])
    return anon


def totaled(group: Sequence[Chosen], totals: Mapping[str, int | None]) -> Member:
    """Return the member that has ``totals``, of which nothing else is known."""
    process, amounts = group[0].process, {name: totals.get(name) for name in AMOUNTS}
    return Member(
        tuple(one.process.pid for one in group), process.name, process.script or process.argv0,
        group[0].parent, amounts, None, {}, process.uid,
    )


def sum_of(amounts: Iterable[int | None]) -> int | None:
    """Return the sum, None if one of ``amounts`` is not known."""
    whole = 0
    for amount in amounts:
        if amount is None:
            return None
        whole += amount
    return whole
