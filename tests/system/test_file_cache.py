"""What is mapped of a file, on runs by hand. Real files: tests/live/test_cache.py."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pagewalk.model.columns import I64
from pagewalk.system.file_cache import Found, Mapped, add_runs, joined, made, untold
from tests.cache_by_hand import MEMFD, MODEL, UNTOLD

RUNS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=12)
PAGE = 4096


def columns(runs: list[tuple[int, int]]) -> tuple[I64, I64]:
    first, count = np.array(runs, np.int64).reshape(-1, 2).T
    return first, first + count


def pages_of(runs: list[tuple[int, int]]) -> set[int]:
    return {page for first, count in runs for page in range(first, first + count)}


@given(RUNS)
def test_runs_in_any_order_become_their_union(runs: list[tuple[int, int]]) -> None:
    found = joined(*columns(runs))
    assert {page for first, end in zip(*found, strict=True) for page in range(first, end)
            } == pages_of(runs)
    assert (found.first[1:] > found.end[:-1]).all()  # ascending and apart


@given(RUNS, st.lists(st.integers(0, 80), min_size=1))
def test_pages_below_a_page_are_counted(runs: list[tuple[int, int]], edges: list[int]) -> None:
    below = joined(*columns(runs)).below(np.array(edges, np.int64))
    assert below.tolist() == [sum(page < edge for page in pages_of(runs)) for edge in edges]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(1, 5)), max_size=20))
def test_pages_of_several_files_go_to_each(rows: list[tuple[int, int, int]]) -> None:
    every = [Found(name, (0, at), "file", (0, PAGE), PAGE) for at, name in enumerate("abc")]
    which, first, count = np.array(rows, np.int64).reshape(-1, 3).T
    add_runs(every, which, first, first + count)
    for at, one in enumerate(every):
        wanted = pages_of([(page, many) for file, page, many in rows if file == at])
        assert made(one).mapped == len(wanted) * PAGE


def test_nothing_mapped_is_nothing() -> None:
    none = np.zeros(0, np.int64)
    assert joined(none, none).below(np.array([0, 9])).tolist() == [0, 0]
    assert Mapped(none, none).below(np.array([5])).tolist() == [0]


def test_what_is_in_neither_place_needs_both_to_be_known() -> None:
    assert MODEL.absent == MODEL.size - MODEL.cached  # type: ignore[operator]
    assert MEMFD._replace(swapped=None).absent is None  # it may be in swap
    assert UNTOLD.absent is UNTOLD.unmapped is None


def test_files_withheld_for_one_reason_are_one_row() -> None:
    rows = list(untold([UNTOLD, UNTOLD._replace(name="/mnt/also"), MODEL]))
    assert [(row.what, row.why) for row in rows] == [
        ("what is in RAM of /mnt/far and 1 other", UNTOLD.why)]
