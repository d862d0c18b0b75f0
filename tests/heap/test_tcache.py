"""Caches of threads, as glibc lays them out before and since 2.42."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pagewalk.heap.memory import Memory
from pagewalk.heap.tcache import NEW, OLD, Caches, Layout, add_up, plausible
from pagewalk.model.columns import U64
from tests.heap.built import no_vmas

HEADS = 0x5000  # where the first chunk of each bin begins, 0x1000 bytes apart


def cache(layout: Layout, counts: dict[int, int], most: int) -> U64:
    """Return the words of a cache with so many chunks in each bin."""
    numbers = np.full(layout.bins, most if layout.free else 0, np.uint16)
    entries = np.zeros(layout.bins, np.uint64)
    for bin_, count in counts.items():
        numbers[bin_] = most - count if layout.free else count
        entries[bin_] = HEADS + 0x1000 * bin_ + 16
    return np.concatenate([numbers.view(np.uint64), entries])


def memory(sizes: dict[int, int]) -> Memory:
    """Return memory in which the first chunk of a bin has the size given, or the bin's own."""

    def read(part: memoryview, at: int) -> int:
        bin_ = (at - HEADS) // 0x1000
        words = np.array([0, sizes.get(bin_, 32 + 16 * bin_) | 1], np.uint64)
        part[:] = words.tobytes()
        return len(part)

    every = np.array([[0, 1 << 40]], np.uint64)
    return Memory(no_vmas(), every, every, every, every[:0], read)


@pytest.mark.parametrize(("layout", "most"), [(OLD, 7), (NEW, 16)])
def test_what_the_bins_hold_is_added_up(layout: Layout, most: int) -> None:
    rows = np.stack([cache(layout, {0: 3, 5: most}, most), cache(layout, {63: 1}, most)])
    assert plausible(rows, layout, most).all()
    size = 3 * 32 + most * (32 + 80) + 32 + 16 * 63
    assert add_up(memory({}), rows, layout, most) == Caches(2, 4 + most, size)


@pytest.mark.parametrize(("layout", "most"), [(OLD, 7), (NEW, 16)])
def test_what_cannot_be_a_cache_is_none(layout: Layout, most: int) -> None:
    good = cache(layout, {2: 1}, most)
    empty = cache(layout, {}, most)
    no_chunk, too_many, odd = good.copy(), good.copy(), good.copy()
    no_chunk[layout.bins // 4 + 2] = 0
    too_many[0] = np.uint64(0xFFFF)
    odd[layout.bins // 4 + 2] += np.uint64(8)
    rows = np.stack([good, empty, no_chunk, too_many, odd])
    assert plausible(rows, layout, most).tolist() == [True, False, False, False, False]


def test_a_chunk_of_another_size_is_no_member() -> None:
    rows = cache(OLD, {2: 1}, 7)[None]
    assert add_up(memory({2: 48}), rows, OLD, 7) == Caches(0, 0, 0)


def test_bins_of_many_sizes_are_not_added_up() -> None:
    rows = cache(NEW, {64: 1}, 16)[None]
    assert add_up(memory({}), rows, NEW, 16) is None


def test_no_cache_holds_nothing() -> None:
    rows = np.zeros((0, OLD.words), np.uint64)
    assert add_up(replace(memory({})), rows, OLD, 7) == Caches(0, 0, 0)
