"""What malloc_trim(0) returns, worked out on paper."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.heap.arenas import Scanned, judged, top_chunk, trimmed, unlocked
from pagewalk.heap.chunks import NO_CHUNKS, Chunks, Found
from pagewalk.heap.glibc import STATE_END, WITH_FASTBINS, State
from pagewalk.heap.glibc import TOP as TOP_FIELD
from pagewalk.heap.heap import DEFAULTS
from pagewalk.heap.tcache import OLD
from tests.heap.built import BINS_AT, START, STATE, build

PAGE = 4096


def chunks(*pairs: tuple[int, int]) -> Chunks:
    addr, size = np.array(pairs, np.uint64).reshape(-1, 2).T
    return Chunks(addr, size, addr, addr)


def trim(lists: Chunks, fast: Chunks, top: tuple[int, int], brk: int | None, unit: int = PAGE
         ) -> tuple[list[list[int]], list[list[int]]]:
    dropped, cut, kept = trimmed(lists, fast, top, brk, unit)
    return sorted([*dropped.tolist(), *cut.tolist()]), kept.tolist()


TOP = (0x100000, 0x121000)


def test_whole_pages_behind_the_header_are_dropped() -> None:
    # 48 bytes are kept: the second begins just too late for its first page.
    lists = chunks((0x1000 - 48, 0x2000), (0x5000 - 32, 0x2020), (0x9000, 0x1000))
    assert trim(lists, NO_CHUNKS, TOP, None) == (
        [[0x1000, 0x2000], [0x6000, 0x7000]], [[0x101000, 0x121000]])


def test_chunks_in_fastbins_are_merged_first() -> None:
    lists, fast = chunks((0x1010, 0xFD0)), chunks((0x1FE0, 0x40), (0x2020, 0x20))
    assert trim(lists, NO_CHUNKS, TOP, None)[0] == []
    assert trim(lists, fast, TOP, None)[0] == []
    more = chunks((0x1010, 0xFD0), (0x2040, 0x1000))
    assert trim(more, NO_CHUNKS, TOP, None)[0] == []
    assert trim(more, fast, TOP, None)[0] == [[0x2000, 0x3000]]


def test_of_what_is_locked_nothing_is_dropped_nor_of_what_follows_in_the_same_chunk() -> None:
    ranges = np.array([[0x1000, 0x4000], [0x6000, 0x9000], [0xA000, 0xB000]], np.uint64)
    locked = np.array([[0x2000, 0x3000], [0x5000, 0x7000]], np.uint64)
    assert unlocked(ranges, locked).tolist() == [[0x1000, 0x2000], [0xA000, 0xB000]]
    assert unlocked(ranges, ranges).tolist() == []
    assert unlocked(ranges, locked[:0]).tolist() == ranges.tolist()


def test_the_top_of_the_main_arena_shrinks_at_the_break() -> None:
    # All but 33 bytes and what is left of the last page; in steps of 2 MiB with huge pages.
    assert trim(NO_CHUNKS, NO_CHUNKS, TOP, TOP[1])[0] == [[0x101000, 0x121000]]
    assert trim(NO_CHUNKS, NO_CHUNKS, (0x100000 - 33, 0x121000), 0x121000)[0] == [
        [0x100000, 0x121000]]
    assert trim(NO_CHUNKS, NO_CHUNKS, TOP, TOP[1], 2 << 20)[0] == [[0x121000, 0x121000]]
    big = (0x100000, 0x100000 + (5 << 20))
    assert trim(NO_CHUNKS, NO_CHUNKS, big, big[1], 2 << 20)[0] == [[big[1] - (4 << 20), big[1]]]


def test_a_top_too_small_to_shrink_stays_and_one_inside_a_forged_chunk_does_too() -> None:
    assert trim(NO_CHUNKS, NO_CHUNKS, (TOP[1] - 32, TOP[1]), TOP[1])[0] == [[TOP[1], TOP[1]]]
    assert trim(NO_CHUNKS, NO_CHUNKS, (0, 0), 0)[0] == [[0, 0]]
    beyond = chunks((TOP[0] - 0x1000, TOP[1] - TOP[0] + 0x3000))
    assert trim(beyond, NO_CHUNKS, TOP, TOP[1])[0][-1] == [TOP[1], TOP[1]]


def test_it_does_not_if_others_moved_the_break() -> None:
    assert trim(NO_CHUNKS, NO_CHUNKS, TOP, TOP[1] + PAGE) == ([], [])


def test_what_lies_behind_the_top_is_not_merged_with_it() -> None:
    lists = chunks((TOP[1], 0x3000))
    assert trim(lists, NO_CHUNKS, TOP, TOP[1] + 0x3000) == ([[0x122000, 0x124000]], [])


def test_a_free_chunk_before_the_top_is_merged_with_it() -> None:
    fast = chunks((0x100000 - 64, 64))
    assert trim(NO_CHUNKS, fast, TOP, TOP[1])[0] == [[0x100000, 0x121000]]


@pytest.mark.parametrize("at", [0, START + 8, START + 128, 2**64 - 16, START - 16])
def test_a_top_outside_the_heap_or_too_large_is_none(at: int) -> None:
    built = build([(64, "used"), (64, "used")])
    built.words[17] = 1 << 63
    assert top_chunk(built.memory(), built.ranges, at) == (0, 0)


def test_one_with_more_chunks_than_were_kept_is_not_told() -> None:
    found = Found(chunks((0x1000, 0x2000)), NO_CHUNKS, np.zeros((0, OLD.words), np.uint64), False)
    words = np.zeros((WITH_FASTBINS + STATE_END) // 8, np.uint64)
    words[(WITH_FASTBINS + TOP_FIELD) // 8] = 0x100000
    state = State(STATE, BINS_AT, words)
    ranges = np.array([[0x1000, 0x200000]], np.uint64)
    arena = judged(Scanned(state, False, ranges, found, TOP, None), DEFAULTS)
    assert not arena.whole and len(arena.lists.addr) == 0 and arena.top == (0, 0)
