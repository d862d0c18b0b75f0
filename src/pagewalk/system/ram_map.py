"""Where in RAM its uses lie: equal stretches of physical addresses, each with pages by group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from pagewalk.model.columns import I64, Rows
from pagewalk.model.frames import Frames, Kind
from pagewalk.system.ram import GROUPS, group_of

MOST = 1024  # stretches, however much RAM there is


class Stretches(Rows):
    """The stretches of physical addresses that hold RAM, by ascending address.

    ``number`` i64: it begins at that many times their length; ``pages`` i64, a row for each, with a
    column for each of GROUPS. What the columns lack to its length is no RAM.
    """

    number: I64
    pages: I64


class Piece(NamedTuple):
    """Frames that follow one another: the first, and how many."""

    pfn: int
    pages: int


class RamMap(NamedTuple):
    """Stretches of ``1 << shift`` frames each; ``largest_free`` is None if no frame is free."""

    shift: int
    stretches: Stretches
    largest_free: Piece | None


_GROUPS = tuple(GROUPS)
_GROUP = np.zeros(1 << 8, np.int64)
for _kind in Kind:
    _GROUP[_kind.value] = _GROUPS.index(group_of(_kind))
_FREE = _GROUPS.index("free")
_NONE = Piece(0, 0)


def map_ram(
    batches: Iterable[Frames], ranges: list[tuple[int, int]], most: int = MOST
) -> RamMap:
    """Return where the frames of ``batches`` lie, in at most ``most`` stretches.

    ``ranges`` of RAM, [first, last) and ascending, hold all of the frames, which ascend.
    """
    sums = MapSums(ranges, most)
    for frames in batches:
        sums.add(frames)
    return sums.found()


class MapSums:
    """Adds up batches of frames, given to ``add``, where they lie; see map_ram."""

    def __init__(self, ranges: list[tuple[int, int]], most: int = MOST) -> None:
        self._shift = _shift(ranges, most)
        self._numbers = np.array(sorted(_numbers(ranges, self._shift)), np.int64)
        self._pages = np.zeros((len(self._numbers), len(_GROUPS)), np.int64)
        self._largest, self._open = _NONE, _NONE

    def add(self, frames: Frames) -> None:
        """Add a batch."""
        if len(frames):
            _add(self._pages, frames, self._numbers, self._shift)
            self._largest, self._open = _longer(self._largest, self._open, frames)

    def found(self) -> RamMap:
        """Return what was found."""
        largest = self._largest if self._largest.pages else None
        return RamMap(self._shift, Stretches(self._numbers, self._pages), largest)


def _shift(ranges: list[tuple[int, int]], most: int) -> int:
    # A range lies in two stretches more than it fills, at most: those are not made to be counted.
    shift = 0
    while (sum((last - first) >> shift for first, last in ranges) > most
           or len(_numbers(ranges, shift)) > most):
        shift += 1
    return shift


def _numbers(ranges: list[tuple[int, int]], shift: int) -> set[int]:
    return {number for first, last in ranges
            for number in range(first >> shift, ((last - 1) >> shift) + 1)}


def _add(pages: I64, frames: Frames, numbers: I64, shift: int) -> None:
    # Each run is cut where a stretch ends.
    end = frames.pfn + frames.pages
    first = frames.pfn >> shift
    parts = ((end - 1) >> shift) - first + 1
    run = np.repeat(np.arange(len(frames)), parts)
    number = np.repeat(first - (np.cumsum(parts) - parts), parts) + np.arange(len(run))
    low = np.maximum(frames.pfn[run], number << shift)
    high = np.minimum(end[run], (number + 1) << shift)
    cell = np.searchsorted(numbers, number) * len(_GROUPS) + _GROUP[frames.kind[run]]
    # Sums of float64 are exact up to 2**53 frames.
    sums = np.bincount(cell, high - low, minlength=pages.size)
    pages += sums.astype(np.int64).reshape(pages.shape)


def _longer(largest: Piece, before: Piece, frames: Frames) -> tuple[Piece, Piece]:
    # The largest piece of free frames so far, and the one that may go on in the next batch.
    rows = _GROUP[frames.kind] == _FREE
    pfn = np.append(before.pfn, frames.pfn[rows])
    pages = np.append(before.pages, frames.pages[rows])
    begins = np.flatnonzero(np.append(True, pfn[1:] != pfn[:-1] + pages[:-1]))
    pieces = np.add.reduceat(pages, begins)
    at = int(pieces.argmax())
    found = Piece(int(pfn[begins[at]]), int(pieces[at]))
    last = Piece(int(pfn[begins[-1]]), int(pieces[-1]))
    return max(largest, found, key=lambda piece: piece.pages), last
