"""Rows of a walk: leaves, holes and doubts as Pages, with their VMA, state and frame columns."""

from collections.abc import Iterator, Sequence
from copy import copy
from typing import NamedTuple, TypeAlias

import numpy as np

from pagewalk.model.bits import kpf
from pagewalk.model.columns import (
    I64,
    U8,
    U32,
    U64,
    Bool,
    Flag,
    Holes,
    Leaves,
    Pages,
    Rows,
    State,
    VMAs,
    alike,
    join,
    take,
)
from pagewalk.model.ranges import base_pages, gaps, holder, intersect
from pagewalk.model.rules import HOLE_STATES, SIZES
from pagewalk.model.states import classify, hwpoison
from pagewalk.pagetables.decode import NO_LEAVES, Doubts, Entries
from pagewalk.proc.frames import FrameReader
from pagewalk.sources.space import Space

HUGETLB, ZERO_PAGE = kpf("huge"), kpf("zero_page")

# How many leaves have their frames looked up together: neighbours in RAM, which one read returns,
# are far apart in the address space. Their columns take 15 MB.
TOGETHER = 1 << 18
# Huge leaves whose base pages are counted at once: a million counts at 2 MiB each.
HUGE_TOGETHER = 1 << 11
LOOKS = 3  # at most so many more, at pages whose frames were freed before they were read


class Asked(NamedTuple):
    """What a walk is to return: ``ranges`` (u64[k, 2]) of ``vmas``; whether with frames, holes."""

    space: Space
    vmas: VMAs
    ranges: U64
    frames: bool = True
    holes: bool = False

    @property
    def reader(self) -> FrameReader | None:
        """Return the open frame database, None if frames are not wanted or cannot be read."""
        return self.space.frames if self.frames else None

    @property
    def page_size(self) -> int:
        """Return the size of a base page."""
        return self.space.facts.page_size

    def covered(self) -> I64:
        """Return how many bytes of each VMA the walk covers."""
        out = np.zeros(len(self.vmas), np.int64)
        size = (self.ranges[:, 1] - self.ranges[:, 0]).astype(np.int64)
        np.add.at(out, holder(self.ranges[:, 0], self.vmas.ranges), size)
        return out

    def entries(self) -> Iterator[Entries]:
        """Yield what is found in the address space, in order."""
        return self.space.entries(self.vmas, self.ranges, frames=self.frames)


def paged(asked: Asked) -> Iterator[Pages]:
    """Yield every page that is asked for, in address order."""
    if asked.space.tells.tables:
        return table_pages(asked)
    return filled(asked) if asked.holes else leaf_pages(asked)


def leaf_pages(asked: Asked) -> Iterator[Pages]:
    """Yield the populated leaves that are asked for, in address order."""
    waiting: list[Leaves] = []
    for entries in asked.entries():
        if len(entries.leaves):
            waiting.append(entries.leaves)
        if enough(waiting):
            yield from join_batches(asked, waiting)
            waiting = []
    if waiting:
        yield from join_batches(asked, waiting)


def enough(waiting: Sequence[Rows]) -> bool:
    """Return whether so many rows are waiting that they should be looked up together now."""
    return sum(map(len, waiting)) >= TOGETHER


def table_pages(asked: Asked) -> Iterator[Pages]:
    # Batches that have rows for holes and doubts too; in order only if holes are wanted.
    for entries in asked.entries():
        rows = [*join_batches(asked, [entries.leaves])] if len(entries.leaves) else []
        if len(entries.holes):
            rows.append(hole_rows(asked.vmas, entries.holes))
        if len(entries.doubts):
            rows.append(doubt_rows(asked.vmas, entries.doubts))
        if not asked.holes:
            yield from rows
        elif rows:
            every = join(rows)
            rises = (every.addr[1:] > every.addr[:-1]).all()
            yield every if rises else take(every, np.argsort(every.addr, kind="stable"))


def filled(asked: Asked) -> Iterator[Pages]:
    # Batches with ABSENT rows between the leaves, for a source that cannot tell holes apart.
    at = 0
    for pages in leaf_pages(asked):
        end = int(pages.addr[-1] + pages.size[-1])
        yield fill(asked, pages, at, end)
        at = end
    none = np.zeros(0, np.uint64)
    rest = fill(asked, unpopulated(asked.vmas, none, none, State.ABSENT.value), at, 1 << 64)
    if len(rest):
        yield rest


def fill(asked: Asked, pages: Pages, start: int, end: int) -> Pages:
    """Return ``pages`` with ABSENT rows for the parts of [``start``, ``end``) that none covers.

    Only parts inside the wanted ranges, and so inside a VMA, count; no row crosses a VMA boundary.
    """
    covered = np.stack([pages.addr, pages.addr + pages.size], axis=1)
    free, _, _ = intersect(gaps(covered, start, end), asked.ranges)
    if len(free) == 0:
        return pages
    size = free[:, 1] - free[:, 0]
    both = join([pages, unpopulated(asked.vmas, free[:, 0], size, State.ABSENT.value)])
    return take(both, np.argsort(both.addr, kind="stable"))


def join_batches(asked: Asked, batches: list[Leaves]) -> Iterator[Pages]:
    """Yield ``batches`` as Pages; the frames of all are looked up together."""
    for looked_up in look_up(asked, batches):
        yield join_looked_up(asked, *looked_up)


LookedUp: TypeAlias = tuple[Leaves, U64 | None, U64 | None]


def look_up(asked: Asked, batches: list[Leaves]) -> Iterator[LookedUp]:
    """Yield each of ``batches`` with the flags and mapcounts of its frames, None if not read.

    Leaves of pages that were moved meanwhile are replaced by what they are now.
    """
    pfns = [leaves.pfn for leaves in batches if leaves.pfn is not None]
    if asked.reader is None or len(pfns) < len(batches):
        yield from ((leaves, None, None) for leaves in batches)
        return
    flags = np.concatenate([leaves.flags for leaves in batches])
    kflags, mapcount = frame_words(flags, np.concatenate(pfns), asked.reader)
    at = 0
    for leaves in batches:
        here = slice(at, at := at + len(leaves))
        look_again(asked, leaves, kflags[here], mapcount[here])
        yield leaves, kflags[here], mapcount[here]


def look_again(asked: Asked, leaves: Leaves, kflags: U64, mapcount: U64) -> None:
    """Look again, in place, at leaves of pages that were moved before their frame was read.

    The kernel moves pages at any time (compaction, khugepaged, NUMA balancing). A frame that they
    have left has no mapcount; what something else maps by now is not noticed. ``leaves``,
    ``kflags`` and ``mapcount`` get what is there now; a page that is gone keeps what it had.
    """
    assert asked.reader is not None and leaves.pfn is not None
    for _ in range(LOOKS):
        rows = np.flatnonzero(mapcount == 0)
        rows = rows[should_be_mapped(leaves.flags[rows], kflags[rows])]
        if len(rows) == 0:
            return
        now = leaves_at(asked, leaves.addr[rows], leaves.size[rows])
        _, mine, theirs = np.intersect1d(leaves.addr[rows], now.addr, return_indices=True)
        same = leaves.shift[rows[mine]] == now.shift[theirs]
        rows, now = rows[mine[same]], take(now, theirs[same])
        assert now.pfn is not None
        before = leaves.pfn[rows]
        leaves.flags[rows], leaves.entry[rows], leaves.pfn[rows] = now.flags, now.entry, now.pfn
        kflags[rows], mapcount[rows] = frame_words(now.flags, now.pfn, asked.reader)
        if (now.pfn == before).all():  # a further look would not help
            return


def leaves_at(asked: Asked, addr: U64, size: U64) -> Leaves:
    # What is there now. A copy: entries() would reset the count of tables that the walk under way
    # keeps in its space. A range for each leaf: what became a huge page since is cut to it.
    ranges, space = np.stack([addr, addr + size], axis=1), copy(asked.space)
    found = [entries.leaves for entries in space.entries(asked.vmas, ranges)]
    leaves = join([NO_LEAVES, *found])
    return take(leaves, np.argsort(leaves.addr, kind="stable"))


def should_be_mapped(flags: U32, kflags: U64) -> Bool:
    # Entries of page tables for ordinary pages: while these are mapped, they have a mapcount.
    bits = np.uint32(Flag.PRESENT | Flag.NORMAL)
    mask: Bool = (flags & bits == bits) & (kflags & (HUGETLB | ZERO_PAGE) == 0)
    return mask


def join_looked_up(
    asked: Asked, leaves: Leaves, kflags: U64 | None, mapcount: U64 | None
) -> Pages:
    """Return ``leaves`` as Pages, with the frame columns that were looked up."""
    pages = join_columns(asked, leaves, kflags, mapcount)
    if kflags is None:
        return pages
    huge = leaves.shift > asked.page_size.bit_length() - 1
    huge &= leaves.flags & np.uint32(Flag.PRESENT) != 0
    rows = np.flatnonzero(huge & (kflags & HUGETLB == 0))  # hugetlb: one count for all
    return split_huge(asked, pages, rows) if len(rows) else pages


def join_columns(asked: Asked, leaves: Leaves, kflags: U64 | None, mapcount: U64 | None) -> Pages:
    vma = vma_rows(asked.vmas, leaves.addr)
    # The state is decided once for equal neighbours.
    first = alike(vma, leaves.flags, kflags)
    backing = asked.vmas.backing[vma[first]]
    state = classify(leaves.flags[first], backing, None if kflags is None else kflags[first])
    if not asked.frames:
        state = SIZES[state]
    state = np.repeat(state, np.diff(first, append=len(vma)))
    return Pages(
        leaves.addr, leaves.size, vma, state, np.zeros_like(state), leaves.flags, leaves.entry,
        leaves.pfn, kflags, mapcount,
    )


def vma_rows(vmas: VMAs, addr: U64) -> I64:
    # The VMA of each address. All are inside one and ascending, so only the edges are looked up.
    edges = np.searchsorted(addr, vmas.start)
    return np.repeat(np.arange(len(vmas)), np.diff(edges, append=len(addr)))


def frame_words(flags: U32, pfn: U64, frames: FrameReader) -> tuple[U64, U64]:
    # Flags and mapcount of the first base page of each present leaf, and of each that was lost to a
    # memory error, whose frame stays as it was. 0 for all others.
    framed = flags & np.uint32(Flag.PRESENT) != 0
    once = flags & np.uint32(Flag.EXCLUSIVE) != 0
    if framed.all():
        return frames.read(pfn, once)
    framed |= hwpoison(flags)
    kflags, mapcount = np.zeros(len(pfn), np.uint64), np.zeros(len(pfn), np.uint64)
    kflags[framed], mapcount[framed] = frames.read(pfn[framed], once[framed])
    return kflags, mapcount


def split_huge(asked: Asked, pages: Pages, rows: I64) -> Pages:
    # A huge leaf whose base pages all have the same mapcount stays one row; any other becomes one
    # row per base page. A leaf that was cut by a range may have any size.
    assert asked.reader is not None and pages.pfn is not None and pages.mapcount is not None
    uneven: list[I64] = []
    counted: list[U64] = []
    for at in range(0, len(rows), HUGE_TOGETHER):
        some = rows[at : at + HUGE_TOGETHER]
        per, first, step = base_pages(pages.size[some], asked.page_size)
        counts = asked.reader.mapcounts(np.repeat(pages.pfn[some], per) + step)
        pages.mapcount[some] = counts[first]
        least, most = (f.reduceat(counts, first) for f in (np.minimum, np.maximum))
        uneven.append(some[least != most])
        counted.append(counts[np.repeat(least != most, per)])
    spread = np.concatenate(uneven)
    if len(spread) == 0:
        return pages
    return spread_out(pages, spread, np.concatenate(counted), asked.page_size)


def spread_out(pages: Pages, rows: I64, mapcount: U64, page_size: int) -> Pages:
    # `pages` with one row for each base page of `rows`, which have mapcounts `mapcount`.
    per, _, step = base_pages(pages.size[rows], page_size)
    repeat = np.ones(len(pages), np.int64)
    repeat[rows] = per
    out = take(pages, np.repeat(np.arange(len(pages)), repeat))
    index = np.flatnonzero(np.repeat(repeat > 1, repeat))
    assert out.pfn is not None and out.mapcount is not None
    out.addr[index] += step * np.uint64(page_size)
    out.pfn[index] += step
    out.size[index] = page_size
    out.mapcount[index] = mapcount
    return out


def hole_rows(vmas: VMAs, holes: Holes) -> Pages:
    """Return ``holes`` as Pages: EMPTY where a page table exists (level 1), else NOT_MAPPED.

    Holes that the source cannot tell apart (level 0) are ABSENT.
    """
    return unpopulated(vmas, holes.addr, holes.size, HOLE_STATES[holes.level], holes.level)


def doubt_rows(vmas: VMAs, doubts: Doubts) -> Pages:
    """Return ``doubts`` as Pages in state DOUBT, with the raw entry and its level."""
    state = State.DOUBT.value
    return unpopulated(vmas, doubts.addr, doubts.size, state, doubts.level, doubts.entry)


def unpopulated(
    vmas: VMAs, addr: U64, size: U64, state: U8 | int, level: U8 | int = 0, entry: U64 | int = 0
) -> Pages:
    # Rows without a page, for the ranges [addr, addr + size).
    count = len(addr)
    pfn, kflags, mapcount = (np.zeros(count, np.uint64) for _ in range(3))
    return Pages(
        addr, size, holder(addr, vmas.ranges), np.full(count, state, np.uint8),
        np.full(count, level, np.uint8), np.zeros(count, np.uint32),
        np.full(count, entry, np.uint64), pfn, kflags, mapcount,
    )
