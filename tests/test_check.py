"""Comparing two walks: pages built by hand, the differences written beside them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pagewalk.check import differing, side_by_side
from pagewalk.pages import Pages, State

PAGE = 4096


def pages(*rows: tuple[int, int, State, int, int]) -> Pages:
    """Build Pages from (page number, pages, state, pfn, mapcount)."""
    columns = np.array(rows, np.uint64).reshape(-1, 5)
    return Pages(
        addr=columns[:, 0] * np.uint64(PAGE),
        size=columns[:, 1] * np.uint64(PAGE),
        vma=np.zeros(len(columns), np.int64),
        state=columns[:, 2].astype(np.uint8),
        flags=np.zeros(len(columns), np.uint32),
        entry=np.zeros(len(columns), np.uint64),
        pfn=columns[:, 3].copy(),
        kflags=np.zeros(len(columns), np.uint64),
        mapcount=columns[:, 4].copy(),
    )


def found(first: Pages, second: Pages) -> list[tuple[int, int, str, str | None, str | None]]:
    return [
        (d.addr // PAGE, d.size // PAGE, d.what, d.first, d.second)
        for d in differing(first, second)
    ]


def test_equal_pages_do_not_differ() -> None:
    one = pages((1, 1, State.ANON, 100, 1), (2, 1, State.FILE, 200, 3))
    assert found(one, one) == []


def test_a_huge_row_equals_its_base_pages() -> None:
    huge = pages((8, 4, State.ANON, 400, 1))
    small = pages(*((8 + n, 1, State.ANON, 400 + n, 1) for n in range(4)))
    assert found(huge, small) == []
    assert found(small, huge) == []


def test_every_kind_of_difference_is_named_with_its_page() -> None:
    first = pages(
        (1, 1, State.ANON, 100, 1),
        (2, 1, State.ANON, 101, 1),
        (3, 1, State.ANON, 102, 1),
        (4, 1, State.ANON, 103, 1),
    )
    second = pages(
        (1, 1, State.ZERO, 100, 1),
        (2, 1, State.ANON, 999, 1),
        (3, 1, State.ANON, 102, 2),
        (5, 1, State.FILE, 104, 1),
    )
    assert sorted(found(first, second)) == [
        (1, 1, "state", "anon", "zero"),
        (2, 1, "pfn", "101", "999"),
        (3, 1, "mapcount", "1", "2"),
        (4, 1, "state", "anon", None),
        (5, 1, "state", None, "file"),
    ]


def test_one_side_without_anything() -> None:
    assert found(pages((7, 2, State.ANON, 5, 1)), pages()) == [(7, 2, "state", "anon", None)]


def test_batches_are_cut_at_common_addresses() -> None:
    def first() -> Iterator[Pages]:
        yield pages((1, 1, State.ANON, 1, 1), (2, 1, State.ANON, 2, 1))
        yield pages((9, 1, State.ANON, 9, 1))

    def second() -> Iterator[Pages]:
        yield pages((1, 1, State.ANON, 1, 1))
        yield pages((2, 1, State.ANON, 2, 1), (9, 1, State.ANON, 9, 1), (12, 1, State.ANON, 3, 1))

    pairs = [
        (one.addr // PAGE, other.addr // PAGE) for one, other in side_by_side(first(), second())
    ]
    seen = [(one.tolist(), other.tolist()) for one, other in pairs]
    assert seen == [([1], [1]), ([2], [2]), ([9], [9]), ([], [12])]
