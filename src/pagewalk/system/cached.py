"""The page cache by file and by who is charged, added up while the frames stream by.

What is held is a row for each file and owner, never a row for each page.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagewalk.model.bits import kpf
from pagewalk.model.columns import I64, U64, Bool, Rows, alike, take
from pagewalk.model.frames import ORDER_SHIFT, Frames, Kind

AMOUNTS = ("pages", "mapped", "dirty", "active", "huge")
_DIRTY, _ACTIVE = kpf("dirty", "writeback"), kpf("active")
_HUGE = 9  # the order from which on a PMD can map a folio
# A row is found by one word made of both its addresses. An odd factor, so that the object can be
# had back from it (2^64 divided by the golden ratio: Knuth, The Art of Computer Programming, 6.4).
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SHMEM = np.uint64(1)  # a bit that is 0 in the address of an address_space
_FEWEST = 1 << 16  # rows that are new before they are merged, at least
_WIDE = 1 << 32  # pages from which on a sum may need more than 32 bits


_Part = list[NDArray[Any]]  # key, owner, and a column for each of AMOUNTS


class CachedFiles(Rows):
    """Pages of RAM by file and by who is charged for them: a row for each pair of both.

    ``object`` u64, the address of an address_space, ascending; ``owner`` u64 as in Frames, None if
    that is not known. In pages, i64: ``pages``; of these ``mapped`` by a process; ``dirty``, also
    those being written back; ``active``, on the active list; ``huge``, in folios of 2 MiB or more,
    None if that is not known. ``shmem`` (bool): memory that has no file on a disk.
    """

    object: U64
    owner: U64 | None
    pages: I64
    mapped: I64
    dirty: I64
    active: I64
    huge: I64 | None
    shmem: Bool


class CacheSums:
    """Adds up batches of frames, given to ``add`` one after the other; ``files`` ends it."""

    def __init__(self) -> None:
        none = np.zeros(0, np.uint64)
        self._known: _Part = [none, none, *(none.astype(np.uint32) for _ in AMOUNTS)]
        self._new: list[_Part] = []
        self._waiting = self._pages = 0
        self._owned = self._orders = True

    def add(self, frames: Frames) -> None:
        """Add the pages of files and of shared memory among ``frames``."""
        frames = take(frames, frames.of(Kind.FILE, Kind.SHMEM))
        self._owned &= frames.owner is not None
        self._orders &= frames.facts is not None
        self._pages += int(frames.pages.sum())
        key, owner, *amounts = _merged([_row_per_run(frames)], self._width)
        at, known = _found(self._known, key, owner)
        for column, more in zip(self._known[2:], amounts, strict=True):
            column[at[known]] += more[known]
        self._new.append([column[~known] for column in (key, owner, *amounts)])
        self._waiting += len(key) - int(known.sum())
        if self._waiting > max(_FEWEST, len(self._known[0]) // 8) or self._pages >= _WIDE:
            self._merge()

    @property
    def _width(self) -> type[Any]:
        return np.uint32 if self._pages < _WIDE else np.uint64

    def _merge(self) -> None:
        parts, self._known = [self._known, *self._new], []
        self._new, self._waiting = [], 0
        self._known = _merged(parts, self._width)

    def files(self) -> CachedFiles:
        """Return the sums of everything that was added; nothing can be added after that."""
        self._merge()
        rest, self._known = self._known, []
        key, owner = rest.pop(0), rest.pop(0)
        object_ = key - owner * _FACTOR
        del key
        order = np.argsort(object_)
        object_, owner = object_[order], owner[order]
        huge = rest.pop()[order].astype(np.int64)
        pages, mapped, dirty, active = (
            rest.pop(0)[order].astype(np.int64) for _ in AMOUNTS[:-1]
        )
        return CachedFiles(
            object_ & ~_SHMEM, owner if self._owned else None, pages, mapped, dirty, active,
            huge if self._orders else None, object_ & _SHMEM != 0,
        )


def add_up_files(batches: Iterable[Frames]) -> CachedFiles:
    """Return the page cache in ``batches`` of frames by file and owner."""
    sums = CacheSums()
    for frames in batches:
        sums.add(frames)
    return sums.files()


def _found(part: _Part, key: U64, owner: U64) -> tuple[I64, Bool]:
    # The row of each pair in `part`, and whether it is there.
    if not len(part[0]):
        return np.zeros(len(key), np.int64), np.zeros(len(key), bool)
    at = np.minimum(np.searchsorted(part[0], key), len(part[0]) - 1)
    return at, (part[0][at] == key) & (part[1][at] == owner)


def unowned(frames: Frames) -> Frames:
    """Return ``frames`` without who is charged for them: their sums have a row for each file."""
    return Frames(**{**vars(frames), "owner": None})


def without_owners(cached: CachedFiles) -> CachedFiles:
    """Return the same sums, with who is charged withheld."""
    return CachedFiles(**{**vars(cached), "owner": None})


def _row_per_run(frames: Frames) -> _Part:
    object_, owner = frames.object, frames.owner
    assert object_ is not None
    if owner is None:
        owner = np.zeros(len(frames), np.uint64)
    order = np.zeros(len(frames), np.uint8) if frames.facts is None else frames.facts >> ORDER_SHIFT
    pages = frames.pages.astype(np.uint32)
    masks = (
        frames.mapcount > 0, frames.flags & _DIRTY != 0, frames.flags & _ACTIVE != 0,
        order >= _HUGE,
    )
    object_ = object_ | (frames.kind == Kind.SHMEM.value) * _SHMEM
    return [object_ + owner * _FACTOR, owner, pages, *(pages * mask for mask in masks)]


def _merged(parts: list[_Part], width: type[Any]) -> _Part:
    # One row for each pair, from `parts`, which are emptied column by column: both are never held
    # whole. Should two pairs have one key, they may stay in more rows, and add up all the same.
    key, order = _sorted([part.pop(0) for part in parts])
    owner = _next(parts, order)
    first = alike(key, owner)
    key, owner = key[first], owner[first]
    return [key, owner, *(_add_up(_next(parts, order), first, width) for _ in AMOUNTS)]


def _sorted(keys: _Part) -> tuple[U64, I64]:
    key = np.concatenate(keys)
    order = np.argsort(key)
    return key[order], order


def _next(parts: list[_Part], order: I64) -> NDArray[Any]:
    # The next column of all parts, in order.
    column: NDArray[Any] = np.concatenate([part.pop(0) for part in parts])[order]
    return column


def _add_up(column: NDArray[Any], first: I64, width: type[Any]) -> NDArray[Any]:
    if not len(first):
        return column.astype(width)
    total: NDArray[Any] = np.add.reduceat(column, first, dtype=width)
    return total
