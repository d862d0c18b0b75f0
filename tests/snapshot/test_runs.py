"""Pages as runs, and back: nothing is lost, and what is alike is one run."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pagewalk.model.columns import State
from pagewalk.snapshot.runs import pages_of, runs_of, within
from tests.snapshot.by_hand import PAGE, pages, same

ANON, FILE, SWAPPED, EMPTY = State.ANON, State.FILE, State.SWAPPED, State.EMPTY


def test_neighbours_in_ram_and_in_the_address_space_are_one_run() -> None:
    found = runs_of(pages([(i * PAGE, 0, ANON, 100 + i) for i in range(5)]), PAGE)
    assert len(found) == 1
    assert (found.addr[0], found.size[0], found.unit[0]) == (0, 5 * PAGE, PAGE)


def test_a_gap_a_vma_a_state_and_a_jump_in_ram_each_end_a_run() -> None:
    rows = [(0, 0, ANON, 7), (PAGE, 0, ANON, 8), (3 * PAGE, 0, ANON, 9), (4 * PAGE, 1, ANON, 10),
            (5 * PAGE, 1, FILE, 11), (6 * PAGE, 1, FILE, 13)]
    assert runs_of(pages(rows), PAGE).addr.tolist() == [0, *(n * PAGE for n in (3, 4, 5, 6))]


def test_swap_slots_that_follow_one_another_are_one_run() -> None:
    rows = [(i * PAGE, 0, SWAPPED, 1 | (40 + i) << 5) for i in range(4)]
    found = runs_of(pages(rows), PAGE)
    assert len(found) == 1 and found.step[0] == 1 << 5
    assert same(pages_of(found), pages(rows))


def test_what_is_not_populated_is_never_joined() -> None:
    rows = [(0, 0, EMPTY, 0), (PAGE, 0, EMPTY, 0)]
    assert len(runs_of(pages(rows), PAGE)) == 2


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2), st.sampled_from(
    [ANON, FILE, SWAPPED, EMPTY, State.ZERO]), st.integers(0, 3)), min_size=1, max_size=60))
def test_pages_come_back_as_they_were(steps: list[tuple[int, int, State, int]]) -> None:
    addr, vma, frame, rows = 0, 0, 50, []
    for gap, next_vma, state, jump in steps:
        addr, vma, frame = addr + gap * PAGE, max(vma, next_vma), frame + jump
        rows.append((addr, vma, state, frame))
    made = pages(rows)
    assert same(pages_of(runs_of(made, PAGE)), made)


def test_a_range_cuts_a_huge_page() -> None:
    one = pages([(2 << 20, 0, ANON, 512)], size=2 << 20)
    ranges = np.array([[(2 << 20) + PAGE, (2 << 20) + 3 * PAGE]], np.uint64)
    found = within(one, ranges, PAGE)
    assert found.pfn is not None
    assert (found.addr[0], found.size[0], found.pfn[0]) == ((2 << 20) + PAGE, 2 * PAGE, 513)
