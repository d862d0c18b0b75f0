"""Stacks that glibc made for threads, also of threads that have ended (struct pthread).

glibc keeps the stacks of ended threads for later ones, up to 40 MiB.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.heap.memory import PAGE, WORD, Memory
from pagewalk.model.columns import U64
from pagewalk.model.ranges import intersect

# Of struct pthread, from 2.31 to 2.43: it begins with a pointer to itself and has another one in
# its third word (header.tcb, header.self); then tid, and where the stack lies.
TID, BLOCK, END = 0x2D0, 0x690, 0x6A8
# The tid of a thread that was joined (nptl/pthread_join_common.c); that of a detached one is 0.
JOINED = 0xFFFFFFFF
AT_ONCE = 16 << 20
SMALLEST, LARGEST = 8 << 10, 1 << 36


class Stack(NamedTuple):
    """A stack in [``start``, ``end``), with its guard; ``tid``: its thread, 0 if that has ended."""

    tid: int
    start: int
    end: int


def stacks(memory: Memory, ranges: U64) -> list[Stack]:
    """Return the stacks whose struct pthread is in ``ranges``; the main thread's has none."""
    found = []
    runs, _, _ = intersect(memory.readable, ranges)
    for low, high in runs.tolist():
        for start in range(low, high, AT_ONCE):
            end = min(start + AT_ONCE, high)
            words = memory.words(start, min(end + 0x1000, high))
            addr = np.uint64(start) + np.arange(len(words), dtype=np.uint64) * np.uint64(WORD)
            own = (words[:-2] == addr[:-2]) & (words[2:] == addr[:-2])
            for row in np.flatnonzero(own[: (end - start) // WORD]).tolist():
                found += stack_of(words[row : row + END // WORD], int(addr[row]))
    return found


def stack_of(words: U64, addr: int) -> list[Stack]:
    if len(words) < END // WORD:
        return []
    start, size, guard = words[BLOCK // WORD : END // WORD].tolist()
    tid = int(words[TID // WORD]) & 0xFFFFFFFF
    tid = 0 if tid == JOINED else tid
    fits = start % PAGE == size % PAGE == guard % PAGE == 0 and SMALLEST <= size <= LARGEST
    if fits and guard < size and start <= addr < start + size and tid < 1 << 22:
        return [Stack(tid, start, start + size)]
    return []
