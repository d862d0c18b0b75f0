"""Rows of a walk: leaves, holes and doubts as Pages, with their VMA, state and frame columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

from pagewalk.flags import KPF
from pagewalk.held import shared_rows
from pagewalk.pages import (
    I64,
    LEVEL_SHIFT,
    U8,
    U32,
    U64,
    Counts,
    Flag,
    Holes,
    Leaves,
    Pages,
    Shared,
    State,
    VMAs,
    alike,
    join,
    take,
)
from pagewalk.proc.frames import FrameReader
from pagewalk.proc.pagemap import PAGE
from pagewalk.ranges import gaps, holder, intersect
from pagewalk.rules import HOLE_STATES
from pagewalk.scan import Doubts
from pagewalk.states import classify, hwpoison, maybe_repeated

HUGETLB = np.uint64(1 << KPF["huge"])
PAGE_SHIFT = PAGE.bit_length() - 1

# Huge leaves whose base pages are counted at once: a million counts at 2 MiB each.
HUGE_TOGETHER = 1 << 11


def join_frames(vmas: VMAs, leaves: Leaves, frames: FrameReader | None) -> Pages:
    """Return ``leaves`` as Pages: with VMA, state and, where ``frames`` is open, frame columns."""
    return next(join_batches(vmas, [leaves], frames))


def join_batches(
    vmas: VMAs, batches: list[Leaves], frames: FrameReader | None
) -> Iterator[Pages]:
    """Yield join_frames of each of ``batches``; their frames are looked up at once."""
    for leaves, kflags, mapcount in look_up(batches, frames):
        yield join_looked_up(vmas, leaves, kflags, mapcount, frames)


def sum_batches(
    vmas: VMAs, batches: list[Leaves], frames: FrameReader | None
) -> Iterator[Pages | Counts | Shared]:
    """Yield what adds up to join_batches; neighbouring base pages that are alike as one row.

    Pages that may be mapped more than once come a second time, as Shared.
    """
    for leaves, kflags, mapcount in look_up(batches, frames):
        if kflags is None or mapcount is None or (leaves.shift != PAGE_SHIFT).any():
            yield join_looked_up(vmas, leaves, kflags, mapcount, frames)
            continue
        counts = sum_alike(vmas, leaves, kflags, mapcount)
        yield counts
        pages = (counts.size // np.uint64(PAGE)).astype(np.int64)
        rows = np.flatnonzero(np.repeat(maybe_repeated(counts), pages))
        if len(rows):
            yield from shared_rows(
                join_columns(vmas, take(leaves, rows), kflags[rows], mapcount[rows])
            )


LookedUp: TypeAlias = tuple[Leaves, U64 | None, U64 | None]


def look_up(batches: list[Leaves], frames: FrameReader | None) -> Iterator[LookedUp]:
    # Each batch with the flags and mapcounts of its frames.
    pfns = [leaves.pfn for leaves in batches if leaves.pfn is not None]
    if frames is None or len(pfns) < len(batches):
        yield from ((leaves, None, None) for leaves in batches)
        return
    flags = np.concatenate([leaves.flags for leaves in batches])
    kflags, mapcount = read_frames(flags, np.concatenate(pfns), frames)
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
) -> Pages:
    pages = join_columns(vmas, leaves, kflags, mapcount)
    if kflags is None or frames is None:
        return pages
    huge = (leaves.shift > PAGE_SHIFT) & (leaves.flags & np.uint32(Flag.PRESENT) != 0)
    rows = np.flatnonzero(huge & (kflags & HUGETLB == 0))  # hugetlb: one count for all
    return split_huge(pages, rows, frames) if len(rows) else pages


def sum_alike(vmas: VMAs, leaves: Leaves, kflags: U64, mapcount: U64) -> Counts:
    edges = np.searchsorted(leaves.addr, vmas.start)
    first = alike(leaves.flags, kflags, mapcount, also=edges)
    vma = np.searchsorted(edges, first, side="right") - 1
    flags, kflags = leaves.flags[first], kflags[first]
    size = np.diff(first, append=len(leaves)).astype(np.uint64) * np.uint64(PAGE)
    state = classify(flags, vmas.backing[vma], kflags)
    return Counts(vma, state, flags, size, kflags, mapcount[first])


def join_columns(vmas: VMAs, leaves: Leaves, kflags: U64 | None, mapcount: U64 | None) -> Pages:
    vma = vma_rows(vmas, leaves.addr)
    state = states(vmas, vma, leaves.flags, kflags)
    return Pages(
        leaves.addr, leaves.size, vma, state, leaves.flags, leaves.entry, leaves.pfn, kflags,
        mapcount,
    )


def vma_rows(vmas: VMAs, addr: U64) -> I64:
    # The VMA of each address, all inside one and ascending: so only the edges are looked up.
    edges = np.searchsorted(addr, vmas.start)
    return np.repeat(np.arange(len(vmas)), np.diff(edges, append=len(addr)))


def states(vmas: VMAs, vma: I64, flags: U32, kflags: U64 | None) -> U8:
    # The State of each leaf, decided once for neighbours that look alike.
    first = alike(vma, flags, kflags)
    state = classify(
        flags[first], vmas.backing[vma[first]], None if kflags is None else kflags[first]
    )
    return np.repeat(state, np.diff(first, append=len(flags)))


def read_frames(flags: U32, pfn: U64, frames: FrameReader) -> tuple[U64, U64]:
    # Flags and mapcount of the first base page of each present leaf, and of each that was lost to a
    # memory error: such a frame stays as it was. 0 elsewhere.
    framed = flags & np.uint32(Flag.PRESENT) != 0
    once = flags & np.uint32(Flag.EXCLUSIVE) != 0
    if framed.all():
        return frames.read(pfn, once)
    framed |= hwpoison(flags)
    kflags, mapcount = np.zeros(len(pfn), np.uint64), np.zeros(len(pfn), np.uint64)
    kflags[framed], mapcount[framed] = frames.read(pfn[framed], once[framed])
    return kflags, mapcount


def split_huge(pages: Pages, rows: I64, frames: FrameReader) -> Pages:
    # A huge leaf whose base pages are mapped equally often stays one row; another becomes one row
    # a base page. A leaf that was cut by a range may have any size.
    assert pages.pfn is not None and pages.mapcount is not None
    uneven: list[I64] = []
    counted: list[U64] = []
    for at in range(0, len(rows), HUGE_TOGETHER):
        some = rows[at : at + HUGE_TOGETHER]
        per, first, step = base_pages(pages, some)
        counts = frames.counts(np.repeat(pages.pfn[some], per) + step)
        pages.mapcount[some] = counts[first]
        least, most = (f.reduceat(counts, first) for f in (np.minimum, np.maximum))
        uneven.append(some[least != most])
        counted.append(counts[np.repeat(least != most, per)])
    spread = np.concatenate(uneven)
    return pages if len(spread) == 0 else spread_out(pages, spread, np.concatenate(counted))


def base_pages(pages: Pages, rows: I64) -> tuple[I64, I64, U64]:
    # Of the base pages of `rows`, one after the other: how many each row has, where each begins,
    # and every base page's number within its row.
    per = (pages.size[rows] // np.uint64(PAGE)).astype(np.int64)
    first = np.cumsum(per) - per
    return per, first, (np.arange(per.sum()) - np.repeat(first, per)).astype(np.uint64)


def spread_out(pages: Pages, rows: I64, mapcount: U64) -> Pages:
    # `pages` with one row for each base page of `rows`, whose counts are `mapcount`.
    per, _, step = base_pages(pages, rows)
    repeat = np.ones(len(pages), np.int64)
    repeat[rows] = per
    out = take(pages, np.repeat(np.arange(len(pages)), repeat))
    spread = np.zeros(len(pages), bool)
    spread[rows] = True
    index = np.flatnonzero(np.repeat(spread, repeat))
    assert out.pfn is not None and out.mapcount is not None
    out.addr[index] += step * np.uint64(PAGE)
    out.pfn[index] += step
    out.size[index] = PAGE
    out.mapcount[index] = mapcount
    return out


def hole_rows(vmas: VMAs, holes: Holes) -> Pages:
    """Return ``holes`` as Pages: EMPTY where a page table exists (level 1), else NOT_MAPPED.

    What the source did not look at (level 0) is ABSENT.
    """
    rows = unpopulated(vmas, holes.addr, holes.size, HOLE_STATES[holes.level])
    rows.flags[:] = holes.level.astype(np.uint32) << np.uint32(LEVEL_SHIFT)
    return rows


def hole_counts(vmas: VMAs, holes: Holes) -> Counts:
    """Return ``holes`` as Counts, with the states of hole_rows."""
    level = holes.level.astype(np.uint32) << np.uint32(LEVEL_SHIFT)
    return Counts(holder(holes.addr, vmas.ranges), HOLE_STATES[holes.level], level, holes.size)


def doubt_rows(vmas: VMAs, doubts: Doubts) -> Pages:
    """Return ``doubts`` as Pages in state DOUBT, with the raw entry and its level."""
    state = np.full(len(doubts), State.DOUBT.value, np.uint8)
    rows = unpopulated(vmas, doubts.addr, doubts.size, state)
    rows.flags[:] = doubts.level.astype(np.uint32) << np.uint32(LEVEL_SHIFT)
    rows.entry[:] = doubts.entry
    return rows


def unpopulated(vmas: VMAs, addr: U64, size: U64, state: U8) -> Pages:
    # Rows without a page, for the ranges [addr, addr + size).
    count = len(addr)
    flags = np.zeros(count, np.uint32)
    entry, pfn, kflags, mapcount = (np.zeros(count, np.uint64) for _ in range(4))
    return Pages(addr, size, holder(addr, vmas.ranges), state, flags, entry, pfn, kflags, mapcount)


def fill(vmas: VMAs, pages: Pages, start: int, end: int, wanted: U64) -> Pages:
    """Return ``pages`` with ABSENT rows for the parts of [``start``, ``end``) none of them covers.

    Only parts inside ``wanted`` and inside a VMA count; no row crosses the edge of a VMA.
    """
    covered = np.stack([pages.addr, pages.addr + pages.size], axis=1)
    free, _, _ = intersect(gaps(covered, start, end), wanted)
    state = np.full(len(free), State.ABSENT.value, np.uint8)
    rows = unpopulated(vmas, free[:, 0], free[:, 1] - free[:, 0], state)
    if len(free) == 0:
        return pages
    both = join([pages, rows])
    return take(both, np.argsort(both.addr, kind="stable"))
