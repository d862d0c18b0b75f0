"""Leaves joined with VMAs and frames, and holes filled in."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from pagewalk.model.bits import KPF
from pagewalk.model.columns import (
    READ,
    U64,
    Backing,
    Bool,
    Flag,
    Holes,
    Leaves,
    Pages,
    State,
    VMAs,
    take,
)
from pagewalk.walking.rows import fill, hole_rows, join_batches, join_frames, sum_batches
from tests import by_hand
from tests.by_hand import BIG, HEAP, PAGE, PROGRAM, THP, VMAS
from tests.properties import always

ANON, HUGE = np.uint64(1 << KPF["anon"]), np.uint64(1 << KPF["huge"])


class FrameList:
    """Given frames: (flags, mapcount) by PFN."""

    young, ksm = False, True

    def __init__(self, flags: dict[int, int], mapcount: dict[int, int]) -> None:
        self.flags, self.mapcount = flags, mapcount

    def read(self, pfns: U64, once: Bool) -> tuple[U64, U64]:
        """Return (flags, mapcount) of each frame."""
        flags = np.array([self.flags.get(n, 0) for n in pfns.tolist()], np.uint64)
        return flags, self.mapcounts(pfns)

    def mapcounts(self, pfns: U64) -> U64:
        """Return the mapcount of each frame, 1 by default."""
        return np.array([self.mapcount.get(n, 1) for n in pfns.tolist()], np.uint64)

    def close(self) -> None:
        """Do nothing."""


def leaves(*rows: tuple[int, int, Flag, int]) -> Leaves:
    """Return Leaves of (address, shift, flags, PFN)."""
    addr, shift, flags, pfn = zip(*rows, strict=True)
    return Leaves(
        np.array(addr, np.uint64), np.array(shift, np.uint8), np.zeros(len(rows), np.uint64),
        np.array(flags, np.uint32), np.array(pfn, np.uint64),
    )


PRESENT, SWAP = Flag.PRESENT, Flag.SOFT | Flag.SWAP
THREE = leaves(
    (PROGRAM, 12, PRESENT | Flag.FILE, 7), (HEAP, 12, PRESENT, 8), (HEAP + PAGE, 12, SWAP, 33)
)


def test_a_leaf_is_joined_with_its_vma_frame_and_state() -> None:
    pages = join_frames(VMAS, THREE, FrameList({7: 1 << KPF["lru"], 8: int(ANON)}, {7: 3}), PAGE)
    assert pages.vma.tolist() == [0, 1, 1]
    assert pages.state.tolist() == [State.FILE, State.ANON, State.SWAPPED]
    assert pages.size.tolist() == [PAGE] * 3
    assert pages.mapcount is not None and pages.mapcount.tolist() == [3, 1, 0]


def test_without_frames_there_are_no_flags_and_no_mapcounts() -> None:
    pages = join_frames(VMAS, THREE, None, PAGE)
    assert pages.kflags is None and pages.mapcount is None
    assert pages.state.tolist() == [State.FILE, State.ANON, State.SWAPPED]


def thp(frames: FrameList) -> Pages:
    of = leaves((HEAP, 12, PRESENT, 8), (BIG, 21, PRESENT | Flag.HUGE, 0x400))
    return join_frames(VMAS, of, frames, PAGE)


def test_a_uniformly_mapped_huge_leaf_is_one_row() -> None:
    frames = FrameList({0x400: int(ANON)}, {0x400 + n: 2 for n in range(512)})
    pages = thp(frames)
    assert pages.size.tolist() == [PAGE, THP]
    assert pages.mapcount is not None and pages.mapcount.tolist() == [1, 2]


def test_a_huge_leaf_that_another_process_unmapped_in_part_is_a_row_for_each_page() -> None:
    # A forked child unmapped its first half.
    pages = thp(FrameList({0x400: int(ANON)}, {0x400 + n: 2 for n in range(256, 512)}))
    assert pages.addr.tolist() == [HEAP, *range(BIG, BIG + THP, PAGE)]
    assert pages.pfn is not None and pages.pfn.tolist() == [8, *range(0x400, 0x600)]
    assert pages.mapcount is not None and pages.mapcount.tolist() == [1, *[1] * 256, *[2] * 256]
    assert set(pages.size.tolist()) == {PAGE}
    assert set(pages.state[1:].tolist()) == {State.ANON}


def test_a_hugetlb_page_has_one_mapcount() -> None:
    pages = thp(FrameList({0x400: int(HUGE)}, {0x400: 1, 0x401: 5}))
    assert pages.size.tolist() == [PAGE, THP]


def test_similar_neighbours_are_summed_as_one_row() -> None:
    # Of the heap's 6 pages, 2 and 3 are mapped twice, by KSM, and the last is a swap entry. The
    # page before them is the program's, and differs from the heap's first only in its VMA.
    pages = leaves(
        (VMAS.end[0] - PAGE, 12, PRESENT, 7),
        *((HEAP + i * PAGE, 12, PRESENT, 10 + i) for i in range(5)),
        (HEAP + 5 * PAGE, 12, SWAP, 33),
    )
    merged = int(ANON) | 1 << KPF["ksm"]
    kinds = {number: int(ANON) for number in (7, 10, 11, 14)} | {12: merged, 13: merged}
    frames = FrameList(kinds, {12: 2, 13: 2})
    (counts, _), (_, shared) = sum_batches(VMAS, [pages], frames, PAGE)
    assert counts.vma.tolist() == [0, 1, 1, 1, 1]
    assert counts.size.tolist() == [PAGE, 2 * PAGE, 2 * PAGE, PAGE, PAGE]
    assert counts.state.tolist() == [State.ANON] * 4 + [State.SWAPPED]
    assert counts.mapcount is not None and counts.mapcount.tolist() == [1, 1, 2, 1, 0]
    # Pages that one process may map twice are also returned one by one, with their frames.
    assert (shared.vma.tolist(), shared.pfn.tolist()) == ([1, 1], [12, 13])
    assert (shared.size.tolist(), shared.mapcount.tolist()) == ([PAGE, PAGE], [2, 2])


def test_pages_that_include_huge_ones_are_not_summed() -> None:
    of = leaves((HEAP, 12, PRESENT, 8), (BIG, 21, PRESENT | Flag.HUGE, 0x400))
    frames = FrameList({8: int(ANON), 0x400: int(ANON)}, {0x401: 2})
    (joined,) = join_batches(VMAS, [of], frames, PAGE)
    assert len(joined) == 513
    # One is mapped once, 511 once each, and one twice.
    summed = [sums.amounts.size.tolist() for sums in sum_batches(VMAS, [of], frames, PAGE)]
    assert summed == [[PAGE, PAGE, PAGE, THP - 2 * PAGE]]


def test_a_hole_is_empty_if_there_is_a_page_table_and_not_mapped_if_not() -> None:
    addr = np.array([PROGRAM, HEAP, BIG], np.uint64)
    holes = Holes(addr, np.full(3, PAGE, np.uint64), np.array([1, 2, 0], np.uint8))
    rows = hole_rows(VMAS, holes)
    assert rows.state.tolist() == [State.EMPTY, State.NOT_MAPPED, State.ABSENT]
    assert rows.vma.tolist() == [0, 1, 3]


# ---- fill: VMAs of pages 10-19 and 20-29 (touching), and 40-49


def numbered(*spans: tuple[int, int]) -> U64:
    return np.array(spans, np.uint64).reshape(-1, 2) * np.uint64(PAGE)


AREAS: VMAs = by_hand.vmas([(n * PAGE, 10, READ, 0, Backing.ANON, "") for n in (10, 20, 40)])
IN_VMAS = {*range(10, 30), *range(40, 50)}


@always(st.sets(st.sampled_from(sorted(IN_VMAS))), st.sets(st.integers(8, 52)))
def test_fill_covers_each_requested_page_once(there: set[int], asked: set[int]) -> None:
    there &= asked
    rows = [(n * PAGE, PAGE, State.ANON, PRESENT, n, (), 1) for n in sorted(there)]
    pages = by_hand.pages(rows or [(0, 0, State.ANON, PRESENT, 0, (), 1)], AREAS)
    if not rows:
        pages = take(pages, slice(0, 0))
    wanted = numbered(*((n, n + 1) for n in sorted(asked & IN_VMAS)))
    filled = fill(AREAS, pages, 0, 1 << 64, wanted)
    covered = [n for addr, size in zip(filled.addr.tolist(), filled.size.tolist(), strict=True)
               for n in range(addr // PAGE, (addr + size) // PAGE)]
    assert covered == sorted(asked & IN_VMAS)
    present = filled.addr[filled.state == State.ANON] // np.uint64(PAGE)
    assert present.tolist() == sorted(there)


def test_no_filled_row_crosses_a_vma_boundary() -> None:
    rows = [(12 * PAGE, PAGE, State.ANON, PRESENT, 1, (), 1)]
    filled = fill(AREAS, by_hand.pages(rows, AREAS), 0, 1 << 64, AREAS.ranges)
    spans = zip(filled.addr.tolist(), filled.size.tolist(), filled.vma.tolist(), strict=True)
    assert [(addr // PAGE, size // PAGE, vma) for addr, size, vma in spans] == [
        (10, 2, 0), (12, 1, 0), (13, 7, 0), (20, 10, 1), (40, 10, 2),
    ]
