"""Comparing two walks: pages built by hand, with the expected differences next to them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pagewalk.account.check import (
    FIRM,
    LOOKS,
    Answer,
    Difference,
    Report,
    differing,
    overlapping,
    settle,
    side_by_side,
    touched,
)
from pagewalk.model.columns import Backing, Pages, State
from tests import by_hand

PAGE = 4096


def pages(*rows: tuple[int, int, State, int, int]) -> Pages:
    """Build Pages from (page number, pages, state, pfn, mapcount)."""
    columns = np.array(rows, np.uint64).reshape(-1, 5)
    return Pages(
        addr=columns[:, 0] * np.uint64(PAGE),
        size=columns[:, 1] * np.uint64(PAGE),
        vma=np.zeros(len(columns), np.int64),
        state=columns[:, 2].astype(np.uint8),
        level=np.zeros(len(columns), np.uint8),
        flags=np.zeros(len(columns), np.uint32),
        entry=np.zeros(len(columns), np.uint64),
        pfn=columns[:, 3].copy(),
        kflags=np.zeros(len(columns), np.uint64),
        mapcount=columns[:, 4].copy(),
    )


def found(first: Pages, second: Pages) -> list[tuple[int, int, str, str | None, str | None]]:
    return [
        (d.addr // PAGE, d.size // PAGE, d.what, d.first, d.second)
        for d in differing(first, second, PAGE)
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


# ---- what is read again


def of(page: int, what: str = "mapcount", count: int = 1) -> Difference:
    return Difference(page * PAGE, count * PAGE, what, "5", "6")


def settled(
    found: list[Difference], *answers: Answer, then: Answer | None = None
) -> tuple[list[Difference], Report]:
    """Return the result of settle for ``answers`` in turn, and ``then`` ever after."""
    report, waiting = Report("ebpf", "procfs"), list(answers)

    def ask(_: list[Difference]) -> Answer:
        if waiting:
            return waiting.pop(0)
        assert then is not None, "asked too often"
        return then

    return settle(found, ask, report), report


def test_a_page_that_differs_while_the_first_source_holds_still_is_a_difference() -> None:
    left, report = settled([of(1), of(2, "pfn")], then=([of(1), of(2, "pfn")], []))
    assert left == [of(1), of(2, "pfn")]
    assert (report.moved, report.unsteady) == (0, 0)


def test_a_difference_that_is_gone_in_any_look_does_not_count() -> None:
    there = ([of(1)], list[Difference]())
    left, report = settled([of(1)], *[there] * (FIRM - 1), ([], []))
    assert left == []
    assert (report.moved, report.moved_by_others) == (1, 1)


def test_pages_that_never_hold_still_are_counted_but_are_no_difference() -> None:
    # Every look differs, and the first source disagrees with itself before and after the second.
    moving = [of(1), of(2, "state")]
    left, report = settled(moving, *[(moving, moving)] * LOOKS)
    assert left == []
    assert (report.unsteady, report.unsteady_by_others) == (2, 1)
    assert (report.moved, report.moved_by_others) == (0, 0)


def test_a_second_source_that_says_something_else_each_time_is_no_difference() -> None:
    looks = [[Difference(4096, 4096, "pss", "19456", str(20000 + n))] for n in range(LOOKS)]
    left, report = settled(looks[0], *[(look, list[Difference]()) for look in looks])
    assert left == []
    assert (report.unsteady, report.unsteady_by_others) == (1, 1)


def test_amounts_that_other_processes_change_are_counted_separately() -> None:
    found = [of(1, "pss", 8), of(1, "uss", 8), of(1, "anon", 8), of(1, "locked", 8)]
    _, report = settled(found, ([], []))
    assert (report.moved, report.moved_by_others) == (4, 3)


def test_a_difference_survives_being_split_differently() -> None:
    # A huge row in one look, its second page in another.
    assert overlapping([of(8, count=4)], [of(9)]) == [of(8, count=4)]
    assert overlapping([of(9)], [of(8, count=4)]) == [of(9)]
    assert overlapping([of(9)], [of(9, "pfn"), of(8), of(10)]) == []


def test_everything_that_differed_is_read_again() -> None:
    vmas = by_hand.vmas([(0, 100, 1, 0, Backing.ANON, "")])
    asked = touched([of(1, count=4), of(3, "pfn", 8), of(2, "state"), of(20)], vmas)
    assert (asked // PAGE).tolist() == [[1, 11], [20, 21]]
