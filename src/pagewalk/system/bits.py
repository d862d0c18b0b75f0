"""A bit for each frame of RAM: which frames are in a set, in 4 MiB for 128 GiB."""

from __future__ import annotations

import numpy as np

from pagewalk.model.columns import I64, U8, Bool

_BYTE_SHIFT, _WHOLE = 3, np.uint8(0xFF)  # a byte for 8 frames


class FrameSet:
    """A set of frames below ``end``; frames are i64 arrays."""

    def __init__(self, end: int) -> None:
        self._bytes = np.zeros((end >> _BYTE_SHIFT) + 1, np.uint8)
        self._end = end

    def add(self, frames: I64) -> None:
        """Add ``frames``, in any order."""
        np.bitwise_or.at(self._bytes, frames >> _BYTE_SHIFT, _bit(frames))

    def add_runs(self, first: I64, pages: I64) -> None:
        """Add runs of ``pages`` frames from ``first`` on."""
        first, pages = first[pages > 0], pages[pages > 0]
        last = first + pages - 1
        begin, end = first >> _BYTE_SHIFT, last >> _BYTE_SHIFT
        low = np.left_shift(_WHOLE, (first & 7).astype(np.uint8))
        high = np.right_shift(_WHOLE, (7 - (last & 7)).astype(np.uint8))
        one = begin == end
        np.bitwise_or.at(self._bytes, begin, np.where(one, low & high, low))
        np.bitwise_or.at(self._bytes, end[~one], high[~one])
        between = np.maximum(end - begin - 1, 0)
        before = np.cumsum(between) - between
        self._bytes[np.repeat(begin + 1 - before, between) + np.arange(int(between.sum()))] = _WHOLE

    def has(self, frames: I64) -> Bool:
        """Return which of ``frames`` are in it; those beyond the end are not."""
        inside = (frames >= 0) & (frames < self._end)
        at = np.where(inside, frames, 0)
        found: Bool = inside & (self._bytes[at >> _BYTE_SHIFT] & _bit(at) != 0)
        return found

    def missing(self, frames: I64) -> Bool:
        """Return which of ``frames`` could be in it and are not."""
        return ~self.has(frames) & (frames >= 0) & (frames < self._end)

    def __len__(self) -> int:
        return int(np.bitwise_count(self._bytes).sum(dtype=np.int64))


def _bit(frames: I64) -> U8:
    bit: U8 = np.left_shift(np.uint8(1), (frames & 7).astype(np.uint8))
    return bit
