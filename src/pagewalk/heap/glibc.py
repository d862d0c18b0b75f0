"""Find the arenas of glibc's malloc in a process's memory, without symbols.

An empty bin points to itself, so malloc_state.bins can be recognised by its contents. The arenas
are in a ring by malloc_state.next. (struct malloc_state in malloc/malloc.c, heap_info in arena.c)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pagewalk.heap.chunks import BINS, FASTBINS
from pagewalk.heap.memory import PAGE, WORD, Memory
from pagewalk.model.columns import I64, SHARED, U64, WRITE, Backing, Bool, VMAs
from pagewalk.model.malloc import HEAP_MAX
from pagewalk.model.ranges import reaching

HUGE_HEAP_MAX = 8 << 20  # HEAP_MAX with the tunable glibc.malloc.hugetlb=2: four huge pages
# There are 8 for each CPU, unless the tunable glibc.malloc.arena_max allows more. More of either
# were planted.
MOST_ARENAS, MOST_BINS = 1 << 14, 16
AT_ONCE, OVERLAP = 16 << 20, PAGE
# Bytes from malloc_state to its bins: with fastbins (2.27 to 2.42), and without (2.43).
WITH_FASTBINS, WITHOUT = 112, 24
# Bytes from bins to other fields.
TOP, NEXT, ATTACHED, SYSTEM, MAX_SYSTEM = -16, 2048, 2064, 2072, 2080
STATE_END = 2088


class State(NamedTuple):
    """A malloc_state: ``addr`` its address, ``bins`` that of its bins, ``words`` its contents."""

    addr: int
    bins: int
    words: U64

    def field(self, offset: int) -> int:
        """Return the word ``offset`` bytes from its bins."""
        return int(self.words[(self.bins - self.addr + offset) // WORD])

    @property
    def heads(self) -> U64:
        """Return the words of the bins, two for each."""
        first = (self.bins - self.addr) // WORD
        return self.words[first : first + 2 * BINS]

    @property
    def fast(self) -> U64:
        """Return the first chunk of each fastbin."""
        if self.bins - self.addr != WITH_FASTBINS:
            return np.zeros(0, np.uint64)
        return self.words[2 : 2 + FASTBINS]

    @property
    def used(self) -> bool:
        """Return whether anything was ever allocated from it: its first top is a bin."""
        return self.field(TOP) != self.bins - 16


class Malloc(NamedTuple):
    """glibc's malloc in one process: the ``states`` of its arenas, the main one first.

    ``library`` is the path it was found in; ``data`` (start, end) of that library's variables.
    """

    library: str
    data: tuple[int, int]
    states: tuple[State, ...]


def find(memory: Memory) -> Malloc | None:
    """Return glibc's malloc of a process, None if it has none that was ever used.

    Rings that do not close were planted: they are followed for MOST_ARENAS steps in all.
    """
    left = MOST_ARENAS
    for start, end, name in data_segments(memory.vmas):
        for bins in bins_between(memory, start, end):
            for distance in (WITH_FASTBINS, WITHOUT):
                states, closed = follow_ring(memory, bins, distance)
                if closed:
                    return Malloc(name, (start, end), states)
                left -= len(states)
                if left <= 0:
                    return None
    return None


def bins_between(memory: Memory, start: int, end: int) -> list[int]:
    # As bins_in, of what is in RAM: a .bss may be much larger than the machine.
    found: list[tuple[int, int]] = []
    for low, high in memory.readable[reaching(memory.readable, start, end)].tolist():
        for at in range(max(low, start), min(high, end), AT_ONCE):
            found += bins_in(memory.words(at, min(at + AT_ONCE + OVERLAP, high, end)), at)
    return [addr for _, addr in sorted(set(found), reverse=True)[:MOST_BINS]]


def data_segments(vmas: VMAs) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, path) of what may hold a program's or a library's variables, libc first.

    That is a private writable map of a file, and the anonymous VMA right behind it: its .bss.
    """
    private = vmas.perms & (WRITE | SHARED) == WRITE
    rows = np.flatnonzero(private & of_files(vmas)).tolist()
    rows.sort(key=lambda row: "libc" not in os.path.basename(vmas.name[row]))
    for row in rows:
        last = row
        if row + 1 < len(vmas) and vmas.start[row + 1] == vmas.end[row] and not vmas.name[row + 1]:
            last = row + 1
        yield int(vmas.start[row]), int(vmas.end[last]), vmas.name[row]


def of_files(vmas: VMAs) -> Bool:
    """Return which VMAs map files, bool[n]: also those of a tmpfs, as /tmp often is, and memfds."""
    found: Bool = (vmas.backing == Backing.FILE.value) | (vmas.backing == Backing.SHMEM.value)
    return found


def bins_in(words: U64, start: int) -> list[tuple[int, int]]:
    """Return what may be a malloc_state's bins: how many of them are empty, and the address."""
    addr = np.uint64(start) + np.arange(len(words) - 1, dtype=np.uint64) * np.uint64(WORD)
    own = (words[:-1] == addr - np.uint64(16)) & (words[1:] == addr - np.uint64(16))
    link = own | ((words[:-1] > 65536) & (words[1:] > 65536))
    found: list[tuple[int, int]] = []
    for odd in (0, 1):
        mine, links = sums_of(own[odd::2]), sums_of(link[odd::2])
        rows = np.flatnonzero((mine > 3) & (links == BINS))
        found += [(int(mine[row]), start + WORD * (2 * row + odd)) for row in rows.tolist()]
    return found


def sums_of(mask: Bool) -> I64:
    # How many are set of each BINS neighbours.
    total = np.concatenate([[0], np.cumsum(mask)])
    return total[BINS:] - total[:-BINS] if len(total) > BINS else total[:0]


def follow_ring(memory: Memory, bins: int, distance: int) -> tuple[tuple[State, ...], bool]:
    # The malloc_states from that of `bins` on, and whether they are a ring.
    states = [read_state(memory, bins, distance)]
    seen: set[int] = set()
    while (addr := states[-1].field(NEXT)) != states[0].addr:
        # Others lie in the first page of their heap.
        if addr in seen or len(seen) == MOST_ARENAS or not 0 < addr % HUGE_HEAP_MAX < PAGE:
            return tuple(states), False
        seen.add(addr)
        states.append(read_state(memory, addr + distance, distance))
    sound = all(state.field(SYSTEM) <= state.field(MAX_SYSTEM) for state in states)
    return tuple(states), sound


def read_state(memory: Memory, bins: int, distance: int) -> State:
    addr = bins - distance
    page = addr & -PAGE
    words = memory.words(page, (bins + STATE_END + PAGE - 1) & -PAGE)
    return State(addr, bins, words[(addr - page) // WORD :][: (distance + STATE_END) // WORD])


def heaps(memory: Memory, state: State) -> U64 | None:
    """Return where the chunks of a thread arena are, u64[k, 2]; None if its heaps are torn.

    Each heap begins with a heap_info, the oldest one with the malloc_state besides.
    """
    found: list[tuple[int, int]] = []
    heap, info = state.field(TOP) & -HEAP_MAX, state.addr % HEAP_MAX
    seen: set[int] = set()
    while heap not in seen:
        seen.add(heap)
        owner, previous, size = memory.words(heap, heap + PAGE)[:3].tolist()
        if owner != state.addr or not info < size <= HEAP_MAX:
            return None
        oldest = heap == state.addr & -HEAP_MAX
        first = (state.bins + STATE_END + 15) & -16 if oldest else heap + info
        found.append((first, heap + size))
        if oldest:
            return np.array(sorted(found), np.uint64)
        if previous % HEAP_MAX:
            return None
        heap = previous
    return None
