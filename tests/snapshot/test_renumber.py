"""Frames numbered anew: the same frame has the same number, and no number is a place in RAM."""

import numpy as np

from pagewalk.model.columns import State
from pagewalk.snapshot.renumber import Renumbering
from pagewalk.snapshot.runs import ANEW, runs_of
from tests.snapshot.by_hand import PAGE, pages

ANON = State.ANON
HUGE = 2 << 20


def numbers(made: Renumbering, *pfn: int) -> list[int]:
    return (made.of(np.array(pfn, np.uint64)) - np.uint64(ANEW)).tolist()


def test_numbers_are_given_in_the_order_in_which_frames_are_met() -> None:
    made = Renumbering()
    assert numbers(made, 900, 17, 900, 5) == [1, 2, 1, 3]
    assert numbers(made, 5, 1 << 30, 17) == [3, 4, 2]


def test_pages_that_lie_apart_in_ram_become_one_run() -> None:
    rows = [(i * PAGE, 0, ANON, 7919 * i + 3) for i in range(100)]
    assert len(runs_of(pages(rows), PAGE)) == 100
    assert len(runs_of(Renumbering().pages(pages(rows), PAGE), PAGE)) == 1


def test_swap_keeps_its_place_and_what_is_unknown_none() -> None:
    rows = [(0, 0, State.SWAPPED, 33), (PAGE, 0, State.EMPTY, 0), (2 * PAGE, 0, State.MARKER, 5)]
    found = Renumbering().pages(pages(rows), PAGE)
    assert found.pfn is not None and found.pfn.tolist() == [33, 0, 0]


def test_a_huge_page_has_numbers_for_all_its_pages() -> None:
    made = Renumbering()
    huge = made.pages(pages([(HUGE, 0, ANON, 512)], size=HUGE), PAGE)
    assert len(huge) == 1 and huge.size[0] == HUGE
    assert huge.pfn is not None
    first = int(huge.pfn[0]) - ANEW
    assert numbers(made, 512, 513, 1023) == [first, first + 1, first + 511]


def test_a_huge_page_of_which_some_were_met_before_becomes_rows_of_pages() -> None:
    made = Renumbering()
    assert numbers(made, 600) == [1]
    found = made.pages(pages([(HUGE, 0, ANON, 512)], size=HUGE), PAGE)
    assert found.pfn is not None
    assert len(found) == 512 and set(found.size.tolist()) == {PAGE}
    assert found.pfn[88] == ANEW + 1 and len(set(found.pfn.tolist())) == 512
    assert found.addr.tolist() == [HUGE + i * PAGE for i in range(512)]
