"""What page tables come to: whole tables of ordinary pages, gaps, entries without frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from pagewalk.flags import VM_PFNMAP, kpf
from pagewalk.kmem.direct import SLOTS, TABLES
from pagewalk.kmem.frames import Runs, StructPages
from pagewalk.pages import (
    I64,
    NO_AMOUNTS,
    U64,
    Amounts,
    Bool,
    Flag,
    Shared,
    State,
    Sums,
    VMAs,
    take,
)
from pagewalk.paging import Arch
from pagewalk.proc.pagemap import PAGE
from pagewalk.ranges import holder
from pagewalk.rules import HOLE_STATES, KEEPERS, ORDINARY, ORDINARY_ENTRY
from pagewalk.scan import Entries, ReadTables
from pagewalk.states import classify, maybe_repeated
from pagewalk.tally import Gaps, Plain, count_by_reading

if TYPE_CHECKING:
    from pagewalk.sources.tables import TableSpace

PRESENT = np.uint32(Flag.PRESENT)


class WholeTables:
    """Count the pages of whole tables of ``space``, without kinds: no frame is looked at.

    ``row`` i64 has the VMA of each range that is swept.
    """

    def __init__(self, space: TableSpace, vmas: VMAs, row: I64) -> None:
        self.space, self.vmas, self.row = space, vmas, row

    def count(self, owner: I64, phys: U64) -> I64:
        """Return how many pages the whole tables at ``phys`` (u64[n]) map; see CountPlain."""
        del owner
        machine = self.space.machine
        counter = None
        if machine.shortcuts is not None:
            counter = machine.shortcuts.counter_for(len(phys) * SLOTS)
        if counter is None:
            return count_by_reading(machine.arch, self.space.read_tables, phys)
        return counter.count(machine.direct_map.addresses(phys))

    def sums(self, plain: Plain) -> Iterator[Sums]:
        """Yield what the tables that ``count`` has counted come to."""
        if len(plain.owner):
            vma = self.row[plain.owner]
            flags = np.full(len(vma), ORDINARY_ENTRY)
            if self.vmas.flags is not None:
                mapped = self.vmas.flags[vma] & np.uint64(VM_PFNMAP) != 0
                flags[mapped] = PRESENT | np.uint32(Flag.SPECIAL)
            state = classify(flags, self.vmas.backing[vma], None)
            level = np.zeros(len(vma), np.uint8)
            yield Sums(Amounts(vma, state, level, flags, sizes(plain.pages)))


class ByFrame(WholeTables):
    """Count the pages of whole tables of ``space`` with what their frames say.

    In VMAs whose pages only this process maps no frame needs to be looked at.
    """

    def __init__(self, space: TableSpace, vmas: VMAs, row: I64) -> None:
        super().__init__(space, vmas, row)
        self.ordinary = ORDINARY[vmas.backing[row]]
        if vmas.flags is not None:  # else the VMA has a say in what its pages are
            self.ordinary &= vmas.flags[row] & np.uint64(VM_PFNMAP) == 0
        self.alone: Bool | None = None
        self.runs: list[Sums] = []

    def count(self, owner: I64, phys: U64) -> I64:
        """Return as WholeTables does; -1 too where the frames must be looked at one by one."""
        self.runs.clear()
        pages = np.full(len(phys), -1, np.int64)
        frames = self.space.frames
        if not isinstance(frames, StructPages):
            return pages
        if self.alone is None:
            self.alone = self.space.unshared(self.vmas)[self.row] & self.ordinary
        once = np.flatnonzero(self.alone[owner])
        pages[once] = super().count(owner[once], phys[once])
        rest = np.flatnonzero((self.ordinary & ~self.alone)[owner])
        condenser = frames.condenser_for(len(rest) * SLOTS)
        if len(rest) and condenser is not None:
            addresses = self.space.machine.direct_map.addresses(phys[rest])
            found, pages[rest] = frames.runs(condenser, addresses)
            vma = self.row[owner[rest]]
            self.runs, torn = shared_frames(
                self.space.machine.arch, self.space.read_tables, self.vmas, vma, phys[rest], found
            )
            pages[rest[torn]] = -1
        return pages

    def sums(self, plain: Plain) -> Iterator[Sums]:
        """Yield what the tables that ``count`` has counted come to, before it is called again."""
        if len(plain.owner):
            assert self.alone is not None
            yield from self.runs
            once = self.alone[plain.owner]
            yield alone_amounts(self.row[plain.owner[once]], plain.pages[once])


def sizes(pages: I64) -> U64:
    return pages.astype(np.uint64) * np.uint64(PAGE)


def sum_entries(vmas: VMAs, entries: Entries) -> Sums:
    """Return ``entries``, with the zero pages marked, as Sums without kinds."""
    leaves, holes, doubts = entries.leaves, entries.holes, entries.doubts
    row = holder(np.concatenate([leaves.addr, holes.addr, doubts.addr]), vmas.ranges)
    none = np.zeros(len(holes) + len(doubts), np.uint32)
    return Sums(
        Amounts(
            row,
            np.concatenate([
                classify(leaves.flags, vmas.backing[row[: len(leaves)]], None),
                HOLE_STATES[holes.level],
                np.full(len(doubts), State.DOUBT.value, np.uint8),
            ]),
            np.concatenate([np.zeros(len(leaves), np.uint8), holes.level, doubts.level]),
            np.concatenate([leaves.flags, none]),
            np.concatenate([leaves.size, holes.size, doubts.size]),
        )
    )


def gap_amounts(vma: I64, gaps: Gaps) -> Sums:
    """Return ``gaps`` of ranges in the VMAs ``vma`` (i64[k]) as Sums."""
    level, owner = np.nonzero(gaps.size)
    flags = np.zeros(len(level), np.uint32)
    return Sums(
        Amounts(vma[owner], HOLE_STATES[level], level.astype(np.uint8), flags,
                gaps.size[level, owner])
    )


def run_amounts(vmas: VMAs, vma: I64, runs: Runs) -> Amounts:
    """Return ``runs`` of the VMAs ``vma`` (i64[n]) as Amounts."""
    flags = np.full(len(vma), ORDINARY_ENTRY)
    state = classify(flags, vmas.backing[vma], runs.flags)
    level = np.zeros(len(vma), np.uint8)
    return Amounts(vma, state, level, flags, sizes(runs.pages), runs.flags, runs.mapcount)


def run_frames(amounts: Amounts, pfns: U64) -> Shared:
    """Return the pages of ``amounts``, runs of base pages, that may be mapped more than once.

    ``pfns`` u64 are the frames of all pages of the runs, in order.
    """
    assert amounts.mapcount is not None
    wanted = maybe_repeated(amounts)
    times = (amounts.size // np.uint64(PAGE)).astype(np.int64)
    pages, times = np.repeat(wanted, times), times[wanted]
    size = np.full(int(times.sum()), PAGE, np.uint64)
    return Shared(
        np.repeat(amounts.vma[wanted], times),
        pfns[pages],
        size,
        np.repeat(amounts.mapcount[wanted], times),
        np.repeat(KEEPERS[amounts.state[wanted]], times),
    )


def shared_frames(
    arch: Arch, read_tables: ReadTables, vmas: VMAs, vma: I64, phys: U64, runs: Runs
) -> tuple[list[Sums], I64]:
    """Return ``runs`` of the tables at ``phys`` (u64), in the VMAs ``vma`` (i64), as Sums.

    The second value is the numbers (i64) of the tables that changed in the meantime, which are left
    out.
    """
    amounts = run_amounts(vmas, vma[runs.table], runs)
    tables = np.unique(runs.table[maybe_repeated(amounts)])
    found, torn = list[Sums](), [tables[:0]]
    for first in range(0, len(tables), TABLES):
        some = tables[first : first + TABLES]
        entries, ok = read_tables(phys[some])
        pages = np.bincount(runs.table, runs.pages, len(phys))[some]
        same = ok & ((entries != 0).sum(axis=1) == pages)
        torn.append(some[~same])
        entries = entries[same]
        pfns = arch.address(arch, entries[entries != 0]) >> np.uint64(arch.page_shift)
        here = take(amounts, np.isin(runs.table, some[same]))
        found.append(Sums(NO_AMOUNTS, run_frames(here, pfns)))
    changed = np.concatenate(torn)
    if len(changed):
        amounts = take(amounts, ~np.isin(runs.table, changed))
    return [Sums(amounts), *found], changed


def alone_amounts(vma: I64, pages: I64) -> Sums:
    """Return tables of ``pages`` (i64[n]) that are anonymous and mapped once as Sums."""
    many = len(vma)
    return Sums(
        Amounts(
            vma,
            np.full(many, State.ANON.value, np.uint8),
            np.zeros(many, np.uint8),
            np.full(many, ORDINARY_ENTRY),
            sizes(pages),
            np.full(many, kpf("anon")),
            np.ones(many, np.uint64),
        )
    )
