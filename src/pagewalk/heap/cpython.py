"""Pools of CPython's own allocator, in which it keeps small objects (Objects/obmalloc.c).

A pool has blocks of one size. It is given back to the system only together with all other pools of
its arena: free ones are lost to malloc_trim(3).
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator
from typing import NamedTuple

import numpy as np

from pagewalk.heap.glibc import data_segments
from pagewalk.heap.memory import WORD, Memory
from pagewalk.model.columns import U64
from pagewalk.model.ranges import intersect, reaching

PYTHON = re.compile(r"(?:lib)?python3\.(\d{1,3})")
# On 64-bit machines: POOL_SIZE and ARENA_SIZE, since 3.10 larger ones, by minor version; blocks of
# 16, 32, ... 512 bytes.
SMALL, LARGE = (4 << 10, 256 << 10), (16 << 10, 1 << 20)
LAYOUTS = {8: SMALL, 9: SMALL, **dict.fromkeys(range(10, 15), LARGE)}
SIZES, STEP = 32, 16
HEADER = 48  # POOL_OVERHEAD
AT_ONCE = 16 << 20
LOW_HALF = np.uint64(0xFFFFFFFF)
# From 3.13 on _PyRuntime begins with _Py_DebugOffsets: a cookie, the version (PY_VERSION_HEX), and
# whether there is no GIL. (Include/internal/pycore_debug_offsets.h)
OFFSETS_SINCE, COOKIE = 13, int.from_bytes(b"xdebugpy", "little")
UNKNOWN = "the pools of Python 3.{} are not known"
NO_OFFSETS = "the record in which Python 3.{} tells how it is built was not found"
NO_GIL = "Python 3.{} without the GIL allocates with mimalloc, which is not read"


class Build(NamedTuple):
    """A CPython: its ``minor`` version, the bytes of its pools and arenas; 0 for a reason ``why``.
    """

    minor: int
    pool: int
    arena: int
    why: str


class Pools(NamedTuple):
    """The pools that are in RAM, u64[n, 2] each: ``used`` have a block in use, ``free`` none.

    ``blocks`` are the bytes of all blocks in use.
    """

    used: U64
    free: U64
    blocks: int


def python_build(memory: Memory) -> Build | None:
    """Return which CPython a process runs, None if it runs none."""
    names = {name: match for name in memory.vmas.name
             if name[:1] == "/" and (match := PYTHON.match(os.path.basename(name)))}
    if not names:
        return None
    minor = int(next(iter(names.values()))[1])
    why = ""
    if minor not in LAYOUTS:
        why = UNKNOWN
    elif minor >= OFFSETS_SINCE:
        free_threaded = next(told_by(memory, names, minor), None)
        why = NO_OFFSETS if free_threaded is None else NO_GIL if free_threaded else ""
    return Build(minor, *((0, 0) if why else LAYOUTS[minor]), why.format(minor))


def told_by(memory: Memory, names: Container[str], minor: int) -> Iterator[bool]:
    # Whether it was built without the GIL, by each record of that version.
    for start, end, name in data_segments(memory.vmas):
        runs = memory.readable[reaching(memory.readable, start, end)] if name in names else ()
        for low, high in [(int(low), int(high)) for low, high in runs]:
            words = memory.words(max(low, start), min(high, end))
            for row in np.flatnonzero(words[:-2] == np.uint64(COOKIE)).tolist():
                version, free_threaded = words[row + 1 : row + 3].tolist()
                if version >> 16 == 3 << 8 | minor and free_threaded <= 1:
                    yield bool(free_threaded)


def pools(memory: Memory, ranges: U64, pool: int) -> Pools:
    """Return the pools in ``ranges``, of ``pool`` bytes each.

    struct pool_header: how many blocks are in use, the first free block, both neighbours in a list,
    the arena, the size class, and how far blocks were handed out, of how far at most. The last
    follows from the size class.
    """
    used, free, blocks = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)], 0
    runs, _, _ = intersect(memory.readable, ranges)
    for low, high in runs.tolist():
        for start in range((low + pool - 1) // pool * pool, high - HEADER + 1, AT_ONCE):
            end = min(start + AT_ONCE, high)
            count = (end - start - HEADER) // pool + 1
            words = memory.words(start, start + count * pool)
            head = words.reshape(count, pool // WORD)[:, : HEADER // WORD]
            size, limit = head[:, 4] >> np.uint64(32), head[:, 5] >> np.uint64(32)
            like = (size < SIZES) & (limit == pool - (size + np.uint64(1)) * np.uint64(STEP))
            like &= (head[:, 5] & LOW_HALF >= HEADER) & (head[:, 5] & LOW_HALF <= pool)
            like &= (head[:, 1] < 1 << 47) & (head[:, 2] < 1 << 47) & (head[:, 2] > 0)
            addr = np.uint64(start) + np.arange(count, dtype=np.uint64) * np.uint64(pool)
            taken = (head[:, 0] & LOW_HALF) * (size + np.uint64(1)) * np.uint64(STEP)
            like &= taken <= pool - HEADER
            some = taken > 0
            blocks += int(taken[like].sum())
            used.append(addr[like & some])
            free.append(addr[like & ~some])
    return Pools(whole(np.concatenate(used), pool), whole(np.concatenate(free), pool), blocks)


def whole(addr: U64, pool: int) -> U64:
    return np.stack([addr, addr + np.uint64(pool)], axis=1)
