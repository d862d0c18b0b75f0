"""malloc's parameters, and its chunks that are mappings of their own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

from pagewalk.heap.glibc import Malloc
from pagewalk.heap.memory import PAGE, WORD, Memory
from pagewalk.model.columns import READ, SHARED, U64, WRITE, Backing
from pagewalk.model.ranges import inside, intersect, overlapping, union, without

IS_MMAPPED, ANY_BIT, IS_HUGE = np.uint64(2), np.uint64(7), np.uint64(1)
HUGE = 2 << 20  # thp_pagesize
# 2.43: the size in the header leaves out CHUNK_HDR_SZ bytes, so that it can be used like any other.
LEFT_OUT = 16
# In the same object file as the main arena's malloc_state.
NEAR = 64 << 10
# vm.max_map_count allows 65530 mappings; these are joined to fewer VMAs. More were planted.
MOST = 1 << 18


class Parameters(NamedTuple):
    """What of malloc's mp_ matters here.

    ``chunks``: mappings of their own, and ``bytes`` in them. ``unit``: the main arena's top shrinks
    in steps of that many bytes, a huge page where the tunable glibc.malloc.hugetlb is 1.
    ``cached``: how many chunks of a size a thread may keep. ``huge``: the size of the pages that
    arenas are made of, if the tunable is 2: they are then laid out otherwise.
    """

    chunks: int
    bytes: int
    unit: int
    cached: int
    huge: int = 0


def parameters(memory: Memory, malloc: Malloc) -> Parameters | None:
    """Return malloc's parameters; None if they are not recognised.

    struct malloc_par is found by sbrk_base, the first address of the heap (or of what was mapped
    instead), and the numbers of the thread caches behind it: bins, the largest size, which follows
    from it, and how many of a size. mmapped_mem is two words before
    it, n_mmaps and n_mmaps_max are some half words before (2.35 put thp_pagesize before them).
    """
    main = malloc.states[0].addr & -PAGE
    words = memory.words(max(malloc.data[0], main - NEAR), min(malloc.data[1], main + NEAR))
    heap = [row for row, name in enumerate(memory.vmas.name) if name == "[heap]"]
    base = words[7:-3]
    if heap:
        low, high = memory.vmas.start[heap[0]], memory.vmas.end[heap[-1]]
        near = (base >= low) & (base < high)
    elif malloc.states[0].used:
        near = (base % np.uint64(PAGE) == 0) & inside(base, memory.vmas.ranges)
    else:
        near = base == 0
    bins, largest = words[8:-2], words[9:-1]
    near &= (bins > 0) & (bins <= 64) & (words[10:] <= 65535)
    near &= (largest // np.uint64(16) + np.uint64(1) >= bins) & (largest <= 16 * bins + 17)
    for at in (np.flatnonzero(near) + 7).tolist():
        halves = words[at - 5 : at - 2].view(np.uint32).tolist()
        for first, huge in ((1, int(words[at - 7])), (2, 0)):
            count, most, highest, fixed = halves[first : first + 4]
            # Whoever sets the most to 0 also fixes the threshold.
            sensible = count <= highest <= max(most, count) and (most or fixed == 1)
            if huge in (0, HUGE) and sensible:
                pages = int(words[at - 6]) if first == 1 else 0
                return Parameters(min(count, MOST), int(words[at - 2]), huge or PAGE,
                                  int(words[at + 3]), pages)
    return None


def mapped_chunks(memory: Memory, arenas: U64, expected: int) -> U64:
    """Return the chunks that are mappings of their own, u64[n, 2]; at most ``expected``.

    ``arenas`` are the ranges of the arenas. The kernel joins neighbouring mappings to one VMA: from
    its start on each chunk tells where the next one begins. If that does not lead to all of them,
    each page in RAM that begins like one is tried, 262 144 of these at most.
    """
    vmas = memory.vmas
    mine = vmas.perms & (READ | WRITE | SHARED) == READ | WRITE
    mine &= (vmas.backing == Backing.ANON.value) & ~overlapping(vmas.ranges, arenas)
    mine &= np.array([not name for name in vmas.name], bool)
    found: list[tuple[int, int]] = []
    for start, end in vmas.ranges[mine].tolist():
        found += chain(memory, start, end, expected - len(found))
    if len(found) < expected:
        rest = without(vmas.ranges[mine], union(np.array(found, np.uint64).reshape(-1, 2)))
        likely = ((at, end) for start, end in rest.tolist() for at in heads(memory, start, end))
        for at, end in islice(likely, MOST):
            if not found or at >= found[-1][1] or at < found[-1][0]:
                found += chain(memory, at, end, expected - len(found))
    return np.array(sorted(set(found)), np.uint64).reshape(-1, 2)


def chain(memory: Memory, start: int, end: int, most: int) -> list[tuple[int, int]]:
    # A step is a system call: numpy cannot take several at once.
    found: list[tuple[int, int]] = []
    while start < end and len(found) < most and (size := mapped_size(memory, start, end)):
        found.append((start, start + size))
        start += size
    return found


def mapped_size(memory: Memory, start: int, end: int) -> int:
    # Of the chunk whose mapping starts at `start`, 0 if there is none. A chunk for an aligned
    # address begins some way in: its first word says how far.
    words = memory.words(start, start + PAGE)
    before, size = words[::2] & ~IS_HUGE, words[1::2] & ~ANY_BIT
    marked = words[1::2] & ANY_BIT == IS_MMAPPED
    marked &= before == np.arange(PAGE // 16, dtype=np.uint64) * np.uint64(16)
    for row in np.flatnonzero(marked).tolist():
        for whole in (int(before[row] + size[row]), int(before[row] + size[row]) + LEFT_OUT):
            if whole % PAGE == 0 and 0 < whole <= end - start:
                return whole
    return 0


def heads(memory: Memory, start: int, end: int) -> Iterator[int]:
    # The pages in RAM that begin like such a chunk.
    pages, _, _ = intersect(memory.readable, np.array([[start, end]], np.uint64))
    for low, high in pages.tolist():
        for at in range(low, high, 16 << 20):
            words = memory.words(at, min(high, at + (16 << 20)))
            first, second = words[:: PAGE // WORD], words[1 :: PAGE // WORD]
            like = (first <= 1) & (second & ANY_BIT == IS_MMAPPED) & (second >= PAGE - LEFT_OUT)
            yield from (at + PAGE * np.flatnonzero(like)).tolist()
