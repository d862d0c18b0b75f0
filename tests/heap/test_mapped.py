"""Chunks that are mappings of their own, and malloc's parameters, as each glibc lays them out."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.heap import mapped
from pagewalk.heap.glibc import Malloc, State
from pagewalk.heap.mapped import Parameters, mapped_chunks, parameters
from pagewalk.model.columns import READ, WRITE, Backing
from tests.by_hand import PAGE, vmas
from tests.heap.test_glibc import Written

RW = READ | WRITE
LIBC, BREAK, BIG = 0x7F00_0000_0000, 0x5555_0000_0000, 0x7F20_0000_0000
VMAS = vmas([
    (BREAK, 33, RW, 0, Backing.ANON, "[heap]"),
    (LIBC, 4, RW, 0, Backing.FILE, "/lib/libc.so.6"),
    (BIG, 256, RW, 0, Backing.ANON, ""),
])
NO_ARENAS = np.zeros((0, 2), np.uint64)
MALLOC = Malloc("/lib/libc.so.6", (LIBC, LIBC + 4 * PAGE),
                (State(LIBC + 0x200, LIBC + 0x270, np.zeros(275, np.uint64)),))


def halves(low: int, high: int) -> int:
    return low | high << 32


# struct malloc_par from some words before sbrk_base on; n_mmaps 27, n_mmaps_max 65536, max 28.
LAYOUTS = {
    "2.31": ([0x20000, 8, 0, halves(27, 65536), halves(28, 0), 0xB8E000, 0xBB6000],
             [64, 1032, 7, 0], 4096),
    "2.36": ([0, 0, halves(0, 27), halves(65536, 28), 0, 0xB8E000, 0xBB6000],
             [64, 1032, 7, 0], 4096),
    "2.36 with huge pages": ([2 << 20, 0, halves(0, 27), halves(65536, 28), 0, 0xB8E000, 0xBB6000],
                             [64, 1032, 7, 0], 2 << 20),
    "2.36, none may be mapped": ([0, 0, 0, 0, 1, 0, 0], [64, 1032, 7, 0], 4096),
    "2.31, none may be mapped": ([0, 0, 0, 0, halves(0, 1), 0, 0], [64, 1032, 7, 0], 4096),
    "2.36 without caches": ([0, 0, halves(0, 27), halves(65536, 28), 0, 0xB8E000, 0xBB6000],
                            [1, 0, 0, 0], 4096),
    "2.43": ([0, 0, halves(0, 27), halves(65536, 28), 1, 0xB8E000, 0xBB6000],
             [64, 1041, 16, 0], 4096),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_parameters_are_found_by_the_break(layout: str) -> None:
    before, after, unit = LAYOUTS[layout]
    written = Written(VMAS)
    written.put(LIBC + 0x800, *before, BREAK + 0x10, *after)
    written.put(LIBC + 0x100, BREAK + 0x20, 1, 2, 3)  # some other pointer into the heap
    count, mapped = (0, 0) if "none" in layout else (27, 0xB8E000)
    assert parameters(written.memory, MALLOC) == Parameters(count, mapped, unit, after[2])


def test_pages_of_arenas_may_be_huge() -> None:
    written = Written(VMAS)
    written.put(LIBC + 0x800, 0, 2 << 20, halves(0x40000, 0), halves(65536, 0), 0, 0, 0)
    written.put(LIBC + 0x838, BREAK, 64, 1032, 7)
    found = parameters(written.memory, MALLOC)
    assert found is not None and found.huge == 2 << 20


def test_parameters_that_make_no_sense_are_none() -> None:
    written = Written(VMAS)
    written.put(LIBC + 0x800, 0, 0, halves(0, 30), halves(65536, 28), 0, 1, 2, BREAK, 64, 1032, 7)
    assert parameters(written.memory, MALLOC) is None


@pytest.mark.parametrize("left_out", [0, 16])
def test_each_tells_where_the_next_begins(left_out: int) -> None:
    written = Written(VMAS)
    aligned = 0x2000 + 0x800  # 0x800 bytes into its mapping
    written.put(BIG, 0, 0x2000 - left_out | 2)
    written.put(BIG + aligned, 0x800, 0x3000 - 0x800 - left_out | 2)
    written.put(BIG + 0x5000, 0, 0x1000 - left_out | 2)
    expected = [[BIG, BIG + 0x2000], [BIG + 0x2000, BIG + 0x5000], [BIG + 0x5000, BIG + 0x6000]]
    assert mapped_chunks(written.memory, NO_ARENAS, 3).tolist() == expected
    assert mapped_chunks(written.memory, NO_ARENAS, 2).tolist() == expected[:2]
    whole = np.array([[BIG, BIG + 256 * PAGE]], np.uint64)
    assert mapped_chunks(written.memory, whole, 3).tolist() == []


def test_one_behind_other_memory_is_found_by_its_page() -> None:
    written = Written(VMAS)
    written.put(BIG + 0x7000, 0, 0x2000 | 2)
    written.put(BIG + 0x9000, 0, 0x1000 | 2)
    assert mapped_chunks(written.memory, NO_ARENAS, 2).tolist() == [
        [BIG + 0x7000, BIG + 0x9000], [BIG + 0x9000, BIG + 0xA000]]
    assert mapped_chunks(written.memory, NO_ARENAS, 0).tolist() == []


def test_of_pages_that_only_begin_like_one_a_bounded_number_is_tried(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "MOST", 3)
    written = Written(VMAS)
    for page in range(1, 4):
        written.put(BIG + page * PAGE, 1, 1 << 40 | 2)
    written.put(BIG + 4 * PAGE, 0, 0x1000 | 2)
    assert mapped_chunks(written.memory, NO_ARENAS, 1).tolist() == []
    monkeypatch.setattr(mapped, "MOST", 4)
    assert len(mapped_chunks(written.memory, NO_ARENAS, 1)) == 1


@pytest.mark.parametrize("word", [0x2008 | 2, 0x2000 | 3, (257 * PAGE) | 2, 2, 2**64 - 4096 | 2])
def test_a_size_that_cannot_be_is_none(word: int) -> None:
    written = Written(VMAS)
    written.put(BIG, 0, word)
    assert mapped_chunks(written.memory, NO_ARENAS, 1).tolist() == []
