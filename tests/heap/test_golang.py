"""A Go heap written by hand. Against the runtime itself in tests/live/test_golang.py."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from pagewalk.heap import golang
from pagewalk.heap.golang import (
    ARRAYS,
    BASE,
    BLOCK,
    BY_HAND,
    CHUNK,
    IN_HEAP,
    IN_USE,
    LARGEST,
    LAYOUTS,
    LEVELS,
    NOT_FOUND,
    PAGE,
    PAGES,
    START,
    SWAPPED,
    TORN,
    UNKNOWN,
    Amount,
    read_go,
)
from pagewalk.model.columns import READ, WRITE, Backing
from tests.by_hand import vmas
from tests.heap.test_glibc import Written

RW = READ | WRITE
PROGRAM, RECORDS, HEAP = 0x40_0000, 0x7F00_0000_0000, 0xC0_0000_0000
ALLOCATOR = PROGRAM + 0x1010  # pageAlloc
RANGES, SPANS, SPAN, CHUNKS = RECORDS, RECORDS + 0x1000, RECORDS + 0x2000, RECORDS + 0x4000
VMAS = vmas([
    (PROGRAM, 1, RW, 0, Backing.FILE, "/usr/bin/program"),
    (PROGRAM + 0x1000, 32, RW, 0, Backing.ANON, ""),
    (HEAP, 2 * CHUNK // 4096, RW, 0, Backing.ANON, ""),
    (RECORDS, 2048, RW, 0, Backing.ANON, ""),
])
# By page: two of objects, a stack, one that is kept, three free ones, two that were given back.
SPANNED = ((HEAP, 2, IN_HEAP), (HEAP + 2 * PAGE, 1, BY_HAND), (HEAP + CHUNK, 512, IN_HEAP))
ALLOCATED, RELEASED = 0b1111, 0b11 << 7
REST = 512 - 9  # pages of the first chunk, all given back


def write(version: int = 19) -> Written:
    """Return a process with a heap of two chunks, the second one span."""
    written, layout = Written(VMAS), LAYOUTS[version]
    for level, capacity in enumerate(LEVELS):
        written.put(ALLOCATOR + 24 * level, RECORDS, 1, capacity)
    row = (HEAP - BASE) % 2**64 // BLOCK
    written.put(ALLOCATOR + ARRAYS + 8 * row, CHUNKS)
    written.put(ALLOCATOR + IN_USE, RANGES, 1, 4, 2 * CHUNK)
    written.put(RANGES, HEAP, HEAP + 2 * CHUNK)
    first = CHUNKS + 128 * ((HEAP % BLOCK) // CHUNK)
    ones = 2**64 - 1
    written.put(first, ALLOCATED, *[0] * 7, RELEASED | ones ^ (1 << 9) - 1, *[ones] * 7)
    written.put(first + 128, *[ones] * 8, *[0] * 8)
    written.put(ALLOCATOR + layout.spans, SPANS, len(SPANNED) + 1, 8)
    for at, (start, pages, state) in enumerate([*SPANNED, (0, 0, 0)]):
        span = SPAN + 160 * at
        written.put(SPANS + 8 * at, span)
        written.put(span + START, start)
        written.put(span + PAGES, pages)
        written.put(span + layout.state // 8 * 8, state << layout.state % 8 * 8)
    return written


@pytest.mark.parametrize("version", LAYOUTS)
def test_each_page_is_of_one_kind(version: int) -> None:
    go, ranges, _ = read_go(write(version).memory, f"go1.{version}.3")
    assert go.why == "" and ranges.tolist() == [[HEAP, HEAP + 2 * CHUNK]]
    pages = {"objects": 2 + 512, "stacks": 1, "set_aside": 1, "free": 3, "released": 2 + REST,
             "obtained": 1024}
    for name, count in pages.items():
        assert getattr(go, name) == Amount(*(count * PAGE,) * 3), name


@pytest.mark.parametrize("version", ["go1.17", "go1.20.14", "go1.99", "devel go1.28-0", ""])
def test_a_version_that_is_not_known_is_withheld(version: str) -> None:
    go, ranges, _ = read_go(write().memory, version)
    assert go.why == UNKNOWN and go.obtained is None and len(ranges) == 0


SPAN_STATE = SPAN + LAYOUTS[19].state // 8 * 8


@pytest.mark.parametrize(("at", "words"), [
    (SPAN + START, (HEAP + 2 * PAGE,)),  # two spans share a page
    (SPAN + START, (HEAP + 3 * PAGE,)),  # a span of free pages
    (SPAN + START, (HEAP - PAGE,)),  # one outside the heap
    (SPAN + PAGES, (2**63,)),
    (SPANS, (SPAN + 1,)),
    (SPANS, (2**64 - 8,)),
    (ALLOCATOR + LAYOUTS[19].spans, (SPANS, 9, 8)),
    (ALLOCATOR + LAYOUTS[19].spans, (SPANS, 0, 0)),
])
def test_records_that_contradict_one_another_are_withheld(at: int, words: tuple[int, ...]) -> None:
    written = write()
    written.put(at, *words)
    go = read_go(written.memory, "go1.19").go
    assert go.why == TORN and go.free is None


@pytest.mark.parametrize(("at", "words"), [
    (ALLOCATOR + 16, (LEVELS[0] + 1,)),
    (ALLOCATOR + IN_USE, (RANGES, 5, 4)),
    (ALLOCATOR + IN_USE, (RANGES, 1 << 40, 1 << 41)),
    (ALLOCATOR + IN_USE, (2**64 - 8,)),
    (ALLOCATOR + IN_USE + 24, (CHUNK,)),
    (RANGES, (HEAP + 2 * CHUNK, HEAP)),
    (RANGES, (0, LARGEST * 2)),
])
def test_what_is_no_page_allocator_is_not_taken_for_one(at: int, words: tuple[int, ...]) -> None:
    written = write()
    written.put(at, *words)
    assert read_go(written.memory, "go1.19").go.why == NOT_FOUND


def test_records_in_swap_are_withheld() -> None:
    memory = write().memory
    for page in (SPAN, SPANS, CHUNKS, ALLOCATOR + ARRAYS):
        swapped = np.array([[page // 4096 * 4096, page // 4096 * 4096 + 4096]], np.uint64)
        if page == CHUNKS:
            swapped += np.uint64(128 * ((HEAP % BLOCK) // CHUNK) // 4096 * 4096)
        if page == ALLOCATOR + ARRAYS:
            swapped += np.uint64(8 * ((HEAP - BASE) % 2**64 // BLOCK) // 4096 * 4096)
        go, ranges, _ = read_go(replace(memory, swapped=swapped), "go1.19")
        assert go.why == SWAPPED and len(ranges) == 1


def test_a_heap_of_many_ranges_is_added_up() -> None:
    written = write()
    half = CHUNK // 2
    written.put(ALLOCATOR + IN_USE, RANGES, 2, 4, CHUNK + half)
    written.put(RANGES, HEAP, HEAP + half, HEAP + CHUNK, HEAP + 2 * CHUNK)
    go = read_go(written.memory, "go1.19").go
    assert go.obtained is not None and go.obtained.size == CHUNK + half
    assert go.released is not None and go.released.size == (2 + REST - 256) * PAGE


def test_a_heap_with_more_free_ranges_than_are_kept_is_withheld(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write()  # three free pages, and two with what follows that were given back
    monkeypatch.setattr(golang, "MOST_FREE", 2)
    assert read_go(written.memory, "go1.19").go.why == ""
    monkeypatch.setattr(golang, "MOST_FREE", 1)
    assert "more than 1 free ranges" in read_go(written.memory, "go1.19").go.why


def test_whatever_the_records_are_nothing_is_raised() -> None:
    chance = random.Random(1)
    places = [ALLOCATOR + IN_USE + 8 * at for at in range(4)]
    places += [ALLOCATOR + LAYOUTS[19].spans + 8 * at for at in range(3)]
    places += [RANGES, RANGES + 8, SPANS, SPANS + 8, SPAN + START, SPAN + PAGES, SPAN_STATE]
    for _ in range(300):
        written = write()
        for at in chance.sample(places, 2):
            written.put(at, chance.choice((0, 8, 2**64 - 1, 2**47 - PAGE, HEAP, HEAP + PAGE, 4096)))
        go = read_go(written.memory, "go1.19").go
        assert (go.free is None) == bool(go.why)
