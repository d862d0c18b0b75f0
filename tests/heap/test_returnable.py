"""What could be reclaimed: ranges and bytes that can be checked on paper."""

from __future__ import annotations

import os
import tempfile

import numpy as np
import pytest

from pagewalk.heap.returnable import (
    LOOKED_AT,
    NONE,
    Marked,
    Returnable,
    idle,
    locked_ranges,
    marked,
    merged,
    returnable,
    zero_pages,
)
from pagewalk.heap.stacks import Stack
from pagewalk.model.columns import U64, Flag, State
from tests import by_hand

PAGE, HUGE, BASE = 4096, by_hand.THP, 1 << 30


def ranges(*edges: tuple[int, int]) -> U64:
    return np.array(edges, np.uint64).reshape(-1, 2)


def test_what_is_marked_of_pages() -> None:
    found = marked(by_hand.pages(by_hand.ROWS), by_hand.VMAS, HUGE, dirty=True)
    assert found.huge.tolist() == [[by_hand.BIG, by_hand.BIG + HUGE]]
    # Two neighbouring pages of the program, neither of them dirty.
    assert found.clean is not None and found.lazyfree is not None
    assert found.clean.tolist() == [[by_hand.PROGRAM, by_hand.PROGRAM + 2 * PAGE]]
    assert len(found.lazyfree) == 0  # all that is anonymous is swap-backed
    assert found.rss == by_hand.RSS


@pytest.mark.parametrize("flag", [Flag.DIRTY, Flag(0)])
def test_dirty_is_what_the_entry_or_the_frame_says(flag: Flag) -> None:
    pages = by_hand.pages(by_hand.ROWS)
    pages.flags[0] |= np.uint32(flag)
    if not flag:
        assert pages.kflags is not None
        pages.kflags[0] |= np.uint64(1 << 4)
    found = marked(pages, by_hand.VMAS, HUGE, dirty=True)
    assert found.clean is not None
    assert found.clean.tolist() == [[by_hand.PROGRAM + PAGE, by_hand.PROGRAM + 2 * PAGE]]


@pytest.mark.parametrize("bit", [18, 33])  # KPF_UNEVICTABLE, KPF_MLOCKED
def test_what_any_process_has_locked_is_not_dropped(bit: int) -> None:
    pages = by_hand.pages(by_hand.ROWS)
    assert pages.kflags is not None
    pages.kflags[0] |= np.uint64(1 << bit)
    found = marked(pages, by_hand.VMAS, HUGE, dirty=True)
    assert found.clean is not None
    assert found.clean.tolist() == [[by_hand.PROGRAM + PAGE, by_hand.PROGRAM + 2 * PAGE]]


def test_memory_that_is_not_swap_backed_was_released() -> None:
    pages = by_hand.pages(by_hand.ROWS)
    row = int(np.flatnonzero(pages.state == State.ANON.value)[0])
    assert pages.kflags is not None
    pages.kflags[row] = np.uint64(1 << 12)  # anon
    found = marked(pages, by_hand.VMAS, HUGE, dirty=True)
    assert found.lazyfree is not None
    assert found.lazyfree.tolist() == [[by_hand.HEAP, by_hand.HEAP + PAGE]]


def test_where_it_is_not_told_what_is_dirty_nothing_is_called_clean() -> None:
    found = marked(by_hand.pages(by_hand.ROWS), by_hand.VMAS, HUGE, dirty=False)
    assert found.clean is None and found.lazyfree is None and len(found.huge) == 1


def test_parts_are_joined_and_what_is_locked_is_left_out() -> None:
    first = Marked(NONE, NONE, ranges((0, 4 * PAGE)), 4 * PAGE)
    second = Marked(NONE, ranges((8 * PAGE, 9 * PAGE)), ranges((4 * PAGE, 5 * PAGE)), 2 * PAGE)
    found = merged([first, second], ranges((PAGE, 2 * PAGE), (8 * PAGE, 9 * PAGE)))
    assert found.clean is not None and found.lazyfree is not None
    assert found.clean.tolist() == [[0, PAGE], [2 * PAGE, 5 * PAGE]]
    assert len(found.lazyfree) == 0 and found.rss == 6 * PAGE
    unknown = merged([first, second], None)
    assert unknown.clean is None and unknown.lazyfree is None
    assert merged([first, second._replace(clean=None, lazyfree=None)], NONE).clean is None


def test_locked_ranges_are_those_of_locked_vmas() -> None:
    locked = np.array([False, True, False, False])
    found = locked_ranges(by_hand.VMAS, locked)
    assert found is not None
    assert found.tolist() == [[by_hand.HEAP, by_hand.HEAP + 6 * PAGE]]
    assert locked_ranges(by_hand.VMAS, None) is None


def test_pages_of_zeros_are_found_in_a_huge_page() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(3 * HUGE)
        for page in (0, 5, 6, 511):
            os.pwrite(file.fileno(), b"x", HUGE + page * PAGE + page)
        read, zeros = zero_pages(file.fileno(), ranges((HUGE, 2 * HUGE)), HUGE)
    assert read == HUGE
    assert (zeros - np.uint64(HUGE)).tolist() == [[PAGE, 5 * PAGE], [7 * PAGE, 511 * PAGE]]


def test_of_many_huge_pages_a_bounded_number_is_looked_at() -> None:
    many = 3 * LOOKED_AT + 1
    with tempfile.TemporaryFile() as file:
        file.truncate(many * HUGE)
        read, zeros = zero_pages(file.fileno(), ranges((0, many * HUGE)), HUGE)
    assert LOOKED_AT // 2 < read // HUGE <= LOOKED_AT
    assert int((zeros[:, 1] - zeros[:, 0]).sum()) == read
    # Evenly spread: each looked at begins where four begin.
    assert (zeros[:, 0] % np.uint64(4 * HUGE) == 0).all()


def test_what_has_been_unmapped_is_not_called_zero() -> None:
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        read, zeros = zero_pages(memory.fileno(), ranges((1 << 44, (1 << 44) + HUGE)), HUGE)
    assert read == 0 and len(zeros) == 0


def test_stacks_are_idle_below_the_stack_pointer() -> None:
    stacks = [Stack(7, BASE, BASE + 16 * PAGE), Stack(0, 2 * BASE, 2 * BASE + 16 * PAGE)]
    main = ranges((3 * BASE, 3 * BASE + 4 * PAGE))
    inside, outside = BASE + 9 * PAGE + 200, 9 * BASE
    assert idle(stacks, main, np.array([inside, outside], np.uint64))[0] == 1
    _, found = idle(stacks, main, np.array([inside, 3 * BASE + PAGE + 127], np.uint64))
    # 128 bytes below the pointer still belong to the function that runs.
    assert found.tolist() == [[BASE, BASE + 9 * PAGE]]
    _, found = idle(stacks, main, np.array([3 * BASE + PAGE + 128], np.uint64))
    assert found.tolist() == [[3 * BASE, 3 * BASE + PAGE]]
    assert idle([], NONE, np.array([5], np.uint64))[0] == 0
    # A thread whose stack is part of another one's: that is in use below it.
    both = np.array([3 * BASE + 3 * PAGE + 128, 3 * BASE + PAGE + 128], np.uint64)
    threads, found = idle(stacks, main, both)
    assert (threads, found.tolist()) == (2, [[3 * BASE, 3 * BASE + PAGE]])


def test_in_all_each_byte_counts_once_and_only_if_it_is_in_ram() -> None:
    huge = ranges((0, HUGE))
    anon = ranges((0, HUGE), (4 * HUGE, 4 * HUGE + 8 * PAGE))
    clean, lazy = ranges((8 * HUGE, 8 * HUGE + 3 * PAGE)), ranges((0, 2 * PAGE))
    found = returnable(
        Marked(huge, lazy, clean, 600 * PAGE), anon, (HUGE, ranges((PAGE, 101 * PAGE))),
        (1, ranges((4 * HUGE, 4 * HUGE + 10 * PAGE))), ranges((100 * PAGE, 111 * PAGE)),
    )
    # Released: pages 0 and 1; zeros: 1 to 100; trimmed: 100 to 110; idle: 8 of 10; files: 3.
    assert found == Returnable(2 * PAGE, 3 * PAGE, HUGE, HUGE, 100 * PAGE, 1, 8 * PAGE,
                               (111 + 8 + 3) * PAGE, 600 * PAGE)
    # Nothing that is locked, but what the allocator cuts off; pages 0 to 50 and 4 of the stack are.
    locked = ranges((0, 51 * PAGE), (4 * HUGE + 4 * PAGE, 5 * HUGE))
    part = returnable(
        Marked(huge, NONE, clean, 600 * PAGE), anon, (HUGE, ranges((PAGE, 101 * PAGE))),
        (1, ranges((4 * HUGE, 4 * HUGE + 10 * PAGE))), ranges((50 * PAGE, 51 * PAGE)), locked,
    )
    assert (part.locked, part.huge_zeros, part.idle_stacks) == (55 * PAGE, 50 * PAGE, 4 * PAGE)
    assert part.in_all == (50 + 1 + 4 + 3) * PAGE
    unknown = returnable(Marked(huge, None, None, HUGE), anon, (0, NONE), (0, NONE), NONE)
    assert unknown.clean_file is None and unknown.lazyfree is None and unknown.in_all == 0
