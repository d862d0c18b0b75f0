"""Free chunks of an arena of glibc's malloc, found in its memory. Pure.

A chunk begins with the size of the one before it, if that one is free, and its own size, whose low
bits say whether the one before it is in use. A free chunk repeats its size at its end and is on the
list of a bin, by two links. (malloc/malloc.c: struct malloc_chunk)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pagewalk.heap.memory import WORD, Memory
from pagewalk.heap.tcache import Layout, plausible
from pagewalk.model.columns import I64, U64, Bool
from pagewalk.model.ranges import inside, intersect

PREV_INUSE, SIZE_BITS = np.uint64(1), ~np.uint64(7)
BINS, FASTBINS = 127, 10
SMALLEST = 32
# Bytes looked at together, so that they stay in the CPU's cache; and what is read beyond them, for
# a header that begins in them.
BLOCK, BEYOND = 4 << 20, 1024


class Chunks(NamedTuple):
    """Chunks by ascending address, u64[n] each: ``addr``, ``size`` bytes, both ``links``."""

    addr: U64
    size: U64
    forward: U64
    back: U64

    @property
    def ranges(self) -> U64:
        """Return u64[n, 2], each chunk's [start, end)."""
        return np.stack([self.addr, self.addr + self.size], axis=1)

    @property
    def total(self) -> int:
        """Return the bytes of all of them."""
        return int(self.size.sum())

    def take(self, rows: Bool | I64) -> Chunks:
        """Return those at ``rows``."""
        return Chunks(*(column[rows] for column in self))


_NOTHING = np.zeros(0, np.uint64)
NO_CHUNKS = Chunks(_NOTHING, _NOTHING, _NOTHING, _NOTHING)


class Found(NamedTuple):
    """What a look through an arena's memory found.

    ``free``: chunks whose size stands at both of their ends; most of them are free. ``small``: all
    that look like chunks of one of the sizes asked for, whether free or in use. ``caches``: what
    looks like a thread's cache, a row of words for each.
    """

    free: Chunks
    small: Chunks
    caches: U64


class Block(NamedTuple):
    # Words of [start, start + BLOCK), with some beyond it.
    start: int
    words: U64
    slots: int  # of 16 bytes, without those beyond


def look_through(
    memory: Memory, ranges: U64, sizes: tuple[int, ...], layout: Layout, cached: int
) -> Found:
    """Return what may be a chunk in ``ranges`` of ``memory``: free, or of one of ``sizes``.

    A thread's cache has at most ``cached`` chunks of a size. Only what is in RAM is looked at,
    BLOCK bytes at a time: besides that only 32 bytes are needed for each chunk found.
    """
    whole, begun, ended, small = [], [], [], []
    caches = [np.zeros((0, layout.words), np.uint64)]
    for block in blocks(memory, ranges):
        inner, last = twice_sized(block)
        whole.append(inner)
        ended.append(last)
        begun.append(reaching_out(block, ranges))
        small += [of_size(block, size) for size in sizes]
        caches.append(caches_in(block, layout, cached))
    across = matched(joined(begun), joined(ended))
    return Found(joined([*whole, across]), joined(small),
                 np.concatenate(caches))


def blocks(memory: Memory, ranges: U64) -> Iterator[Block]:
    runs, _, _ = intersect(ranges, memory.readable)
    for low, high in runs.tolist():
        for start in range(low, high, BLOCK):
            end = min(start + BLOCK, high)
            words = memory.words(start, end + BEYOND)
            yield Block(start, words, (end - start) // 16)


def joined(parts: list[Chunks]) -> Chunks:
    """Return the chunks of all ``parts`` by address."""
    if not parts:
        return NO_CHUNKS
    every = Chunks(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return every.take(np.argsort(every.addr, kind="stable"))


def chunks_at(block: Block, at: I64) -> Chunks:
    # Those that begin at the words `at` of a block.
    addr = np.uint64(block.start) + at.astype(np.uint64) * np.uint64(WORD)
    words = block.words
    return Chunks(addr, words[at + 1] & SIZE_BITS, words[at + 2], words[at + 3])


def twice_sized(block: Block) -> tuple[Chunks, Chunks]:
    """Return the chunks whose size stands at both ends, and those that began before the block.

    Of the latter only the end was seen.
    """
    words = block.words
    end, head = words[: 2 * block.slots : 2], words[1 : 2 * block.slots : 2]
    free = (head & PREV_INUSE == 0) & (end >= SMALLEST) & (end & np.uint64(15) == 0)
    after = np.flatnonzero(free & (head >= 16)) * 2
    size = words[after]
    addr = np.uint64(block.start) + after.astype(np.uint64) * np.uint64(WORD) - size
    before = (addr < np.uint64(block.start)) & (size < np.uint64(1 << 47))
    within = addr >= np.uint64(block.start)
    within &= addr < np.uint64(block.start + 16 * block.slots)
    at = ((addr[within] - np.uint64(block.start)) // np.uint64(WORD)).astype(np.int64)
    inner = chunks_at(block, at)
    outer = Chunks(addr[before], size[before], *(np.zeros(int(before.sum()), np.uint64),) * 2)
    return inner.take(inner.size == size[within]), outer


def reaching_out(block: Block, ranges: U64) -> Chunks:
    """Return what may be a free chunk that ends after the block."""
    words, count = block.words, 2 * block.slots
    size = words[1:count:2] & SIZE_BITS
    room = np.arange(block.slots, 0, -1, dtype=np.uint64) * np.uint64(16)
    far = (size >= room) & (size <= ranges[-1, 1] - np.uint64(block.start))
    far &= size & np.uint64(8) == 0
    found = chunks_at(block, np.flatnonzero(far) * 2)
    return found.take(inside(found.addr + found.size - np.uint64(1), ranges))


def matched(begun: Chunks, ended: Chunks) -> Chunks:
    # The chunks of which both ends were seen, in different blocks.
    row = np.searchsorted(begun.addr, ended.addr)
    known = row < len(begun.addr)
    known[known] = begun.addr[row[known]] == ended.addr[known]
    known[known] = begun.size[row[known]] == ended.size[known]
    return begun.take(row[known])


def of_size(block: Block, size: int) -> Chunks:
    sizes = block.words[1 : 2 * block.slots : 2] & SIZE_BITS
    return chunks_at(block, np.flatnonzero(sizes == np.uint64(size)) * 2)


def caches_in(block: Block, layout: Layout, cached: int) -> U64:
    # What is left of a chunk that is split is no chunk if it has only 16 bytes.
    more = (block.words[1 : 2 * block.slots : 2] & SIZE_BITS) - np.uint64(layout.chunk)
    at = np.flatnonzero((more == 0) | (more == 16))
    at = 2 * at[2 * at + 2 + layout.words <= len(block.words)]
    rows: U64 = block.words[at[:, None] + np.arange(2, 2 + layout.words)]
    likely: U64 = rows[plausible(rows, layout, cached)]
    return likely


def listed(found: Chunks, bins: int, heads: U64) -> tuple[Bool, bool]:
    """Return a mask of the chunks on the lists of the bins, and whether these are all of them.

    ``bins`` is the address of malloc_state.bins and ``heads`` its words: two links for each bin,
    which is a member of its own list. No list is followed: a chunk is on one if both neighbours
    point back to it, which unlink_chunk() breaks before it does anything else. All are found if
    each link of these chunks and of the bins leads to one of them or to a bin.
    """
    ahead, next_row = linked_back(found, found.forward, found.back, bins, heads[1::2])
    behind, last_row = linked_back(found, found.back, found.forward, bins, heads[::2])
    on = ahead & behind
    known = np.append(on, True)  # row -1 is a bin
    every = np.concatenate([next_row[on], last_row[on], rows_of(found, heads, bins)])
    return on, bool((every >= -1).all() and known[every].all())


def linked_back(
    found: Chunks, link: U64, back: U64, bins: int, heads: U64
) -> tuple[Bool, I64]:
    # Whether what `link` leads to has in `back`, or as a bin in `heads`, a link to the chunk; and
    # its row.
    row = rows_of(found, link, bins)
    answer = np.zeros(len(link), np.uint64)
    answer[row >= 0] = back[row[row >= 0]]
    bin_ = (link[row == -1] - np.uint64(bins - 16)) // np.uint64(16)
    answer[row == -1] = heads[bin_.astype(np.int64)]
    mask: Bool = answer == found.addr
    return mask, row


def rows_of(found: Chunks, link: U64, bins: int) -> I64:
    """Return the row of the chunk that each ``link`` leads to, -1 for a bin, -2 for neither."""
    if len(found.addr) == 0:
        row = np.full(len(link), -2, np.int64)
    else:
        row = np.minimum(np.searchsorted(found.addr, link), len(found.addr) - 1)
        row = np.where(found.addr[row] == link, row, -2)
    return np.where(link - np.uint64(bins - 16) < np.uint64(16 * BINS), -1, row)


def apart(found: Chunks) -> Chunks:
    """Return the chunks of ``found`` that do not begin inside an earlier one."""
    reach = np.maximum.accumulate(found.addr + found.size)
    first = np.ones(len(found.addr), bool)
    first[1:] = found.addr[1:] >= reach[:-1]
    return found.take(first)


def in_fastbins(small: Chunks, heads: U64) -> Bool | None:
    """Return a mask of the chunks in fastbins, whose first ones are ``heads``.

    From 2.32 on a link is XORed with its own address (PROTECT_PTR). Returns None if the lists lead
    to what is no chunk, either way.
    """
    plain = small.forward
    mangled = plain ^ (small.addr + np.uint64(16)) >> np.uint64(12)
    for link in (mangled, plain):
        mask = reached(small.addr, link, heads[heads != 0])
        if mask is not None:
            return mask
    return None


def reached(addr: U64, link: U64, heads: U64) -> Bool | None:
    """Return a mask of the ``addr`` (ascending) on the lists from ``heads``.

    ``link`` leads to the next one. All at once: in pass k a step is 2**k links long. None if a link
    leads elsewhere.
    """
    end, lost = len(addr), len(addr) + 1
    target = np.concatenate([link, heads])
    row = np.searchsorted(addr, target)
    known = row < end
    known[known] = addr[row[known]] == target[known]
    row = np.where(known, row, np.where(target == 0, end, lost))
    step = np.concatenate([row[: len(link)], [end, lost]])
    on = np.zeros(end + 2, bool)
    on[row[len(link) :]] = True
    seen = -1
    while seen != (seen := int(on.sum())):
        on[step[on]] = True
        step = step[step]
    return None if on[lost] else on[:end]
