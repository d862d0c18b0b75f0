"""A process's memory, of which only what is in RAM is read."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from pagewalk.model.columns import U64, VMAs
from pagewalk.model.ranges import holder, intersect, join_near, reaching
from pagewalk.proc.stall import HEAR

WORD, PAGE = 8, 4096  # on x86-64, the only machine whose layouts are known
LARGEST_READ, AT_ONCE = 1 << 30, 1 << 20
# Bytes looked at together, so that they stay in the CPU's cache; what is read beyond them, for what
# begins in them; and how far runs in RAM that are looked at together may be apart.
BLOCK, BEYOND, NEAR = 4 << 20, PAGE, 64 << 10
TOGETHER = 1 << 16  # ranges that are added up at once
NONE = np.zeros((0, 2), np.uint64)  # no ranges


@dataclass(frozen=True, eq=False)
class Memory:
    """A process's memory: what of it is in RAM, and how to read that.

    All ranges are u64[k, 2], sorted and joined: ``readable`` can be read without a page fault,
    ``anon`` are private anonymous pages, ``exclusive`` those of them that nobody else maps (None
    where frames are withheld), ``swapped`` what is in swap. ``read`` fills a buffer from an address
    in ``readable`` on and returns how many bytes it read.
    """

    vmas: VMAs
    readable: U64
    anon: U64
    exclusive: U64 | None
    swapped: U64
    read: Callable[[memoryview, int], int]

    def words(self, start: int, end: int) -> U64:
        """Return the words of [``start``, ``end``), u64; 0 where reading would fault a page in."""
        return self.fill(np.zeros((end - start) // WORD, np.uint64), start)

    def covers(self, start: int, end: int) -> bool:
        """Return whether all of [``start``, ``end``) can be read."""
        some = self.readable[reaching(self.readable, start, end)]
        return len(some) == 1 and bool(some[0, 0] <= start and some[0, 1] >= end)

    def fill(self, out: U64, start: int) -> U64:
        """Return ``out`` with the words from ``start`` on; what cannot be read is left as it is."""
        raw = out.data.cast("B")
        end = start + len(raw)
        for low, high in self.readable[reaching(self.readable, start, end)].tolist():
            at, last = max(low, start), min(high, end)
            while at < last:
                at += self.read(raw[at - start : min(last, at + LARGEST_READ) - start], at)
        return out


class Block(NamedTuple):
    """The words of [``start``, ``end``) and some beyond it, valid until the next block."""

    start: int
    end: int
    words: U64


def blocks(memory: Memory, ranges: U64) -> Iterator[Block]:
    """Yield what of ``ranges`` is in RAM, block by block; 0 where it is not."""
    runs, _, _ = intersect(ranges, memory.readable)
    near = np.array(join_near(runs[:, 0], runs[:, 1], NEAR), np.uint64).reshape(-1, 2)
    words = np.empty((BLOCK + BEYOND) // WORD, np.uint64)
    spans = intersect(near, ranges)[0].tolist()
    hear, done, whole = HEAR.get(), 0, sum(high - low for low, high in spans)
    for low, high in spans:
        for start in range(low, high, BLOCK):
            end = min(start + BLOCK, high)
            part = words[: (end + BEYOND - start) // WORD]
            if not memory.covers(start, end + BEYOND):
                part.fill(0)
            yield Block(start, end, memory.fill(part, start))
            done += end - start
            if hear:
                hear("reading its heap:", done, whole)


class TooLong(Exception):
    """Reading takes longer than it may."""


def live(fd: int, until_ns: int | None = None) -> Callable[[memoryview, int], int]:
    """Return a reader of ``fd``, a descriptor of /proc/PID/mem.

    What was unmapped since the walk reads as zeros. The reader raises TooLong after ``until_ns``
    (of time.monotonic_ns), and then reads no more at once than takes a fraction of a millisecond.
    """

    def read(part: memoryview, at: int) -> int:
        if until_ns is not None:
            in_time(until_ns)
            part = part[:AT_ONCE]
        try:
            got = os.preadv(fd, [part], at)
        except OSError as err:
            if err.errno != errno.EIO:
                raise
            got = min(len(part), PAGE - at % PAGE)
            part[:got] = bytes(got)
        if got == 0:
            raise ProcessLookupError
        return got

    return read


def in_time(until_ns: int | None) -> None:
    """Raise TooLong after ``until_ns`` of time.monotonic_ns, None for never."""
    if until_ns is not None and time.monotonic_ns() > until_ns:
        raise TooLong


def copied(memory: Memory, ranges: U64) -> Memory:
    """Return ``memory`` with a copy of ``ranges``, from which that is read from now on.

    What is not in the copy reads as zeros.
    """
    runs, _, _ = intersect(memory.readable, ranges)
    parts: list[memoryview] = []
    for start, end in runs.tolist():
        words = np.empty((end - start) // WORD, np.uint64)
        raw = words.data.cast("B")
        at = 0
        while at < len(raw):
            at += memory.read(raw[at:], start + at)
        parts.append(raw)

    def read(part: memoryview, at: int) -> int:
        row = int(holder(np.array([at], np.uint64), runs)[0])
        offset = at - int(runs[row, 0])
        got = parts[row][offset : offset + len(part)]
        part[: len(got)] = got
        return len(got)

    return replace(memory, readable=runs, read=read)


def total(ranges: U64) -> int:
    """Return how many bytes are in ``ranges`` (u64[k, 2]), which are disjoint."""
    return int((ranges[:, 1] - ranges[:, 0]).sum())


def bytes_within(ranges: U64, runs: U64) -> int:
    """Return how many bytes of ``ranges`` (u64[k, 2], in any order) ``runs`` (sorted) cover."""
    if len(ranges) == 0 or len(runs) == 0:
        return 0
    before = np.concatenate([np.zeros(1, np.uint64), np.cumsum(runs[:, 1] - runs[:, 0])])

    def below(points: U64) -> U64:
        row = np.searchsorted(runs[:, 0], points, side="right")
        last = np.maximum(row, 1) - 1
        part = np.minimum(points, runs[last, 1]) - runs[last, 0]
        return np.where(row > 0, before[last] + part, np.uint64(0))

    parts = (ranges[row : row + TOGETHER] for row in range(0, len(ranges), TOGETHER))
    return sum(int((below(part[:, 1]) - below(part[:, 0])).sum()) for part in parts)
