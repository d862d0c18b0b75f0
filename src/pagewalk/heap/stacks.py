"""Stacks that glibc made for threads, also of threads that have ended (struct pthread).

glibc keeps the stacks of ended threads for later ones, up to 40 MiB.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.heap.memory import NEAR, PAGE, WORD, Block, Memory, blocks
from pagewalk.model.columns import U64
from pagewalk.model.ranges import join_near

# Of struct pthread, from 2.31 to 2.43: it begins with a pointer to itself and has another one in
# its third word (header.tcb, header.self); then tid, and where the stack lies.
TID, BLOCK, END = 0x2D0, 0x690, 0x6A8
# The tid of a thread that was joined (nptl/pthread_join_common.c); that of a detached one is 0.
JOINED = 0xFFFFFFFF
SMALLEST, LARGEST = 8 << 10, 1 << 36
MOST = 1 << 20  # each takes two of the 65530 mappings of vm.max_map_count; more were planted


class Stack(NamedTuple):
    """A stack in [``start``, ``end``), with its guard; ``tid``: its thread, 0 if that has ended."""

    tid: int
    start: int
    end: int


def stacks(memory: Memory, ranges: U64) -> list[Stack]:
    """Return the stacks whose struct pthread is in ``ranges``; the main thread's has none.

    They are ascending and do not overlap: of records that contradict one another the first counts.
    """
    found: list[Stack] = []
    # With the guards between them: a block may then have hundreds.
    near = np.array(join_near(ranges[:, 0], ranges[:, 1], NEAR), np.uint64).reshape(-1, 2)
    for block in blocks(memory, near):
        for start, end, tid in threads_in(block, found[-1].end if found else 0).tolist():
            if len(found) < MOST and (not found or start >= found[-1].end):
                found.append(Stack(tid, start, end))
    return found


def threads_in(block: Block, reach: int) -> U64:
    # Start, end and tid of the stacks from `reach` on whose struct pthread begins in `block`.
    words = block.words
    count = max(min((block.end - block.start) // WORD, len(words) - END // WORD + 1), 0)
    addr = np.uint64(block.start) + np.arange(count, dtype=np.uint64) * np.uint64(WORD)
    row = np.flatnonzero((words[:count] == addr) & (words[2 : count + 2] == addr))
    addr = addr[row]
    start, size, guard = (words[row + at // WORD] for at in range(BLOCK, END, WORD))
    tid = words[row + TID // WORD] & np.uint64(JOINED)
    tid[tid == JOINED] = 0
    good = ((start | size | guard) % np.uint64(PAGE) == 0) & (size >= SMALLEST) & (size <= LARGEST)
    good &= (guard < size) & (start <= addr) & (addr - start < size) & (tid < 1 << 22)
    good &= start >= reach
    found: U64 = np.stack([start, start + size, tid], axis=1)[good]
    return found
