"""An address space read from /proc/PID/pagemap: PAGEMAP_SCAN, and one word per page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pagewalk.model import soft
from pagewalk.model.columns import (
    I64,
    U32,
    U64,
    Amounts,
    Backing,
    Bool,
    Flag,
    Leaves,
    Sums,
    Tells,
    VMAs,
)
from pagewalk.model.facts import Facts
from pagewalk.model.ranges import holder, inside, intersect, join_free, join_near, reaching
from pagewalk.model.rules import SIZES
from pagewalk.model.soft import SwapTypes
from pagewalk.model.states import classify, has
from pagewalk.pagetables.decode import NO_DOUBTS, NO_HOLES, Entries
from pagewalk.proc import pagemap
from pagewalk.proc.frames import Frames, read_kpage
from pagewalk.proc.pagemap import Pagemap
from pagewalk.proc.stall import Slice
from pagewalk.sources.space import Part

PAGE = pagemap.PAGE
PAGE_SHIFT = PAGE.bit_length() - 1
BATCH = 1 << 17  # words read before a batch is yielded: 1 MiB, so that its columns fit in the cache
WORDS = PAGE // 8
HUGE_SIZE = pagemap.HUGE_SIZE
TABLE_NS = 2500  # how long a scan may take for an empty page table (1700 seen, uncached)


@dataclass(eq=False)
class PagemapSpace:
    """An address space read from an open ``pagemap``; see space.Space.

    ``huge``: there is PAGEMAP_SCAN. ``hidden``: frames read as 0. ``table_bytes`` returns the bytes
    of all page tables, None if that is not known.
    """

    pagemap: Pagemap
    facts: Facts
    frames: Frames | None
    huge: bool
    hidden: bool
    table_bytes: Callable[[], int | None]
    told: int | None = None

    @property
    def tells(self) -> Tells:
        """Return what a pagemap shows, with frames if they can be read."""
        known = self.frames is not None
        return Tells(
            tables=False, huge=self.huge, zeros=self.huge or known, frames=known,
            young=self.frames is not None and self.frames.young,
            ksm=self.frames is not None and self.frames.ksm,
        )

    def entries(self, vmas: VMAs, ranges: U64, *, frames: bool = True) -> Iterator[Entries]:
        """Yield the populated leaves in ``ranges``, about BATCH words at a time."""
        shown, _, _ = intersect(visible(vmas), ranges)
        found = self.regions(vmas, shown) if self.huge else self.everything(shown)
        for regions in gather(found):
            leaves = self.read_leaves(regions)
            if self.huge and not (frames and self.frames is not None):
                self.mark_maybe_zero(vmas, leaves)
            elif self.frames is None:
                mark_unscanned_zero(vmas, leaves)
            yield Entries(leaves, NO_HOLES, NO_DOUBTS)

    def regions(self, vmas: VMAs, shown: U64) -> Iterator[U64]:
        # Populated regions (start, end, categories) of the VMAs. VMAs near each other are scanned
        # together: whatever is between was not requested.
        for found in gather(self.scan(vmas, shown)):
            asked = shown[reaching(shown, int(found[0, 0]), int(found[-1, 1]))]
            pieces, _, row = intersect(asked, found[:, :2])
            if len(pieces):
                yield np.column_stack([pieces, found[row, 2]])

    def scan(self, vmas: VMAs, shown: U64) -> Iterator[U64]:
        asked = pagemap.PRESENT | pagemap.SWAPPED | pagemap.PFNZERO | pagemap.HUGE
        widest = self.widest_window()
        window = Slice(min(1 << 28, widest), 1 << 21, widest)
        # The kernel skips over gaps between VMAs at once.
        for start, end in join_free(shown, vmas.start, pagemap.GAP, window.size):
            yield from self.pagemap.scan(start, end, asked, window)

    def widest_window(self) -> int:
        # A call is limited in the pages and regions it finds, so only empty page tables can take
        # long: a window may not have more of those than fit in the budget. If the process has few
        # tables of any kind, there are few to meet, and 4 TiB may be scanned at once.
        tables = self.pagemap.stall.budget_ns // TABLE_NS
        found = self.table_bytes()
        if found is not None and found < tables // 10 * PAGE:
            return 1 << 42
        return max(tables, 1) * HUGE_SIZE

    def everything(self, shown: U64) -> Iterator[U64]:
        # Without PAGEMAP_SCAN every page of every VMA has to be read, in batches.
        step = BATCH * PAGE
        for start, end in join_near(shown[:, 0], shown[:, 1], 0):
            for low in range(start, end, step):
                yield np.array([[low, min(low + step, end), 0]], np.uint64)

    def read_leaves(self, regions: U64) -> Leaves:
        # The words of all pages in the regions; those between two near regions are read too, and
        # dropped again where they are empty.
        spans = join_near(regions[:, 0], regions[:, 1], pagemap.GAP)
        total = sum(end - start for start, end in spans) // PAGE
        words = np.empty(total, np.uint64)
        addr = np.empty(total, np.uint64)
        chunk = Slice(1 << 13, 1 << 9, BATCH)
        at = 0
        for start, end in spans:
            to = at + (end - start) // PAGE
            self.pagemap.read(start, words[at:to], chunk)
            addr[at:to] = np.arange(start, end, PAGE, dtype=np.uint64)
            at = to
        flags = pagemap.flags_of(words)
        populated = flags & np.uint32(Flag.PRESENT | Flag.SOFT) != 0
        if total * PAGE != int((regions[:, 1] - regions[:, 0]).sum()):
            populated &= inside(addr, regions[:, :2])
        if not populated.all():
            words, addr, flags = words[populated], addr[populated], flags[populated]
        mark(flags, addr, regions, pagemap.PFNZERO, Flag.ZERO)
        mark(flags, addr, regions, pagemap.HUGE, Flag.HUGE)
        pfn = words & pagemap.PFN_BITS
        if not self.huge and self.frames is not None:
            mark_zero(flags, pfn, self.frames)
        # where frames are hidden, type and offset read as 0, and the kind stays unknown
        rows = np.flatnonzero((flags & np.uint32(Flag.SOFT) != 0) & (pfn != 0))
        if len(rows):
            decode_soft(self.facts.swap_types, flags, pfn, rows)
        return merge_huge(addr, words, flags, pfn, hidden=self.hidden)

    def sums(self, vmas: VMAs, ranges: U64, *, frames: bool = True) -> Iterator[Part]:
        """Yield what ``entries`` does; with ``frames``, every word has to be read.

        Without, words are read only for swap and for what may be the huge zero page.
        """
        if frames:
            yield from map(Part, self.entries(vmas, ranges))
        elif not self.huge:
            for entries in self.entries(vmas, ranges, frames=False):
                yield Part(sums=sum_leaves(vmas, entries.leaves))
        else:
            shown, _, _ = intersect(visible(vmas), ranges)
            for regions in gather(self.regions(vmas, shown)):
                unsure = regions[:, 2] & np.uint64(pagemap.SWAPPED) != 0
                unsure |= self.maybe_zero(vmas, regions)
                if unsure.any():
                    leaves = self.read_leaves(regions[unsure])
                    self.mark_maybe_zero(vmas, leaves)
                    yield Part(sums=sum_leaves(vmas, leaves))
                yield Part(sums=sum_regions(vmas, regions[~unsure]))

    def maybe_zero(self, vmas: VMAs, regions: U64) -> Bool:
        # Which regions may contain the huge zero page although the scan does not say so: up to 6.14
        # it recognises only the small one.
        kind = np.uint64(pagemap.PRESENT | pagemap.HUGE)
        asked = kind | np.uint64(pagemap.PFNZERO)
        anon = vmas.backing == Backing.ANON.value
        first = np.searchsorted(vmas.end[anon], regions[:, 0], side="right")
        last = np.searchsorted(vmas.start[anon], regions[:, 1], side="left")
        out: Bool = (regions[:, 2] & asked == kind) & (first < last)
        if out.any() and self.huge_zero_told_by() == pagemap.PFNZERO:
            out[:] = False
        return out

    def huge_zero_told_by(self) -> int:
        # Found out only when something depends on it.
        if self.told is None:
            self.told = pagemap.tells_huge_zero()
        return self.told

    def mark_maybe_zero(self, vmas: VMAs, leaves: Leaves) -> None:
        # A huge leaf of anonymous memory that is mapped once is not a zero page, and one with bit
        # 61 must be one (classify). For others the frame decides, if it can be read; if not, they
        # are anonymous on a kernel that always sets one of the bits of a huge zero page.
        asked = np.uint32(Flag.PRESENT | Flag.HUGE | Flag.FILE | Flag.EXCLUSIVE | Flag.ZERO)
        rows = np.flatnonzero(leaves.flags & asked == np.uint32(Flag.PRESENT | Flag.HUGE))
        anon = vmas.backing[holder(leaves.addr[rows], vmas.ranges)] == Backing.ANON.value
        rows = rows[anon]
        if len(rows) == 0:
            return
        if self.frames is not None and leaves.pfn is not None:
            zero = has(read_kpage(self.frames.flags, leaves.pfn[rows]), "zero_page")
            leaves.flags[rows[zero]] |= np.uint32(Flag.ZERO)
        elif not self.huge_zero_told_by():
            leaves.flags[rows] |= np.uint32(Flag.MAYBE_ZERO)


def visible(vmas: VMAs) -> U64:
    """Return the ranges (u64[k, 2]) of the VMAs that pagemap may show."""
    return vmas.ranges[~vmas.gate]


def gather(found: Iterator[U64]) -> Iterator[U64]:
    # Regions in batches of about BATCH pages, so that neither one huge region nor many tiny ones
    # make a batch of unbounded size.
    waiting: list[U64] = []
    pages = 0
    for regions in found:
        waiting.append(regions)
        pages += int((regions[:, 1] - regions[:, 0]).sum()) // PAGE + WORDS * len(regions)
        if pages >= BATCH:
            yield np.concatenate(waiting)
            waiting, pages = [], 0
    if waiting:
        yield np.concatenate(waiting)


def mark(flags: U32, addr: U64, regions: U64, category: int, flag: Flag) -> None:
    # Sets `flag` on the rows inside the regions of `category`.
    hit = regions[regions[:, 2] & np.uint64(category) != 0]
    if len(hit) == 0:
        return
    flags[inside(addr, hit)] |= np.uint32(flag)


def mark_unscanned_zero(vmas: VMAs, leaves: Leaves) -> None:
    # Without a scan the huge zero page looks like 512 entries with bit 61 (since 6.1.192), which
    # nothing else has outside file mappings.
    asked = np.uint32(Flag.PRESENT | Flag.FILE)
    rows = np.flatnonzero(leaves.flags & asked == asked)
    vma = holder(leaves.addr[rows], vmas.ranges)
    zero = (vmas.backing[vma] == Backing.ANON.value) & (vmas.inode[vma] == 0)
    leaves.flags[rows[zero]] |= np.uint32(Flag.ZERO)


def mark_zero(flags: U32, pfn: U64, frames: Frames) -> None:
    # Without PAGEMAP_SCAN only the frame identifies a zero page; its mapcount is never 1.
    rows = np.flatnonzero(flags & np.uint32(Flag.PRESENT | Flag.EXCLUSIVE) == Flag.PRESENT.value)
    known, which = np.unique(pfn[rows], return_inverse=True)
    zero = has(read_kpage(frames.flags, known), "zero_page")
    flags[rows[zero[which]]] |= np.uint32(Flag.ZERO)


def decode_soft(types: SwapTypes, flags: U32, pfn: U64, rows: I64) -> None:
    # Decodes the software entries in `rows`. `pfn` becomes the frame of those that have one, and
    # remains type and offset for the others.
    found, frame = soft.decode(types, *soft.unpack(pfn[rows]))
    flags[rows] |= found
    framed = soft.names_frame(found)
    pfn[rows[framed]] = frame[framed]


def merge_huge(addr: U64, words: U64, flags: U32, pfn: U64, *, hidden: bool) -> Leaves:
    # The 512 words of a huge leaf become one row; a leaf that is cut by the requested range, or
    # was split while being read, stays in base pages. A 1 GiB leaf is 512 rows of 2 MiB.
    shift = np.full(len(addr), PAGE_SHIFT, np.uint8)
    huge = flags & np.uint32(Flag.HUGE) != 0
    heads = np.flatnonzero(huge & (addr & np.uint64(HUGE_SIZE - 1) == 0))
    heads = heads[heads + WORDS <= len(addr)]
    if len(heads):
        last = heads + (WORDS - 1)
        step = np.uint64(0 if hidden else WORDS - 1)
        whole = addr[last] == addr[heads] + np.uint64(HUGE_SIZE - PAGE)
        heads = heads[whole & (words[last] == words[heads] + step)]
        shift[heads] = HUGE_SIZE.bit_length() - 1
        edge = np.zeros(len(addr) + 1, np.int64)
        edge[heads + 1] += 1
        edge[heads + WORDS] -= 1
        rows = np.cumsum(edge[:-1]) == 0
        addr, words, flags = addr[rows], words[rows], flags[rows]
        shift, pfn = shift[rows], pfn[rows]
    return Leaves(addr, shift, words, flags, None if hidden else pfn)


def sum_leaves(vmas: VMAs, leaves: Leaves) -> Sums:
    # Bytes by VMA and state, without looking at frames.
    row = holder(leaves.addr, vmas.ranges)
    state = SIZES[classify(leaves.flags, vmas.backing[row], None)]
    return Sums(Amounts(row, state, np.zeros_like(state), leaves.flags, leaves.size))


def sum_regions(vmas: VMAs, regions: U64) -> Sums:
    # The kernel joins neighbouring pages across VMA boundaries: split them there again.
    pieces, row, region = intersect(vmas.ranges, regions[:, :2])
    flags = np.full(len(row), Flag.PRESENT.value, np.uint32)
    for category, flag in ((pagemap.PFNZERO, Flag.ZERO), (pagemap.HUGE, Flag.HUGE)):
        flags[regions[region, 2] & np.uint64(category) != 0] |= np.uint32(flag)
    state = SIZES[classify(flags, vmas.backing[row], None)]
    return Sums(Amounts(row, state, np.zeros_like(state), flags, pieces[:, 1] - pieces[:, 0]))
