"""Stacks that glibc made for threads, also of threads that have ended (struct pthread).

glibc keeps the stacks of ended threads for later ones, up to 40 MiB.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.heap.memory import NEAR, PAGE, WORD, Memory, blocks
from pagewalk.model.columns import U64
from pagewalk.model.ranges import join_near

# Of struct pthread, from 2.31 to 2.43: it begins with a pointer to itself and has another one in
# its third word (header.tcb, header.self); then tid, and where the stack lies.
TID, BLOCK, END = 0x2D0, 0x690, 0x6A8
# The tid of a thread that was joined (nptl/pthread_join_common.c); that of a detached one is 0.
JOINED = 0xFFFFFFFF
SMALLEST, LARGEST = 8 << 10, 1 << 36


class Stack(NamedTuple):
    """A stack in [``start``, ``end``), with its guard; ``tid``: its thread, 0 if that has ended."""

    tid: int
    start: int
    end: int


def stacks(memory: Memory, ranges: U64) -> list[Stack]:
    """Return the stacks whose struct pthread is in ``ranges``; the main thread's has none."""
    found = []
    # With the guards between them: a block may then have hundreds.
    near = np.array(join_near(ranges[:, 0], ranges[:, 1], NEAR), np.uint64).reshape(-1, 2)
    for block in blocks(memory, near):
        words = block.words
        count = (block.end - block.start) // WORD
        addr = np.uint64(block.start) + np.arange(count, dtype=np.uint64) * np.uint64(WORD)
        own = (words[:count] == addr) & (words[2 : count + 2] == addr)
        for row in np.flatnonzero(own).tolist():
            found += stack_of(words[row : row + END // WORD], int(addr[row]))
    return found


def stack_of(words: U64, addr: int) -> list[Stack]:
    start, size, guard = words[BLOCK // WORD : END // WORD].tolist()
    tid = int(words[TID // WORD]) & 0xFFFFFFFF
    tid = 0 if tid == JOINED else tid
    fits = start % PAGE == size % PAGE == guard % PAGE == 0 and SMALLEST <= size <= LARGEST
    if fits and guard < size and start <= addr < start + size and tid < 1 << 22:
        return [Stack(tid, start, start + size)]
    return []
