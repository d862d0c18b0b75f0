"""Free chunks of an arena of glibc's malloc, found in its memory. Pure.

A chunk begins with the size of the one before it, if that one is free, and its own size, whose low
bits say whether the one before it is in use. A free chunk repeats its size at its end and is on the
list of a bin, by two links. (malloc/malloc.c: struct malloc_chunk)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.heap.memory import WORD, Block, Memory, blocks
from pagewalk.heap.tcache import Layout, plausible
from pagewalk.model.columns import I64, U64, Bool

PREV_INUSE, SIZE_BITS = np.uint64(1), ~np.uint64(7)
# Never set in a header of an arena: IS_MMAPPED, and a bit of a size in multiples of 16.
NEVER = np.uint64(2 | 8)
BINS, FASTBINS = 127, 10
SMALLEST = 32
# Free chunks of all arenas, for each of which about 125 bytes are needed: a gigabyte. And caches,
# one for each thread; more were planted.
MOST_CHUNKS, MOST_CACHES = 1 << 23, 1 << 14
LOWEST, HIGHEST = np.uint64(1 << 16), np.uint64(1 << 47)  # of a process's addresses


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
        """Return those at ``rows``: themselves, not a copy, if a mask has all of them."""
        if rows.dtype == bool and rows.all():
            return self
        return Chunks(*(column[rows] for column in self))


_NOTHING = np.zeros(0, np.uint64)
NO_CHUNKS = Chunks(_NOTHING, _NOTHING, _NOTHING, _NOTHING)


class Found(NamedTuple):
    """What a look through an arena's memory found.

    ``free``: chunks whose size stands at both of their ends; most of them are free. ``small``: all
    that look like chunks of one of the sizes asked for, whether free or in use. ``caches``: what
    looks like a thread's cache, a row of words for each. ``whole``: these are all of them.
    """

    free: Chunks
    small: Chunks
    caches: U64
    whole: bool


class Headers(NamedTuple):
    # What may be the header of a chunk: its first word in the block, and its second word.
    at: I64
    word: U64

    @property
    def size(self) -> U64:
        return self.word & SIZE_BITS


def look_through(
    memory: Memory, ranges: U64, sizes: tuple[int, ...], layout: Layout, cached: int,
    most: int = MOST_CHUNKS,
) -> Found:
    """Return what may be a chunk in ``ranges`` of ``memory``: free, or of one of ``sizes``.

    A thread's cache has at most ``cached`` chunks of a size. Only what is in RAM is looked at, a
    block at a time: all that is kept of it are 32 bytes for each chunk that was found. If there are
    more than ``most`` the rest is not looked at.
    """
    free, small = [NO_CHUNKS], [NO_CHUNKS]
    caches = [np.zeros((0, layout.words), np.uint64)]
    begun, threads = NO_CHUNKS, MOST_CACHES
    for block in blocks(memory, ranges):
        likely = headers(block, ranges)
        ended, begun = ended_in(block, strung([begun, free_like(block, likely)]))
        free.append(ended)
        small.append(of_sizes(block, likely, sizes))
        caches.append(caches_in(block, likely, layout, cached))
        most -= len(ended.addr) + len(small[-1].addr)
        threads -= len(caches[-1])
        if most < len(begun.addr) or threads < 0:
            break
    whole = most >= len(begun.addr) and threads >= 0
    return Found(by_address(free), by_address(small), np.concatenate(caches), whole)


def strung(parts: list[Chunks]) -> Chunks:
    return Chunks(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def by_address(parts: list[Chunks]) -> Chunks:
    """Return the chunks of all ``parts`` by address, and empty that list."""
    every = strung(parts)
    parts.clear()
    if (every.addr[1:] >= every.addr[:-1]).all():  # as nearly always
        return every
    return every.take(np.argsort(every.addr, kind="stable"))


def headers(block: Block, ranges: U64) -> Headers:
    """Return what may be headers in ``block``: no chunk is larger than the largest of ``ranges``.

    One comparison rules out pointers, zeros and text, which is nearly all that is no header.
    """
    slots = (block.end - block.start) // 16
    word = block.words[1 : 2 * slots : 2]
    largest = (ranges[:, 1] - ranges[:, 0]).max()
    row = np.flatnonzero(word - np.uint64(SMALLEST) < largest)
    word = word[row]
    good = word & NEVER == 0
    return Headers(2 * row[good], word[good])


def chunks_at(block: Block, found: Headers) -> Chunks:
    addr = np.uint64(block.start) + found.at.astype(np.uint64) * np.uint64(WORD)
    return Chunks(addr, found.size, block.words[found.at + 2], block.words[found.at + 3])


def free_like(block: Block, likely: Headers) -> Chunks:
    # What is on a list: it has two links, of which one may lead to a bin, and what is before it is
    # in use, else they were merged.
    before = likely.word & PREV_INUSE != 0
    found = chunks_at(block, Headers(likely.at[before], likely.word[before]))
    low, both = np.minimum(found.forward, found.back), found.forward | found.back
    return found.take((low >= LOWEST) & (both < HIGHEST) & (both & np.uint64(7) == 0))


def ended_in(block: Block, begun: Chunks) -> tuple[Chunks, Chunks]:
    """Return those of ``begun`` whose size stands at their end in ``block`` too, and later ones.

    Behind a free chunk is a header that says so.
    """
    foot = begun.addr + begun.size
    later = foot >= np.uint64(block.end)
    here = np.flatnonzero(~later & (foot >= np.uint64(block.start)))
    at = ((foot[here] - np.uint64(block.start)) // np.uint64(WORD)).astype(np.int64)
    twice = (block.words[at] == begun.size[here]) & (block.words[at + 1] & PREV_INUSE == 0)
    return begun.take(here[twice]), begun.take(later)


def of_sizes(block: Block, likely: Headers, sizes: tuple[int, ...]) -> Chunks:
    # What may be in a fastbin: its link leads to an address, or to none (see in_fastbins).
    if not sizes:
        return NO_CHUNKS
    row = np.isin(likely.size, np.array(sizes, np.uint64))
    found = chunks_at(block, Headers(likely.at[row], likely.word[row]))
    good = np.zeros(len(found.addr), bool)
    for link in (found.forward, mangled(found)):
        good |= (link < HIGHEST) & (link & np.uint64(15) == 0)
    return found.take(good)


def caches_in(block: Block, likely: Headers, layout: Layout, cached: int) -> U64:
    # What is left of a chunk that is split is no chunk if it has only 16 bytes.
    more = likely.size - np.uint64(layout.chunk)
    at = likely.at[(more == 0) | (more == 16)]
    at = at[at + 2 + layout.words <= len(block.words)]
    # Chunks of that size may be many: the first four numbers rule out nearly all others.
    numbers = block.words[at + 2].view(np.uint16).reshape(-1, 4)
    at = at[(numbers <= cached).all(axis=1)]
    rows: U64 = block.words[at[:, None] + np.arange(2, 2 + layout.words)]
    found: U64 = rows[plausible(rows, layout, cached)]
    return found


def listed(found: Chunks, bins: int, heads: U64) -> tuple[Bool, bool]:
    """Return a mask of the chunks on the lists of the bins, and whether these are all of them.

    ``bins`` is the address of malloc_state.bins and ``heads`` its words: two links for each bin,
    which is a member of its own list. No list is followed: a chunk is on one if both neighbours
    point back to it, which unlink_chunk() breaks before it does anything else. All are found if
    each link of these chunks and of the bins leads to one of them or to a bin.
    """
    following = rows_of(found, found.forward, bins)
    pointed = answers(found.back, heads[1::2], found.forward, following, bins) == found.addr
    # Whoever follows such a chunk is led back to it: that need not be looked up.
    before = np.full(len(following), -2, np.int64)
    pair = np.flatnonzero(pointed & (following >= 0))
    before[following[pair]] = pair
    first = np.flatnonzero(found.back - np.uint64(bins - 16) < np.uint64(16 * BINS))
    leads = heads[::2][bin_of(found.back[first], bins)] == found.addr[first]
    before[first[leads]] = -1
    on = pointed & (before >= -1)
    known = np.append(on, True)  # row -1 is a bin
    every = np.concatenate([following[on], before[on], rows_of(found, heads, bins)])
    return on, bool((every >= -1).all() and known[every].all())


def answers(back: U64, heads: U64, link: U64, row: I64, bins: int) -> U64:
    # Where what each `link` leads to points in its turn: a chunk, at `row`, by `back`, a bin by
    # `heads`; 0 for neither.
    found = np.zeros(len(link), np.uint64)
    found[row >= 0] = back[row[row >= 0]]
    found[row == -1] = heads[bin_of(link[row == -1], bins)]
    return found


def bin_of(link: U64, bins: int) -> I64:
    return ((link - np.uint64(bins - 16)) // np.uint64(16)).astype(np.int64)


def rows_of(found: Chunks, link: U64, bins: int) -> I64:
    """Return the row of the chunk that each ``link`` leads to, -1 for a bin, -2 for neither."""
    row = np.full(len(link), -2, np.int64)
    if len(found.addr):
        # Looking up ascending addresses finds what is needed in the CPU's cache.
        order = np.argsort(link)
        ascending = link[order]
        near = np.minimum(np.searchsorted(found.addr, ascending), len(found.addr) - 1)
        row[order] = np.where(found.addr[near] == ascending, near, -2)
    row[link - np.uint64(bins - 16) < np.uint64(16 * BINS)] = -1
    return row


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
    for link in (mangled(small), small.forward):
        mask = reached(small.addr, link, heads[heads != 0])
        if mask is not None:
            return mask
    return None


def mangled(small: Chunks) -> U64:
    return small.forward ^ (small.addr + np.uint64(16)) >> np.uint64(12)


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
