"""Range arithmetic, against sets of the bytes in the ranges."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import strategies as st

from pagewalk.model.columns import U64
from pagewalk.model.errors import BadRequest
from pagewalk.model.ranges import (
    check,
    gaps,
    holder,
    inside,
    intersect,
    join_free,
    join_near,
    overlapping,
    reaching,
    union,
    without,
)
from tests.properties import always

# Sorted, half open, without overlap, sometimes adjacent. Small enough to list every byte.
Ranges = list[tuple[int, int]]
EDGE = st.integers(0, 60)


@st.composite
def range_lists(draw: st.DrawFn) -> Ranges:
    edges = sorted(draw(st.lists(EDGE, unique=True, max_size=12)))
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    touching = draw(st.booleans())
    return list(pairwise(edges)) if touching else pairs


def array(ranges: Ranges) -> U64:
    return np.array(ranges, np.uint64).reshape(-1, 2)


def bytes_of(ranges: Ranges) -> set[int]:
    return {n for low, high in ranges for n in range(low, high)}


@always(range_lists(), st.integers(0, 10))
def test_join_near_closes_gaps_up_to_the_limit_and_no_others(ranges: Ranges, gap: int) -> None:
    joined = join_near(array(ranges)[:, 0], array(ranges)[:, 1], gap)
    between = [
        (end, start)
        for (_, end), (start, _) in pairwise(ranges)
        if start - end <= gap
    ]
    assert bytes_of(joined) == bytes_of(ranges) | bytes_of(between)
    assert all(b[0] - a[1] > gap for a, b in pairwise(joined))


@always(range_lists(), st.lists(EDGE))
def test_inside_says_whether_a_range_contains_the_byte(ranges: Ranges, points: list[int]) -> None:
    found = inside(np.array(points, np.uint64), array(ranges))
    assert found.tolist() == [point in bytes_of(ranges) for point in points]


@always(range_lists(), st.lists(EDGE))
def test_holder_is_the_last_range_that_starts_at_or_below(
    ranges: Ranges, points: list[int]
) -> None:
    found = holder(np.array(points, np.uint64), array(ranges))
    assert found.tolist() == [sum(low <= p for low, _ in ranges) - 1 for p in points]


@always(range_lists(), range_lists())
def test_intersect_covers_what_both_cover(first: Ranges, second: Ranges) -> None:
    pieces, _, _ = intersect(array(first), array(second))
    assert bytes_of(pieces.tolist()) == bytes_of(first) & bytes_of(second)


@always(range_lists(), range_lists())
def test_each_piece_is_inside_the_rows_it_names(first: Ranges, second: Ranges) -> None:
    pieces, in_first, in_second = intersect(array(first), array(second))
    for (low, high), i, j in zip(pieces.tolist(), in_first, in_second, strict=True):
        assert first[i][0] <= low < high <= first[i][1]
        assert second[j][0] <= low < high <= second[j][1]


@always(range_lists(), EDGE, EDGE)
def test_gaps_are_what_the_ranges_do_not_cover(ranges: Ranges, start: int, end: int) -> None:
    free = gaps(array(ranges), start, end).tolist()
    assert bytes_of(free) == bytes_of([(start, end)]) - bytes_of(ranges)


def test_the_end_of_the_address_space_is_a_possible_edge() -> None:
    # [vsyscall], the highest VMA; 1 << 64 does not fit in a u64.
    gate = array([(0xFFFF_FFFF_FF60_0000, 0xFFFF_FFFF_FF60_1000)])
    assert gaps(gate, 0xFFFF_FFFF_FF60_0000, 1 << 64).tolist() == [
        [0xFFFF_FFFF_FF60_1000, (1 << 64) - 1]
    ]


ANY = st.lists(st.tuples(EDGE, EDGE).filter(lambda pair: pair[0] < pair[1]), max_size=8)


@always(ANY)
def test_union_covers_the_same_in_order_and_joined(ranges: Ranges) -> None:
    joined = union(array(ranges)).tolist()
    assert bytes_of([(low, high) for low, high in joined]) == bytes_of(ranges)
    assert all(a[1] < b[0] for a, b in pairwise(joined))


@always(ANY, range_lists())
def test_without_removes_what_the_others_cover(ranges: Ranges, others: Ranges) -> None:
    left = without(array(ranges), array(others)).tolist()
    assert bytes_of([(low, high) for low, high in left]) == bytes_of(ranges) - bytes_of(others)
    assert all(a[1] < b[0] for a, b in pairwise(left))


@always(ANY, range_lists())
def test_overlapping_marks_ranges_that_share_a_byte(ranges: Ranges, others: Ranges) -> None:
    marked = overlapping(array(ranges), array(others)).tolist()
    assert marked == [bool(bytes_of([pair]) & bytes_of(others)) for pair in ranges]


@always(range_lists(), st.lists(EDGE, max_size=4), st.integers(0, 5), st.integers(0, 30))
def test_join_free_closes_wider_gaps_where_nothing_begins(
    ranges: Ranges, others: list[int], gap: int, free: int
) -> None:
    joined = join_free(array(ranges), np.array(sorted(others), np.uint64), gap, free)
    kept = [
        (end, start)
        for (_, end), (start, _) in pairwise(ranges)
        if start - end > (gap if any(end <= o < start for o in others) else max(gap, free))
    ]
    assert [(end, start) for (_, end), (start, _) in pairwise(joined)] == kept
    assert bytes_of(ranges) <= bytes_of(joined)


@always(range_lists(), EDGE, EDGE)
def test_reaching_returns_ranges_that_overlap_the_span(ranges: Ranges, low: int, high: int) -> None:
    found = ranges[reaching(array(ranges), low, high)] if low < high else []
    wanted = set(range(low, high))
    assert found == [span for span in ranges if bytes_of([span]) & wanted]


@pytest.mark.parametrize("given", [[[0, 4096], [4096, 8192]], [[4096, 4096]], []])
def test_ranges_of_whole_pages_in_order_are_valid(given: list[list[int]]) -> None:
    check(array([(a, b) for a, b in given]), 4096)


@pytest.mark.parametrize(("given", "says"), [
    (array([(0, 4096), (0, 4096)]), "sorted"),
    (array([(8192, 12288), (0, 4096)]), "sorted"),
    (array([(8192, 4096)]), "sorted"),
    (array([(1, 4096)]), "part of a page"),
    (np.zeros(2, np.uint64), "u64"),
    (np.zeros((1, 2), np.int64), "u64"),
])
def test_invalid_ranges_are_refused(given: U64, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        check(given, 4096)
