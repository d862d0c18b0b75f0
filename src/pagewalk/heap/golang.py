"""What Go's runtime holds in its heap, from the records of its page allocator.

Its heap is pages of 8 KiB. mheap.pages has two bits for each: whether it is allocated, and whether
it was given back to the system. What is allocated is spans, which say what they are for.
(src/runtime/mheap.go, mpagealloc.go, mpallocbits.go of Go)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pagewalk.heap.glibc import data_segments
from pagewalk.heap.memory import NONE, WORD, Memory, bytes_within, total
from pagewalk.model.columns import U64
from pagewalk.model.ranges import intersect, join_near, overlapping, reaching

PAGE, CHUNK, BLOCK = 8 << 10, 4 << 20, 32 << 30  # _PageSize, pallocChunkBytes, chunks of one array
CHUNKS, CHUNK_WORDS = BLOCK // CHUNK, 16  # in pallocData: 512 bits each of both kinds
BASE = 0xFFFF_8000_0000_0000  # arenaBaseOffset
# Of pageAlloc: the summaries of its five levels are slices, whose capacities only Go has; then the
# arrays of chunks, and the ranges that it manages.
LEVELS = (1 << 14, 1 << 17, 1 << 20, 1 << 23, 1 << 26)
ARRAYS, IN_USE, TOTAL = 120, 65680, 65704
START, PAGES = 24, 32  # of mspan: startAddr, npages
IN_HEAP, BY_HAND = 1, 2  # mSpanInUse; mSpanManual, of stacks
TOP = 1 << 47
# More of these were planted.
LARGEST, MOST_RANGES, MOST_SPANS, MOST_FREE = 16 << 40, 1 << 16, 1 << 24, 1 << 22
AT_ONCE, TOGETHER, NEAR = 16 << 20, 1 << 12, 16 << 10
UNKNOWN = "the structures of this version of Go are not known"
SWAPPED = "records of Go's heap are in swap"
NOT_FOUND = "the page allocator of Go was not found"
TORN = "the records of Go's heap contradict one another"


class Layout(NamedTuple):
    # Where pageAlloc is followed by mheap.allspans, and where mspan.state is.
    spans: int
    state: int


# By minor version. They are told by the debugging information of programs of these versions.
LAYOUTS = {19: Layout(65840, 99), 21: Layout(65856, 107),
           **dict.fromkeys(range(22, 28), Layout(65856, 99))}


class Amount(NamedTuple):
    """Bytes of address space, in RAM, and in RAM of this process only (None if withheld)."""

    size: int
    present: int
    exclusive: int | None

    def minus(self, other: Amount) -> Amount:
        """Return what is left without ``other``."""
        alone = None
        if self.exclusive is not None and other.exclusive is not None:
            alone = self.exclusive - other.exclusive
        return Amount(self.size - other.size, self.present - other.present, alone)


class Go(NamedTuple):
    """What Go's heap holds; the amounts are None for the reason ``why``.

    ``obtained`` is all of it: spans of ``objects``, whether reachable or not; ``stacks`` of
    goroutines, and the collector's buffers; ``free``, which the runtime can give back at once;
    ``released``, which it has; and what it has ``set_aside``: up to 512 KiB for each processor (P),
    and from 1.26 on up to 4 MiB, never touched, before the first page.
    """

    version: str
    why: str
    obtained: Amount | None = None
    objects: Amount | None = None
    stacks: Amount | None = None
    free: Amount | None = None
    released: Amount | None = None
    set_aside: Amount | None = None


class Found(NamedTuple):
    """Go's heap, None if there is none; its ``ranges``, and those that are ``free``, u64[k, 2]."""

    go: Go | None = None
    ranges: U64 = NONE
    free: U64 = NONE


def read_go(memory: Memory, version: str) -> Found:
    """Return what the heap of a Go program of that ``version`` holds."""
    match = re.match(r"go1\.(\d{1,3})\b", version)
    layout = LAYOUTS.get(int(match[1])) if match else None
    if layout is None:
        return Found(Go(version, UNKNOWN))
    for at in page_allocators(memory):
        ranges = managed(memory, at)
        if ranges is not None:
            try:
                return add_up(memory, version, at, layout, ranges)
            except Unreadable as err:
                return Found(Go(version, str(err)), ranges)
    return Found(Go(version, NOT_FOUND))


class Unreadable(Exception):
    """The records of a heap are not whole."""


def records(memory: Memory, start: int, count: int) -> U64:
    # `count` words of the runtime's own, which it has written.
    if start % WORD or not 0 < start < TOP:
        raise Unreadable(TORN)
    end = start + count * WORD
    if len(memory.swapped[reaching(memory.swapped, start, end)]):
        raise Unreadable(SWAPPED)
    if not len(memory.readable[reaching(memory.readable, start, end)]):
        raise Unreadable(TORN)
    return memory.words(start, end)


def page_allocators(memory: Memory) -> Iterator[int]:
    """Yield the addresses of what looks like a pageAlloc."""
    for start, end, _ in data_segments(memory.vmas):
        for low, high in memory.readable[reaching(memory.readable, start, end)].tolist():
            for at in range(max(low, start), min(high, end), AT_ONCE):
                words = memory.words(at, min(at + AT_ONCE + ARRAYS, high, end))
                like = np.ones(max(len(words) - ARRAYS // WORD + 1, 0), bool)
                for level, capacity in enumerate(LEVELS):
                    like &= words[3 * level + 2 :][: len(like)] == capacity
                for row in np.flatnonzero(like).tolist():
                    yield at + WORD * row


def managed(memory: Memory, at: int) -> U64 | None:
    # The ranges that a pageAlloc manages (addrRanges); None if it is none.
    first, count, capacity, total = memory.words(at + IN_USE, at + TOTAL + WORD).tolist()
    if not 0 < count <= capacity or count > MOST_RANGES or first % WORD or first >= TOP:
        return None
    ranges = memory.words(first, first + 2 * WORD * count).reshape(-1, 2)
    flat = ranges.ravel()
    if (flat[1:] < flat[:-1]).any() or (flat % np.uint64(PAGE)).any() or flat[-1] >= TOP:
        return None
    size = int((ranges[:, 1] - ranges[:, 0]).sum())
    return ranges if size == total <= LARGEST else None


def add_up(memory: Memory, version: str, at: int, layout: Layout, ranges: U64) -> Found:
    spans = live_spans(memory, at + layout.spans, layout.state)
    if bytes_within(spans.ranges, ranges) != total(spans.ranges):
        raise Unreadable(TORN)
    found = [*blocks(memory, at + ARRAYS, ranges)]
    unused = np.concatenate([NONE, *(block.free for block in found)])
    released_ranges = np.concatenate([NONE, *(block.released for block in found)])
    if overlapping(np.concatenate([unused, released_ranges]), spans.ranges).any():
        raise Unreadable(TORN)
    free, released = amount(memory, unused), amount(memory, released_ranges)
    obtained = amount(memory, ranges)
    objects = amount(memory, spans.ranges[spans.state == IN_HEAP])
    stacks = amount(memory, spans.ranges[spans.state == BY_HAND])
    rest = obtained
    for part in (objects, stacks, free, released):
        rest = rest.minus(part)
    return Found(Go(version, "", obtained, objects, stacks, free, released, rest), ranges, unused)


def amount(memory: Memory, ranges: U64) -> Amount:
    exclusive = memory.exclusive
    return Amount(total(ranges), bytes_within(ranges, memory.anon),
                  None if exclusive is None else bytes_within(ranges, exclusive))


class Block(NamedTuple):
    # Ranges of the heap that are ``free``, and those that are and have been ``released``.
    free: U64
    released: U64


def blocks(memory: Memory, arrays: int, ranges: U64) -> Iterator[Block]:
    # What is free of `ranges`, array by array of chunks; one array may be planted for all.
    left = MOST_FREE
    for number in range(int(ranges[0, 0]) // BLOCK, int(ranges[-1, 1] - np.uint64(1)) // BLOCK + 1):
        mine = ranges[reaching(ranges, number * BLOCK, (number + 1) * BLOCK)]
        if not len(mine):
            continue
        row = ((number * BLOCK - BASE) % 2**64) // BLOCK
        array = int(records(memory, arrays + WORD * row, 1)[0])
        low = max(int(mine[0, 0]) - number * BLOCK, 0) // CHUNK
        high = -(-min(int(mine[-1, 1]) - number * BLOCK, BLOCK) // CHUNK)
        chunks = records(memory, array + WORD * CHUNK_WORDS * low, CHUNK_WORDS * (high - low))
        chunks = chunks.reshape(-1, 2, 8)
        start = number * BLOCK + low * CHUNK
        unused, gone = ~chunks[:, 0], chunks[:, 1]
        block = Block(*(intersect(pages_of(bits, start), mine)[0]
                        for bits in (unused & ~gone, unused & gone)))
        left -= len(block.free) + len(block.released)
        if left < 0:
            raise Unreadable(f"Go's heap has more than {MOST_FREE} free ranges, more than are read")
        yield block


def pages_of(bits: U64, start: int) -> U64:
    # The ranges of pages from `start` on whose bit is set.
    each = np.unpackbits(np.ascontiguousarray(bits).view(np.uint8), bitorder="little")
    edges = np.flatnonzero(np.diff(each, prepend=0, append=0))
    return np.uint64(start) + edges.astype(np.uint64).reshape(-1, 2) * np.uint64(PAGE)


class Spans(NamedTuple):
    # Spans that are in use: their ``ranges`` u64[n, 2], ascending, and ``state`` u64[n].
    ranges: U64
    state: U64


def live_spans(memory: Memory, at: int, state: int) -> Spans:
    # Those of mheap.allspans, a slice at `at`, that are in use.
    first, count, capacity = records(memory, at, 3).tolist()
    if not 0 < count <= capacity:
        raise Unreadable(TORN)
    if count > MOST_SPANS:
        raise Unreadable(f"Go's heap has {count} spans, more than are read")
    pointers = np.sort(records(memory, first, count))
    if pointers[-1] >= TOP or (pointers % np.uint64(WORD)).any():
        raise Unreadable(TORN)
    fields = np.concatenate([
        span_fields(memory, pointers[row : row + TOGETHER], state)
        for row in range(0, len(pointers), TOGETHER)
    ])
    fields = fields[np.isin(fields[:, 2], (IN_HEAP, BY_HAND))]
    fields = fields[np.argsort(fields[:, 0])]
    start, pages = fields[:, 0], fields[:, 1]
    if (start >= TOP).any() or (pages > TOP // PAGE).any():
        raise Unreadable(TORN)
    ranges = np.stack([start, start + pages * np.uint64(PAGE)], axis=1)
    if (ranges[1:, 0] < ranges[:-1, 1]).any():
        raise Unreadable(TORN)
    return Spans(ranges, fields[:, 2])


def span_fields(memory: Memory, pointers: U64, state: int) -> U64:
    # u64[n, 3]: start, pages and state of the mspans at ascending `pointers`.
    found = []
    for low, high in join_near(pointers, pointers, NEAR):
        words = records(memory, low, (high - low + state) // WORD + 1)
        mine = pointers[slice(*np.searchsorted(pointers, [low, high + 1]))]
        row = ((mine - np.uint64(low)) // np.uint64(WORD)).astype(np.int64)
        which = words[row + state // WORD] >> np.uint64(state % WORD * 8) & np.uint64(0xFF)
        found.append(np.stack([words[row + START // WORD], words[row + PAGES // WORD], which], 1))
    return np.concatenate(found)
