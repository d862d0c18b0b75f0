"""An address space read from its page tables, in whatever memory they are. No lock is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pagewalk.kernel.frames import StructPages
from pagewalk.kernel.programs.loops import SLOTS
from pagewalk.kernel.readers.memory import read_pages
from pagewalk.kernel.running import RunningKernel
from pagewalk.kernel.structs.hugetlb import in_shared_table
from pagewalk.model.bits import VM_PFNMAP
from pagewalk.model.columns import (
    I64,
    U64,
    Amounts,
    Backing,
    Bool,
    Flag,
    Holes,
    Leaves,
    Sums,
    Tells,
    VMAs,
    alike,
)
from pagewalk.model.facts import Facts
from pagewalk.model.ranges import holder
from pagewalk.model.rules import ORDINARY, ORDINARY_ENTRY
from pagewalk.model.soft import pack
from pagewalk.model.states import classify, has
from pagewalk.pagetables.count import Memo, Plain, count_by_reading, sweep
from pagewalk.pagetables.decode import NO_DOUBTS, NO_LEAVES, Entries, Root
from pagewalk.pagetables.format import PMD
from pagewalk.pagetables.walk import walk_tables
from pagewalk.proc.frames import FrameReader
from pagewalk.sources.amounts import alone_amounts, gap_amounts, shared_frames, sizes, sum_leaves
from pagewalk.sources.space import Part

if TYPE_CHECKING:
    from pagewalk.pagetables.trace import Trace

RETRIES = 3
PRESENT = np.uint32(Flag.PRESENT)

# Addresses u64[n] of hugetlb pages -> which of them no other process maps.
Exclusive: TypeAlias = Callable[[U64], Bool]
# VMAs -> which of them have ordinary pages that only this process maps.
Unshared: TypeAlias = Callable[[VMAs], Bool]


def none_known(of: VMAs | U64) -> Bool:
    """Return False for each: an address space alone does not show who else maps its pages."""
    return np.zeros(len(of), bool)


@dataclass(eq=False)
class TableSpace:
    """An address space read from page tables in ``running``'s memory; see space.Space.

    ``mm`` is the address of its mm_struct, ``root`` the physical address of its PGD.
    ``exclusive`` and ``unshared`` supply what the tables do not show. ``tables`` i64[6, roots] is
    how many tables the last walk read, by level number.
    """

    running: RunningKernel
    facts: Facts
    mm: int
    root: int
    exclusive: Exclusive = none_known
    unshared: Unshared = none_known
    memo: Memo = field(default_factory=Memo)
    tables: I64 = field(default_factory=lambda: np.zeros((6, 1), np.int64))

    @property
    def roots(self) -> Root:
        """Return what a walk of all of it begins with."""
        return self.root

    @property
    def frames(self) -> FrameReader | None:
        """Return the reader of frames' flags and mapcounts."""
        return self.running.frames

    @property
    def tells(self) -> Tells:
        """Return what page tables show, with frames if they can be read."""
        frames = self.running.frames
        known = frames is not None
        return Tells(
            tables=True, huge=True, zeros=True, frames=known,
            young=frames is not None and frames.young, ksm=frames is not None and frames.ksm,
        )

    def entries(self, vmas: VMAs, ranges: U64, *, frames: bool = True) -> Iterator[Entries]:
        """Yield the leaves, holes and doubts of the page tables in ``ranges``."""
        arch = self.running.arch
        below = ranges[:, 1] <= np.uint64(np.size(self.roots) * arch.user_end)
        self.tables = np.zeros((6, np.size(self.roots)), np.int64)
        for entries in walk_tables(
            arch, self.roots, self.read_tables, ranges[below], retries=RETRIES, tables=self.tables,
        ):
            if len(entries.leaves):
                self.settle(vmas, entries.leaves, frames=frames)
            yield entries
        if not below.all():
            yield gate(ranges[~below])

    def sums(self, vmas: VMAs, ranges: U64, *, frames: bool = True) -> Iterator[Part]:
        """Yield what ``entries`` does, in no order; whole tables of ordinary pages as sums."""
        running = self.running
        below = ranges[:, 1] <= np.uint64(np.size(self.roots) * running.arch.user_end)
        user = ranges[below]
        row = holder(user[:, 0], vmas.ranges)
        whole = (ByFrame if frames else WholeTables)(self, vmas, row)
        self.tables = tables = np.zeros((6, np.size(self.roots)), np.int64)
        for part in sweep(
            running.arch, self.roots, self.read_tables, user, retries=RETRIES,
            count_plain=whole.count, tables=tables, memo=self.memo,
        ):
            yield from (Part(sums=sums) for sums in whole.sums(part.plain))
            if len(part.gaps):
                yield Part(sums=gap_amounts(row, part.gaps))
            entries = part.entries
            if not frames and len(entries):
                yield self.summed(vmas, entries)
            elif len(entries):
                self.settle(vmas, entries.leaves)
                yield Part(entries)
        yield Part(gate(ranges[~below]))

    @property
    def table_sizes(self) -> I64:
        """Return the bytes of PTE, PMD and PUD tables that the last walk read, by root."""
        found: I64 = self.tables[1:4].sum(axis=0) * self.facts.page_size
        return found

    def settle(self, vmas: VMAs, leaves: Leaves, *, frames: bool = True) -> None:
        """Mark in ``leaves`` what the VMA and the kernel's bookkeeping add to an entry.

        Without ``frames`` also mark zero pages, because their frames will not be looked at.
        """
        row = holder(leaves.addr, vmas.ranges)
        present = mark_normal(vmas, row, leaves)
        soft = np.flatnonzero(leaves.flags & np.uint32(Flag.SWAP | Flag.MARKER) != 0)
        if len(soft):
            assert leaves.pfn is not None
            kind, offset = self.running.arch.soft(leaves.entry[soft])
            leaves.pfn[soft] = pack(kind, offset)
        hugetlb = present & (vmas.backing[row] == Backing.HUGETLB.value)
        if hugetlb.any():
            self.mark_exclusive(leaves, np.flatnonzero(hugetlb))
        if not frames:
            self.mark_zero(leaves, present)

    def summed(self, vmas: VMAs, entries: Entries) -> Part:
        # `entries` with the leaves as sums, which need neither swap slots nor who shares a page.
        leaves = entries.leaves
        row = holder(leaves.addr, vmas.ranges)
        self.mark_zero(leaves, mark_normal(vmas, row, leaves))
        rest = Entries(NO_LEAVES, entries.holes, entries.doubts)
        return Part(rest, sum_leaves(vmas, row, leaves))

    def mark_zero(self, leaves: Leaves, present: Bool) -> None:
        assert leaves.pfn is not None
        zero = present & (leaves.pfn == np.uint64(self.running.zero_pfn))
        huge = np.flatnonzero(present & (leaves.flags & np.uint32(Flag.HUGE) != 0))
        if len(huge) and self.running.frames is not None:
            pfns = leaves.pfn[huge]
            kflags, _ = self.running.frames.read(pfns, np.zeros(len(pfns), bool))
            zero[huge] |= has(kflags, "zero_page")
        leaves.flags[zero] |= np.uint32(Flag.ZERO)

    def mark_exclusive(self, leaves: Leaves, rows: I64) -> None:
        # Whether the page table of a hugetlb page is shared with another process, and so the page.
        if not self.facts.pmd_sharing_told:  # there bit 56 of pagemap is about the mapcount only
            rows = rows[~self.in_shared_table(leaves, rows)]
        alone = rows[self.exclusive(leaves.addr[rows])]
        leaves.flags[alone] |= np.uint32(Flag.EXCLUSIVE)

    def in_shared_table(self, leaves: Leaves, rows: I64) -> Bool:
        pmd = self.running.arch.level(PMD)  # tables of larger leaves are never shared
        small = leaves.shift[rows] == pmd.shift
        shared = np.zeros(len(rows), bool)
        running, addr = self.running, leaves.addr[rows[small]]
        shared[small] = in_shared_table(
            running.kernel, running.direct_map, running.mem_map, running.arch, self.root, addr
        )
        return shared

    def read_tables(self, phys: U64) -> tuple[U64, Bool]:
        """Return (entries u64[n, 512], readable bool[n]) of the tables at ``phys`` (u64[n])."""
        words, errno = read_pages(
            self.running.kernel.memory, self.running.direct_map.addresses(phys)
        )
        return words, errno == 0

    def trace(self, addr: int) -> Trace:
        """Trace ``addr`` through the tables; raises BadTable for an unreadable root."""
        from pagewalk.pagetables.trace import trace

        return trace(self.running.arch, self.root, self.read_tables, addr)

    def hole_around(self, addr: int, start: int, end: int) -> tuple[int, int]:
        """Return the bounds of the unpopulated range around ``addr`` inside [start, end)."""
        from pagewalk.pagetables.trace import hole_around

        return hole_around(self.running.arch, self.root, self.read_tables, addr, start, end)


class WholeTables:
    """Count the pages of whole tables of ``space``, without kinds: no frame is looked at.

    ``row`` i64 has the VMA of each range that is swept.
    """

    def __init__(self, space: TableSpace, vmas: VMAs, row: I64) -> None:
        self.space, self.vmas, self.row = space, vmas, row

    def count(self, owner: I64, phys: U64) -> I64:
        """Return how many pages the whole tables at ``phys`` (u64[n]) map; see CountPlain."""
        del owner
        running = self.space.running
        counter = None
        if running.shortcuts is not None:
            counter = running.shortcuts.pay_for_counter(len(phys) * SLOTS)
        if counter is None:
            return count_by_reading(running.arch, self.space.read_tables, phys)
        return counter.count(running.direct_map.addresses(phys))

    def sums(self, plain: Plain) -> Iterator[Sums]:
        """Yield what the tables that ``count`` has counted come to."""
        if len(plain.owner):
            vma, pages = self.by_vma(plain.owner, plain.pages)
            flags = np.full(len(vma), ORDINARY_ENTRY)
            if self.vmas.flags is not None:
                mapped = self.vmas.flags[vma] & np.uint64(VM_PFNMAP) != 0
                flags[mapped] = PRESENT | np.uint32(Flag.SPECIAL)
            state = classify(flags, self.vmas.backing[vma], None)
            level = np.zeros(len(vma), np.uint8)
            yield Sums(Amounts(vma, state, level, flags, sizes(pages)))

    def by_vma(self, owner: I64, pages: I64) -> tuple[I64, I64]:
        # The VMAs of the ranges `owner`, ascending, and how many of `pages` each of them has.
        first = alike(owner)
        return self.row[owner[first]], np.add.reduceat(pages, first)


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
        condenser = frames.pay_for_condenser(len(rest) * SLOTS)
        if len(rest) and condenser is not None:
            addresses = self.space.running.direct_map.addresses(phys[rest])
            found, pages[rest] = frames.runs(condenser, addresses)
            vma = self.row[owner[rest]]
            self.runs, torn = shared_frames(
                self.space.running.arch, self.space.read_tables, self.vmas, vma, phys[rest], found
            )
            pages[rest[torn]] = -1
        return pages

    def sums(self, plain: Plain) -> Iterator[Sums]:
        """Yield what the tables that ``count`` has counted come to, before it is called again."""
        if len(plain.owner):
            assert self.alone is not None
            yield from self.runs
            once = self.alone[plain.owner]
            yield alone_amounts(*self.by_vma(plain.owner[once], plain.pages[once]))


def mark_normal(vmas: VMAs, row: I64, leaves: Leaves) -> Bool:
    # Marks which of `leaves`, in the VMAs `row`, have a normal struct page; returns the present.
    present: Bool = leaves.flags & PRESENT != 0
    if vmas.flags is not None:
        mapped = (vmas.flags & np.uint64(VM_PFNMAP) != 0)[row] & present
        leaves.flags[mapped] |= np.uint32(Flag.SPECIAL)
    plain = leaves.flags & (PRESENT | np.uint32(Flag.SPECIAL)) == PRESENT
    leaves.flags[plain] |= np.uint32(Flag.NORMAL)
    return present


def gate(ranges: U64) -> Entries:
    # The gate VMA is in the kernel's half, not in this process's tables.
    size = ranges[:, 1] - ranges[:, 0]
    holes = Holes(ranges[:, 0], size, np.zeros(len(ranges), np.uint8))
    return Entries(NO_LEAVES, holes, NO_DOUBTS)
