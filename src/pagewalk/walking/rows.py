"""Rows of a walk: leaves, holes and doubts as Pages, with their VMA, state and frame columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

from pagewalk.model.bits import kpf
from pagewalk.model.columns import (
    I64,
    U8,
    U32,
    U64,
    Amounts,
    Flag,
    Holes,
    Leaves,
    Pages,
    State,
    Sums,
    VMAs,
    alike,
    join,
    take,
)
from pagewalk.model.ranges import gaps, holder, intersect
from pagewalk.model.rules import HOLE_STATES
from pagewalk.model.states import classify, hwpoison, maybe_repeated
from pagewalk.pagetables.decode import Doubts
from pagewalk.proc.frames import FrameReader
from pagewalk.walking.sums import add_up, shared_rows

HUGETLB = kpf("huge")

# Huge leaves whose base pages are counted at once: a million counts at 2 MiB each.
HUGE_TOGETHER = 1 << 11


def join_frames(
    vmas: VMAs, leaves: Leaves, frames: FrameReader | None, page_size: int
) -> Pages:
    """Return ``leaves`` as Pages: with VMA, state and, where ``frames`` is open, frame columns."""
    return next(join_batches(vmas, [leaves], frames, page_size))


def join_batches(
    vmas: VMAs, batches: list[Leaves], frames: FrameReader | None, page_size: int
) -> Iterator[Pages]:
    """Yield join_frames of each of ``batches``; the frames of all are looked up together."""
    for leaves, kflags, mapcount in look_up(batches, frames):
        yield join_looked_up(vmas, leaves, kflags, mapcount, frames, page_size)


def sum_batches(
    vmas: VMAs, batches: list[Leaves], frames: FrameReader | None, page_size: int
) -> Iterator[Sums]:
    """Yield the sums of join_batches, with equal neighbouring base pages as one row."""
    base = page_size.bit_length() - 1
    for leaves, kflags, mapcount in look_up(batches, frames):
        if kflags is None or mapcount is None or (leaves.shift != base).any():
            pages = join_looked_up(vmas, leaves, kflags, mapcount, frames, page_size)
            yield from add_up(pages, page_size)
            continue
        amounts = sum_alike(vmas, leaves, kflags, mapcount, page_size)
        yield Sums(amounts)
        times = (amounts.size // np.uint64(page_size)).astype(np.int64)
        rows = np.flatnonzero(np.repeat(maybe_repeated(amounts), times))
        if len(rows):
            pages = join_columns(vmas, take(leaves, rows), kflags[rows], mapcount[rows])
            yield from (Sums(shared=shared) for shared in shared_rows(pages, page_size))


LookedUp: TypeAlias = tuple[Leaves, U64 | None, U64 | None]


def look_up(batches: list[Leaves], frames: FrameReader | None) -> Iterator[LookedUp]:
    # Each batch with the flags and mapcounts of its frames.
    pfns = [leaves.pfn for leaves in batches if leaves.pfn is not None]
    if frames is None or len(pfns) < len(batches):
        yield from ((leaves, None, None) for leaves in batches)
        return
    flags = np.concatenate([leaves.flags for leaves in batches])
    kflags, mapcount = frame_words(flags, np.concatenate(pfns), frames)
    at = 0
    for leaves in batches:
        here = slice(at, at := at + len(leaves))
        yield leaves, kflags[here], mapcount[here]


def join_looked_up(
    vmas: VMAs,
    leaves: Leaves,
    kflags: U64 | None,
    mapcount: U64 | None,
    frames: FrameReader | None,
    page_size: int,
) -> Pages:
    pages = join_columns(vmas, leaves, kflags, mapcount)
    if kflags is None or frames is None:
        return pages
    huge = leaves.shift > page_size.bit_length() - 1
    huge &= leaves.flags & np.uint32(Flag.PRESENT) != 0
    rows = np.flatnonzero(huge & (kflags & HUGETLB == 0))  # hugetlb: one count for all
    return split_huge(pages, rows, frames, page_size) if len(rows) else pages


def sum_alike(
    vmas: VMAs, leaves: Leaves, kflags: U64, mapcount: U64, page_size: int
) -> Amounts:
    edges = np.searchsorted(leaves.addr, vmas.start)
    first = alike(leaves.flags, kflags, mapcount, also=edges)
    vma = np.searchsorted(edges, first, side="right") - 1
    flags, kflags = leaves.flags[first], kflags[first]
    size = np.diff(first, append=len(leaves)).astype(np.uint64) * np.uint64(page_size)
    state = classify(flags, vmas.backing[vma], kflags)
    return Amounts(vma, state, np.zeros_like(state), flags, size, kflags, mapcount[first])


def join_columns(vmas: VMAs, leaves: Leaves, kflags: U64 | None, mapcount: U64 | None) -> Pages:
    vma = vma_rows(vmas, leaves.addr)
    state = states(vmas, vma, leaves.flags, kflags)
    return Pages(
        leaves.addr, leaves.size, vma, state, np.zeros_like(state), leaves.flags, leaves.entry,
        leaves.pfn, kflags, mapcount,
    )


def vma_rows(vmas: VMAs, addr: U64) -> I64:
    # The VMA of each address. All are inside one and ascending, so only the edges are looked up.
    edges = np.searchsorted(addr, vmas.start)
    return np.repeat(np.arange(len(vmas)), np.diff(edges, append=len(addr)))


def states(vmas: VMAs, vma: I64, flags: U32, kflags: U64 | None) -> U8:
    # The State of each leaf, decided once for equal neighbours.
    first = alike(vma, flags, kflags)
    state = classify(
        flags[first], vmas.backing[vma[first]], None if kflags is None else kflags[first]
    )
    return np.repeat(state, np.diff(first, append=len(flags)))


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


def split_huge(pages: Pages, rows: I64, frames: FrameReader, page_size: int) -> Pages:
    # A huge leaf whose base pages all have the same mapcount stays one row; any other becomes one
    # row per base page. A leaf that was cut by a range may have any size.
    assert pages.pfn is not None and pages.mapcount is not None
    uneven: list[I64] = []
    counted: list[U64] = []
    for at in range(0, len(rows), HUGE_TOGETHER):
        some = rows[at : at + HUGE_TOGETHER]
        per, first, step = base_pages(pages, some, page_size)
        counts = frames.mapcounts(np.repeat(pages.pfn[some], per) + step)
        pages.mapcount[some] = counts[first]
        least, most = (f.reduceat(counts, first) for f in (np.minimum, np.maximum))
        uneven.append(some[least != most])
        counted.append(counts[np.repeat(least != most, per)])
    spread = np.concatenate(uneven)
    return pages if len(spread) == 0 else spread_out(
        pages, spread, np.concatenate(counted), page_size
    )


def base_pages(pages: Pages, rows: I64, page_size: int) -> tuple[I64, I64, U64]:
    # For the base pages of `rows`, one after the other: how many each row has, where each row
    # begins, and each base page's number within its row.
    per = (pages.size[rows] // np.uint64(page_size)).astype(np.int64)
    first = np.cumsum(per) - per
    return per, first, (np.arange(per.sum()) - np.repeat(first, per)).astype(np.uint64)


def spread_out(pages: Pages, rows: I64, mapcount: U64, page_size: int) -> Pages:
    # `pages` with one row for each base page of `rows`, which have mapcounts `mapcount`.
    per, _, step = base_pages(pages, rows, page_size)
    repeat = np.ones(len(pages), np.int64)
    repeat[rows] = per
    out = take(pages, np.repeat(np.arange(len(pages)), repeat))
    spread = np.zeros(len(pages), bool)
    spread[rows] = True
    index = np.flatnonzero(np.repeat(spread, repeat))
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
    rows = unpopulated(vmas, holes.addr, holes.size, HOLE_STATES[holes.level])
    rows.level[:] = holes.level
    return rows


def hole_amounts(vmas: VMAs, holes: Holes) -> Amounts:
    """Return ``holes`` as Amounts, with the states of hole_rows."""
    flags = np.zeros(len(holes), np.uint32)
    vma = holder(holes.addr, vmas.ranges)
    return Amounts(vma, HOLE_STATES[holes.level], holes.level, flags, holes.size)


def doubt_rows(vmas: VMAs, doubts: Doubts) -> Pages:
    """Return ``doubts`` as Pages in state DOUBT, with the raw entry and its level."""
    state = np.full(len(doubts), State.DOUBT.value, np.uint8)
    rows = unpopulated(vmas, doubts.addr, doubts.size, state)
    rows.level[:] = doubts.level
    rows.entry[:] = doubts.entry
    return rows


def unpopulated(vmas: VMAs, addr: U64, size: U64, state: U8) -> Pages:
    # Rows without a page, for the ranges [addr, addr + size).
    count = len(addr)
    vma, level = holder(addr, vmas.ranges), np.zeros(count, np.uint8)
    flags = np.zeros(count, np.uint32)
    entry, pfn, kflags, mapcount = (np.zeros(count, np.uint64) for _ in range(4))
    return Pages(addr, size, vma, state, level, flags, entry, pfn, kflags, mapcount)


def fill(vmas: VMAs, pages: Pages, start: int, end: int, wanted: U64) -> Pages:
    """Return ``pages`` with ABSENT rows for the parts of [``start``, ``end``) that none covers.

    Only parts inside ``wanted`` and inside a VMA count; no row crosses a VMA boundary.
    """
    covered = np.stack([pages.addr, pages.addr + pages.size], axis=1)
    free, _, _ = intersect(gaps(covered, start, end), wanted)
    state = np.full(len(free), State.ABSENT.value, np.uint8)
    rows = unpopulated(vmas, free[:, 0], free[:, 1] - free[:, 0], state)
    if len(free) == 0:
        return pages
    both = join([pages, rows])
    return take(both, np.argsort(both.addr, kind="stable"))
