"""Pools of CPython's own allocator, in which it keeps small objects (Objects/obmalloc.c).

A pool has blocks of one size. It is given back to the system only together with all other pools of
its arena: free ones are lost to malloc_trim(3).
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

import numpy as np

from pagewalk.heap.memory import WORD, Memory
from pagewalk.model.columns import U64, VMAs
from pagewalk.model.ranges import intersect

PYTHON = re.compile(r"(lib)?python3\.\d+")
# Since 3.10, on 64-bit machines: POOL_SIZE, and blocks of 16, 32, ... 512 bytes.
POOL, SIZES, STEP = 16 << 10, 32, 16
HEADER = 48  # POOL_OVERHEAD
AT_ONCE = 16 << 20
LOW_HALF = np.uint64(0xFFFFFFFF)


class Pools(NamedTuple):
    """The pools that are in RAM, u64[n, 2] each: ``used`` have a block in use, ``free`` none."""

    used: U64
    free: U64


def is_python(vmas: VMAs) -> bool:
    """Return whether a CPython interpreter is mapped."""
    return any(PYTHON.match(os.path.basename(name)) for name in vmas.name if name[:1] == "/")


def pools(memory: Memory, ranges: U64) -> Pools:
    """Return the pools in ``ranges``.

    struct pool_header: how many blocks are in use, the first free block, both neighbours in a list,
    the arena, the size class, and how far blocks were handed out, of how far at most. The last
    follows from the size class.
    """
    used, free = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
    runs, _, _ = intersect(memory.readable, ranges)
    for low, high in runs.tolist():
        for start in range((low + POOL - 1) // POOL * POOL, high - HEADER + 1, AT_ONCE):
            end = min(start + AT_ONCE, high)
            count = (end - start - HEADER) // POOL + 1
            words = memory.words(start, start + count * POOL)
            head = words.reshape(count, POOL // WORD)[:, : HEADER // WORD]
            size, limit = head[:, 4] >> np.uint64(32), head[:, 5] >> np.uint64(32)
            like = (size < SIZES) & (limit == POOL - (size + np.uint64(1)) * np.uint64(STEP))
            like &= (head[:, 5] & LOW_HALF >= HEADER) & (head[:, 5] & LOW_HALF <= POOL)
            like &= (head[:, 1] < 1 << 47) & (head[:, 2] < 1 << 47) & (head[:, 2] > 0)
            addr = np.uint64(start) + np.arange(count, dtype=np.uint64) * np.uint64(POOL)
            some = head[:, 0] & LOW_HALF > 0
            used.append(addr[like & some])
            free.append(addr[like & ~some])
    return Pools(*(whole(np.concatenate(parts)) for parts in (used, free)))


def whole(addr: U64) -> U64:
    return np.stack([addr, addr + np.uint64(POOL)], axis=1)
