"""Sums of a walk, and which of its pages may be mapped more than once."""

from __future__ import annotations

from pagewalk.model.bits import KPF
from pagewalk.model.columns import Flag, State
from pagewalk.walking.rows import join_batches
from pagewalk.walking.sums import shared_rows, sum_batches
from tests import by_hand
from tests.by_hand import HERE, ONCE, PAGE, SOFT, THP, VMAS, Row
from tests.walking.test_rows import ANON, FrameList, asked, leaves

HEAP, BIG = by_hand.HEAP, by_hand.BIG


def shared(*rows: Row) -> list[tuple[int, int, int]]:
    parts = list(shared_rows(by_hand.pages(rows), PAGE))
    return [row for part in parts for row in
            zip(part.pfn.tolist(), part.size.tolist(), part.mapcount.tolist(), strict=True)]


def test_a_page_that_is_mapped_once_is_not_shared() -> None:
    once: Row = (HEAP, PAGE, State.ANON, ONCE, 8, ("anon",), 1)
    twice: Row = (HEAP + PAGE, PAGE, State.ANON, HERE, 9, ("anon", "ksm"), 2)
    assert shared(once, twice) == [(9, PAGE, 2)]


def test_an_anonymous_page_that_others_map_too_is_held_and_not_freed() -> None:
    ours: Row = (HEAP, PAGE, State.ANON, ONCE, 8, ("anon",), 1)
    inherited: Row = (HEAP + PAGE, PAGE, State.ANON, HERE, 9, ("anon",), 3)
    merged: Row = (HEAP + 2 * PAGE, PAGE, State.ANON, HERE, 10, ("anon", "ksm"), 2)
    again: Row = (HEAP + 3 * PAGE, PAGE, State.ANON, HERE, 10, ("anon", "ksm"), 2)
    assert shared(inherited) == []
    unknown: Row = (HEAP + PAGE, PAGE, State.ANON, HERE, 9, ("anon", "maybe_ksm"), 3)
    assert shared(unknown) == [(9, PAGE, 3)]
    table = by_hand.table([ours, inherited, merged, again])
    assert (table.totals["distinct"], table.totals["freed"]) == (3 * PAGE, 2 * PAGE)


def test_pages_that_are_not_in_ram_are_not_shared() -> None:
    assert shared(
        (HEAP, PAGE, State.ZERO, HERE, 8, ("zero_page",), 0),
        (HEAP + PAGE, PAGE, State.SPECIAL, HERE, 9, (), 0),
        (HEAP + 2 * PAGE, PAGE, State.DEVICE, HERE, 10, (), 0),
        (HEAP + 3 * PAGE, PAGE, State.SWAPPED, Flag.SOFT | Flag.SWAP, 11, (), 0),
        (HEAP + 4 * PAGE, PAGE, State.POISONED, Flag.SOFT | Flag.HWPOISON, 12, (), 0),
    ) == []


def test_a_huge_page_is_its_base_pages_and_a_hugetlb_page_is_one() -> None:
    thp: Row = (BIG, THP, State.FILE, HERE | Flag.HUGE, 0x400, ("lru", "head", "thp"), 2)
    assert shared(thp) == [(0x400 + i, PAGE, 2) for i in range(512)]
    huge: Row = (BIG, THP, State.HUGETLB, HERE | Flag.HUGE, 0x400, ("huge",), 2)
    assert shared(huge) == [(0x400, THP, 2)]


def test_a_page_with_unknown_mappings_is_never_ours_alone() -> None:
    # Migrating; and in a hugetlb page table that another process shares.
    moving: Row = (HEAP, PAGE, State.MIGRATING, Flag.SOFT | Flag.MIGRATION, 9, (), 0)
    foreign: Row = (BIG, THP, State.HUGETLB, HERE | Flag.HUGE, 0x400, ("huge",), 1)
    assert shared(moving, foreign) == [(9, PAGE, 0), (0x400, THP, 0)]
    table = by_hand.table([moving, foreign])
    assert (table.totals["distinct"], table.totals["freed"]) == (PAGE + THP, 0)


def test_a_frame_that_the_database_does_not_know_counts_as_ours_as_in_uss() -> None:
    silent: Row = (HEAP, PAGE, State.ANON, HERE, 9, (), 0)
    assert shared(silent) == [(9, PAGE, 1)]
    totals = by_hand.table([silent]).totals
    assert totals["uss"] == totals["freed"] == totals["distinct"] == totals["untold"] == PAGE


def test_similar_neighbours_are_summed_as_one_row() -> None:
    # Of the heap's 6 pages, 2 and 3 are mapped twice, by KSM, and the last is a swap entry. The
    # page before them is the program's, and differs from the heap's first only in its VMA.
    pages = leaves(
        (VMAS.end[0] - PAGE, 12, HERE, 7),
        *((HEAP + i * PAGE, 12, HERE, 10 + i) for i in range(5)),
        (HEAP + 5 * PAGE, 12, SOFT | Flag.SWAP, 33),
    )
    merged = int(ANON) | 1 << KPF["ksm"]
    kinds = {number: int(ANON) for number in (7, 10, 11, 14)} | {12: merged, 13: merged}
    frames = FrameList(kinds, {12: 2, 13: 2})
    (counts, _), (_, shared) = sum_batches(asked(frames), [pages])
    assert counts.vma.tolist() == [0, 1, 1, 1, 1]
    assert counts.size.tolist() == [PAGE, 2 * PAGE, 2 * PAGE, PAGE, PAGE]
    assert counts.state.tolist() == [State.ANON] * 4 + [State.SWAPPED]
    assert counts.mapcount is not None and counts.mapcount.tolist() == [1, 1, 2, 1, 0]
    # Pages that one process may map twice are also returned one by one, with their frames.
    assert (shared.vma.tolist(), shared.pfn.tolist()) == ([1, 1], [12, 13])
    assert (shared.size.tolist(), shared.mapcount.tolist()) == ([PAGE, PAGE], [2, 2])


def test_pages_that_include_huge_ones_are_not_summed() -> None:
    of = leaves((HEAP, 12, HERE, 8), (BIG, 21, HERE | Flag.HUGE, 0x400))
    frames = FrameList({8: int(ANON), 0x400: int(ANON)}, {0x401: 2})
    (joined,) = join_batches(asked(frames), [of])
    assert len(joined) == 513
    # One is mapped once, 511 once each, and one twice.
    summed = [sums.amounts.size.tolist() for sums in sum_batches(asked(frames), [of])]
    assert summed == [[PAGE, PAGE, PAGE, THP - 2 * PAGE]]
