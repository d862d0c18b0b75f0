"""Frames numbered anew: who shares a frame stays visible, where it is in RAM does not.

Numbers are given in the order in which frames are met, so they also compress well. It takes four
bytes for each frame of RAM that is met.
"""

from __future__ import annotations

import mmap
from dataclasses import replace

import numpy as np

from pagewalk.model.columns import I64, U32, U64, Bool, Flag, Pages, take
from pagewalk.model.ranges import base_pages, distinct
from pagewalk.model.rules import IS_PRESENT
from pagewalk.model.soft import FRAMED
from pagewalk.snapshot.runs import ANEW

CHUNK_SHIFT = np.uint64(24)
CHUNK = 1 << 24  # frames


class Renumbering:
    """The numbers that frames were given so far."""

    def __init__(self) -> None:
        self._chunks: dict[int, U32] = {}
        self._next = 1  # 0: not met yet

    def of(self, pfn: U64) -> U64:
        """Return the number of each frame of ``pfn``; the same for the same frame."""
        chunks = pfn >> CHUNK_SHIFT
        if len(pfn) and (chunks == chunks[0]).all():
            return self._in_chunk(int(chunks[0]), pfn) + np.uint64(ANEW)
        found = np.empty(len(pfn), np.uint64)
        for chunk in distinct(chunks).tolist():
            here = np.flatnonzero(chunks == chunk)
            found[here] = self._in_chunk(chunk, pfn[here])
        return found + np.uint64(ANEW)

    def _in_chunk(self, chunk: int, pfn: U64) -> U64:
        numbers = self._chunks.get(chunk)
        if numbers is None:
            # pages of it that are never touched take no memory
            numbers = np.frombuffer(mmap.mmap(-1, CHUNK * 4), np.uint32)
            self._chunks[chunk] = numbers
        at = (pfn & np.uint64(CHUNK - 1)).astype(np.int64)
        found = numbers[at]
        if not found.any():  # as a rule: and none of them comes twice
            turn = np.arange(self._next, self._next + len(at), dtype=np.uint32)
            numbers[at] = turn
            if (numbers[at] == turn).all():
                self._next += len(at)
                return turn.astype(np.uint64)
        new = at[found == 0]
        if not len(new):
            return found.astype(np.uint64)
        # Of a frame that comes several times the last write counts; without a sort that shows
        # which ones come first.
        turn = np.arange(len(new), 0, -1, dtype=np.uint32)
        numbers[new[::-1]] = turn[::-1]
        new = new[numbers[new] == turn]
        numbers[new] = np.arange(self._next, self._next + len(new), dtype=np.uint32)
        self._next += len(new)
        return numbers[at].astype(np.uint64)

    def _firsts(self, pfn: U64, size: U64, page_size: int) -> U64 | None:
        # The number of each leaf's first frame; None unless those of every leaf follow one another.
        if (size == page_size).all():
            return self.of(pfn)
        per, first, nth = base_pages(size, page_size)
        numbers = self.of(np.repeat(pfn, per) + nth)
        firsts: U64 = numbers[first]
        return firsts if (numbers == np.repeat(firsts, per) + nth).all() else None

    def pages(self, pages: Pages, page_size: int) -> Pages:
        """Return ``pages`` with new numbers for their frames.

        The base pages of a huge leaf get numbers that follow one another, unless some of them were
        met before without the others: then they become rows of their own.
        """
        if pages.pfn is None:
            return pages
        framed = named(pages)
        numbers = self._firsts(pages.pfn[framed], pages.size[framed], page_size)
        if numbers is not None:
            # What may name a frame, or not, is not kept.
            swap = pages.flags & np.uint32(Flag.SWAP) != 0
            anew = np.where(swap, pages.pfn, np.uint64(0))
            anew[framed] = numbers
            return replace(pages, pfn=anew)
        large = framed & (pages.size > page_size)
        spread = spread_out(pages, large, page_size)
        pfn: U64 | None = spread.pages.pfn
        assert pfn is not None
        swap = spread.pages.flags & np.uint32(Flag.SWAP) != 0
        pfn[~swap & ~spread.framed] = 0
        pfn[spread.framed] = self.of(pfn[spread.framed])
        whole = np.ones(len(pages), bool)
        follows = pfn[1:] == pfn[:-1] + np.uint64(1)
        broken = spread.row[1:][(spread.row[1:] == spread.row[:-1]) & ~follows]
        whole[broken] = False
        keep = ~whole[spread.row] | spread.first
        out = take(spread.pages, keep)
        kept = whole[spread.row[keep]]
        out.size[kept] = pages.size[spread.row[keep][kept]]
        return out


class Spread:
    """Pages with a row for each base page of some: the ``row`` each comes from, and if it is the
    ``first`` of that; ``framed``: it names a frame."""

    def __init__(self, pages: Pages, row: I64, first: Bool, framed: Bool) -> None:
        self.pages, self.row, self.first, self.framed = pages, row, first, framed


def spread_out(pages: Pages, large: Bool, page_size: int) -> Spread:
    """Return ``pages`` with those that are ``large`` as rows of their base pages."""
    per, _, nth = base_pages(np.where(large, pages.size, np.uint64(page_size)), page_size)
    row = np.repeat(np.arange(len(pages)), per)
    out = take(pages, row)
    assert out.pfn is not None
    out.pfn[:] += nth
    out.addr[:] += nth * np.uint64(page_size)
    out.size[large[row]] = page_size
    return Spread(out, row, nth == 0, named(pages)[row])


def named(pages: Pages) -> Bool:
    """Return which of ``pages`` name a frame: present ones, and those that are on their way."""
    marker = pages.flags & np.uint32(Flag.MARKER) != 0
    mask: Bool = IS_PRESENT[pages.state] | ((pages.flags & FRAMED != 0) & ~marker)
    return mask
