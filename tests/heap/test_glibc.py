"""Recognising malloc_state by its contents, the ring of arenas, and the heaps of one."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.heap import glibc
from pagewalk.heap.chunks import BINS
from pagewalk.heap.glibc import (
    MAX_SYSTEM,
    NEXT,
    SYSTEM,
    TOP,
    WITH_FASTBINS,
    WITHOUT,
    bins_in,
    data_segments,
    find,
    heaps,
)
from pagewalk.heap.memory import Memory
from pagewalk.model.columns import READ, SHARED, WRITE, Backing, VMAs
from pagewalk.model.malloc import HEAP_MAX
from pagewalk.model.ranges import union
from tests.by_hand import PAGE, vmas

LIBC, PROGRAM = 0x7F00_0000_0000, 0x40_0000
HEAP = 0x7F10_0000_0000
INFO = 0x30  # sizeof(heap_info)
RW = READ | WRITE
VMAS = vmas([
    (PROGRAM, 1, RW, 0, Backing.FILE, "/usr/bin/program"),
    (LIBC, 2, RW, 0, Backing.FILE, "/lib/libc.so.6"),
    (LIBC + 2 * PAGE, 4, RW, 0, Backing.ANON, ""),
    (HEAP, 16, RW, 0, Backing.ANON, ""),
])


class Written:
    """Memory that is written word by word."""

    def __init__(self, of: VMAs = VMAS) -> None:
        self.of, self.known = of, dict[int, int]()

    def put(self, addr: int, *words: int) -> None:
        """Write words from an address on."""
        self.known.update({addr + 8 * at: word for at, word in enumerate(words)})

    def state(self, bins: int, distance: int, following: int, top: int = 0) -> None:
        """Write a malloc_state with empty bins."""
        for bin_ in range(BINS):
            self.put(bins + 16 * bin_, *(2 * (bins + 16 * bin_ - 16,)))
        self.put(bins + TOP, top or bins - 16)
        self.put(bins + NEXT, following)
        self.put(bins + SYSTEM, 132 << 10)
        self.put(bins + MAX_SYSTEM, 132 << 10)
        assert distance in (WITH_FASTBINS, WITHOUT)

    @property
    def memory(self) -> Memory:
        """Return it."""

        def read(part: memoryview, at: int) -> int:
            words = [self.known.get(addr, 0) for addr in range(at, at + len(part), 8)]
            part[:] = np.array(words, np.uint64).tobytes()
            return len(part)

        every = union(self.of.ranges)
        return Memory(self.of, every, every, every, every[:0], read)


@pytest.mark.parametrize("distance", [WITH_FASTBINS, WITHOUT])
def test_the_arenas_are_a_ring(distance: int) -> None:
    written, bins = Written(), LIBC + 2 * PAGE + 8 + distance
    other = HEAP + INFO
    written.state(bins, distance, following=other)
    written.state(other + distance, distance, following=bins - distance)
    found = find(written.memory)
    assert found is not None and found.library == "/lib/libc.so.6"
    assert [state.addr for state in found.states] == [bins - distance, other]
    assert not any(state.used for state in found.states)
    assert len(found.states[0].fast) == (10 if distance == WITH_FASTBINS else 0)


@pytest.mark.parametrize("following", [0, HEAP + INFO, HEAP + 4096, 2**64 - 1, LIBC])
def test_a_ring_that_does_not_close_is_none(following: int) -> None:
    written = Written()
    written.state(LIBC + 1024, WITH_FASTBINS, following)
    assert find(written.memory) is None


def test_rings_that_do_not_close_are_followed_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glibc, "MOST_ARENAS", 5)
    # Each decoy leads to a heap, and on to nowhere: two states, tried with both distances.
    decoys = vmas([
        *((PROGRAM + at * PAGE, 1, RW, 0, Backing.FILE, "/libc-decoy.so") for at in (0, 2)),
        (LIBC, 2, RW, 0, Backing.FILE, "/lib/libc.so.6"),
        (HEAP, HEAP_MAX // PAGE, RW, 0, Backing.ANON, ""),
    ])
    written = Written(decoys)
    written.state(LIBC + 1024, WITH_FASTBINS, LIBC + 1024 - WITH_FASTBINS)
    written.state(PROGRAM + 1024, WITH_FASTBINS, HEAP + INFO)
    assert find(written.memory) is not None
    written.state(PROGRAM + 2 * PAGE + 1024, WITH_FASTBINS, HEAP + INFO)
    assert find(written.memory) is None


def test_bins_with_chunks_are_recognised_and_fewer_than_all_are_not() -> None:
    written, bins = Written(), LIBC + 1024
    written.state(bins, WITH_FASTBINS, 0)
    for bin_ in range(100):
        written.put(bins + 16 * bin_, HEAP + 0x100 * bin_, HEAP + 0x200 * bin_ + 0x10)
    words = written.memory.words(LIBC, LIBC + 6 * PAGE)
    assert bins_in(words, LIBC) == [(27, bins)]
    written.put(bins + 16 * 50, 1)
    assert bins_in(written.memory.words(LIBC, LIBC + 6 * PAGE), LIBC) == []


def test_libc_is_looked_at_first_with_what_follows_its_data() -> None:
    assert [*data_segments(VMAS)] == [
        (LIBC, LIBC + 6 * PAGE, "/lib/libc.so.6"), (PROGRAM, PROGRAM + PAGE, "/usr/bin/program"),
    ]


def test_a_program_on_a_tmpfs_has_variables_and_shared_memory_has_none() -> None:
    of = vmas([(PROGRAM, 1, RW, 0, Backing.SHMEM, "/tmp/program"),
               (PROGRAM + PAGE, 2, RW, 0, Backing.ANON, ""),
               (HEAP, 1, RW | SHARED, 0, Backing.SHMEM, "/memfd:cache (deleted)")])
    assert [*data_segments(of)] == [(PROGRAM, PROGRAM + 3 * PAGE, "/tmp/program")]


def test_the_heaps_of_an_arena_are_followed_to_the_oldest() -> None:
    written = Written(vmas([(LIBC, 6, RW, 0, Backing.FILE, "/lib/libc.so.6"),
                            (HEAP, 3 * HEAP_MAX // PAGE, RW, 0, Backing.ANON, "")]))
    state = HEAP + INFO
    newest = HEAP + 2 * HEAP_MAX
    written.state(LIBC + 1024, WITH_FASTBINS, following=state)
    written.state(state + WITH_FASTBINS, WITH_FASTBINS, LIBC + 1024 - WITH_FASTBINS,
                  top=newest + 0x1000)
    written.put(HEAP, state, 0, HEAP_MAX)
    written.put(newest, state, HEAP, 0x8000)
    found = find(written.memory)
    assert found is not None
    # The oldest heap begins with the malloc_state too, which ends 2088 bytes after its bins.
    first = (state + WITH_FASTBINS + 2088 + 15) & -16
    assert heaps(written.memory, found.states[1]).tolist() == [  # type: ignore[union-attr]
        [first, HEAP + HEAP_MAX], [newest + INFO, newest + 0x8000],
    ]
    written.put(HEAP + HEAP_MAX, state, newest, 0x8000)
    for torn in ((state, HEAP + HEAP_MAX, 0x8000), (state + 16, HEAP, 0x8000),
                 (state, HEAP + 8, 0x8000), (state, HEAP, 0), (state, HEAP, HEAP_MAX + PAGE),
                 (state, newest, 0x8000), (state, 2**64 - 1, 4096)):
        written.put(newest, *torn)
        assert heaps(written.memory, found.states[1]) is None
