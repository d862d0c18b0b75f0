"""The caches that glibc's malloc keeps for each thread (struct tcache_perthread_struct).

To malloc a chunk in one of them is in use, and mallinfo2(3) counts it so.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.heap.memory import Memory
from pagewalk.model.columns import I64, U64, Bool


class Layout(NamedTuple):
    """Where the numbers are: of a chunk of ``chunk`` bytes, a u16 for each of ``bins`` first.

    ``free``: they tell how many more of that size fit, not how many there are.
    """

    chunk: int
    bins: int
    free: bool

    @property
    def words(self) -> int:
        """Return how many words the structure has."""
        return self.bins // 4 + self.bins


OLD = Layout(0x290, 64, free=False)  # 2.30 to 2.41
NEW = Layout(0x300, 76, free=True)  # 2.42; a thread's first bins, as many as before, have one size
SMALL_BINS = 64
MOST = 1 << 14  # threads; more were planted


class Caches(NamedTuple):
    """What the threads keep: ``threads`` with something in their cache, ``chunks``, ``bytes``."""

    threads: int
    chunks: int
    bytes: int


def plausible(rows: U64, layout: Layout, most: int) -> Bool:
    """Return a mask of ``rows`` (u64[n, layout.words]) that may be a thread's cache, not empty."""
    counts = counts_of(rows, layout, most)
    entries = rows[:, layout.bins // 4 :]
    good = (counts >= 0).all(axis=1) & (counts <= most).all(axis=1)
    good &= ((counts > 0) == (entries != 0)).all(axis=1)
    good &= (entries % np.uint64(16) == 0).all(axis=1)
    mask: Bool = good & (counts > 0).any(axis=1)
    return mask


def counts_of(rows: U64, layout: Layout, most: int) -> I64:
    counts = np.ascontiguousarray(rows[:, : layout.bins // 4]).view(np.uint16).astype(np.int64)
    return most - counts if layout.free else counts


def add_up(memory: Memory, rows: U64, layout: Layout, most: int) -> Caches | None:
    """Return what the caches ``rows`` hold; None if one holds chunks whose size it does not tell.

    The first chunk of each bin must have the bin's size. That is a read for each: there are at most
    as many as bins, however much they hold.
    """
    if len(rows) > MOST:
        return None
    threads = chunks = total = 0
    for row, counts in zip(rows, counts_of(rows, layout, most), strict=True):
        used = np.flatnonzero(counts)
        if used[-1] >= SMALL_BINS:
            return None
        sizes = 32 + 16 * used
        first = row[layout.bins // 4 :][used].tolist()
        said = [int(memory.words(at - 16, at)[1]) & ~7 for at in first]
        if said == sizes.tolist():
            threads += 1
            chunks += int(counts[used].sum())
            total += int((counts[used] * sizes).sum())
    return Caches(threads, chunks, total)
