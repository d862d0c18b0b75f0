"""The walks of `share`, those of many small processes at once: what each adds is as in share.

Names and objects are still asked of each process; the page tables of all are walked together, once
for their sums and once for the pages that they have inherited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from pagewalk.account.holdings import freed, objects_beside
from pagewalk.account.totals import PSS_SHIFT, Totals, add, no_totals
from pagewalk.model.columns import I32, I64, Bool, Shared, State, Sums, VMAs, take
from pagewalk.model.errors import PagewalkError
from pagewalk.model.rules import IN_RSS
from pagewalk.model.states import inherited
from pagewalk.proc.chosen import Chosen
from pagewalk.proc.counters import read_theirs
from pagewalk.proc.maps import internal_filesystems, parse_maps, parse_mountinfo
from pagewalk.proc.objects import read_objects
from pagewalk.proc.stall import Stall
from pagewalk.sources.crowd import Crowd
from pagewalk.sources.outcome import Outcome
from pagewalk.system.at_once import REFUSALS, AtOnce, each_crowd, usual
from pagewalk.system.members import Member, anon_by_name, totaled
from pagewalk.system.processes import Processes
from pagewalk.system.share_walks import Walked, mappings
from pagewalk.walking.held import Held, empty
from pagewalk.walking.rows import Asked
from pagewalk.walking.sums import summed

# Frames are told apart by process: their numbers have fewer bits on any machine.
PROCESS = np.uint64(44)


class Told(NamedTuple):
    """What a process says of itself: its VMAs with names, its objects in an Outcome."""

    vmas: VMAs
    outcome: Outcome


def walk_at_once(
    walked: Walked, groups: Sequence[list[int]], by_pid: Mapping[int, Chosen], where: Processes
) -> tuple[AtOnce, dict[int, Member]]:
    """Walk those of ``groups`` that can be walked together, and return them by their first pid."""
    number = {pids[0]: row for row, pids in enumerate(groups)}
    members, stall = dict[int, Member](), Stall(where.budget_ns)

    def visit(crowd: Crowd) -> None:
        if crowd.facts.average_mapcounts:
            return
        told = [ask(crowd, row, where, stall) for row in range(len(crowd.pids))]
        rows = [number[pid] for pid in crowd.pids.tolist()]
        one = walk_crowd(walked, crowd, told, rows)
        good = crowd.unchanged() & one.usual
        for row in np.flatnonzero(good).tolist():
            found = told[row]
            if found is not None:
                pids = groups[rows[row]]
                members[pids[0]] = one.member(row, [by_pid[pid] for pid in pids], found)
                walked.keep(rows[row], walked.groups + rows[row], *one.alone_of(row))
                walked.highest = walked.highest.and_said(
                    partial(read_theirs, crowd.targets[row], stall), crowd.facts)
                if rows[row] not in walked.stay:
                    walked.holders.add(pids, found.vmas, found.outcome)

    once = each_crowd([by_pid[pids[0]].process for pids in groups], where.source, visit)
    totals = {pid: member.amounts for pid, member in members.items()}
    return once._replace(amounts=totals, stall_ns=stall.longest_ns), members


def ask(crowd: Crowd, row: int, where: Processes, stall: Stall) -> Told | None:
    """Return what a process says of itself, None if that is not what the kernel's structs say."""
    target, raw = crowd.targets[row], crowd.vmas_of(row)
    try:
        vmas = named(target.read("maps", stall), target.read("mountinfo"))
        objects, missing = read_objects(target, vmas)
    except REFUSALS:
        return None
    theirs = crowd.theirs.raw
    if missing or len(vmas) != len(theirs.start[raw]) or (
            (vmas.start != theirs.start[raw]) | (vmas.end != theirs.end[raw])).any():
        return None
    outcome = Outcome(stall, all_objects=True)
    if objects:
        try:
            with where.opened(target.pid) as one:
                assert one.live is not None
                outcome.objects, missing = one.live.objects(vmas)
        except PagewalkError:
            return None
    return None if missing else Told(vmas, outcome)


@lru_cache(maxsize=32)  # those of a family are often alike
def named(text: bytes, mountinfo: bytes) -> VMAs:
    """Return the VMAs of a text of maps, without the gate VMA."""
    vmas = parse_maps(text, dict(internal_filesystems()) | parse_mountinfo(mountinfo))
    return take(vmas, slice(len(vmas) - int(vmas.gate.sum())))


class Summed(NamedTuple):
    """What a crowd adds up to, by VMA; ``usual`` says of which processes that is all."""

    crowd: Crowd
    so_far: Totals
    alone: Held
    usual: Bool
    table_sizes: I64  # by process

    def alone_of(self, row: int) -> tuple[int, int]:
        """Return what only this process maps, and what of that its end frees, in bytes."""
        here = self.crowd.vmas_of(row)
        return int(self.alone.frames[here].sum()), int(self.alone.own[here].sum())

    def member(self, row: int, group: Sequence[Chosen], told: Told) -> Member:
        """Return one process as a member of the set."""
        here, so_far = self.crowd.vmas_of(row), self.so_far
        state = so_far.state[here]
        sums = state.sum(axis=0)
        totals = {name: int(sums[kind]) for name, kind in (
            ("swap", State.SWAPPED), ("anon", State.ANON), ("file", State.FILE),
            ("shmem", State.SHMEM), ("hugetlb", State.HUGETLB))}
        totals |= {"rss": int(sums[IN_RSS].sum()), "uss": int(so_far.uss[here].sum()),
                   "pss": int(so_far.pss[here].sum()) >> PSS_SHIFT}
        return totaled(group, totals | {"freed": self.freed(row, told)})._replace(
            page_tables=int(self.table_sizes[row]),
            anon=anon_by_name(told.vmas.name, state[:, State.ANON]))

    def freed(self, row: int, told: Told) -> int | None:
        # As in account.table.tabulate.
        here, held = self.crowd.vmas_of(row), self.so_far.held
        mine = Held(held.frames[here], held.objects[here], held.own[here], held.sole[here])
        by_vma = freed(told.vmas, told.outcome, mine)
        _, _, more = objects_beside(told.vmas, told.outcome, mine.objects)
        return None if by_vma is None or more is None else int(by_vma.sum()) + more


def walk_crowd(
    walked: Walked, crowd: Crowd, told: Sequence[Told | None], rows: Sequence[int]
) -> Summed:
    """Walk a crowd as Walked.add walks one process; ``rows`` are its groups."""
    vmas = crowd.vmas()
    number = (walked.groups + np.array(rows, np.int32))[crowd.member].astype(np.int32)
    place = places(walked, crowd, told)
    so_far, alone, forked = no_totals(len(vmas)), empty(len(vmas)), np.zeros(len(vmas), bool)
    so_far.held.few = 1 << 62
    for sums in summed(Asked(crowd, vmas, vmas.ranges)):
        add(so_far, Sums(sums.amounts, apart(crowd, sums.shared)), crowd.facts)
        if sums.amounts.mapcount is not None:
            theirs = inherited(sums.amounts)
            forked[sums.amounts.vma[theirs]] = True
            alone.add(take(sums.amounts, ~theirs))
        if len(sums.shared):
            walked.rows.add(mappings(sums.shared, number, place))
        del sums
    so_far.held.finish()
    table_sizes = crowd.table_sizes  # of this walk, which was of all VMAs
    walked.add_pages(Asked(crowd, vmas, vmas.ranges[forked]), number, place)
    return Summed(crowd, so_far, alone, usual(crowd, crowd.member, so_far), table_sizes)


def apart(crowd: Crowd, rows: Shared) -> Shared:
    """Return ``rows`` with a number of its own for each process's frame, in which it counts."""
    process = crowd.member[rows.vma].astype(np.uint64) << PROCESS
    return Shared(rows.vma, rows.pfn | process, rows.size, rows.mapcount, rows.keeper)


def places(walked: Walked, crowd: Crowd, told: Sequence[Told | None]) -> I32:
    """Return the number of each VMA's name, 0 for those of processes that told nothing."""
    found = np.zeros(len(crowd.member), np.int32)
    for row, one in enumerate(told):
        if one is not None:
            found[crowd.vmas_of(row)] = walked.places_of(one.vmas)
    return found
