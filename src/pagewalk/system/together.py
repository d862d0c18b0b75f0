"""Pages that members of a set map, frame by frame: each once, by pair, by child. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from pagewalk.model.columns import I32, I64, U8, U64, Keeper, Rows, take

MOST = 500  # members whose pairs are counted: 2 MB of them
_TOGETHER = 1 << 12  # patterns that are multiplied together


class Mapping(Rows):
    """Pages in RAM that may be mapped more than once: a row for each page and mapping of it.

    ``pfn`` i64 first frame; ``mm`` i32 the member that maps it; ``place`` i32 which of the set's
    names the mapping has; ``size`` i64 bytes; ``mapcount`` i64, 0 where it is not known; ``keeper``
    u8 (see columns.Keeper).
    """

    pfn: I64
    mm: I32
    place: I32
    size: I64
    mapcount: I64
    keeper: U8


class Together:
    """Adds up what members map.

    ``held`` are bytes of frames, each once; ``own`` those of them that are freed when all members
    end, because nothing but their mappings keeps them; ``elsewhere`` those that are mapped more
    often than by members, and ``unsure`` those of which that is not known. ``both``
    i64[members, members] are bytes in frames that both map, 0 on the diagonal, None for more than
    MOST members. ``kept`` are bytes of anonymous memory by (member, place) that the member's parent
    maps too: pages that neither has written since the fork.
    """

    def __init__(self, parents: list[int]) -> None:
        """Take the row of each member's parent, -1 if it is not in the set."""
        self._parent = np.array(parents, np.int64)
        count = len(parents)
        self.held = self.own = self.elsewhere = self.unsure = 0
        self.both: I64 | None = np.zeros((count, count), np.int64) if count <= MOST else None
        self.kept: dict[tuple[int, int], int] = {}

    def add(self, batches: Iterable[Mapping]) -> None:
        """Add all mappings; no frame is in two of ``batches``, which are by ascending frame."""
        for batch in batches:
            if not len(batch):
                continue
            self._add_frames(batch)
            rows = once(batch)
            if len(rows):
                self._add_kept(rows)
                if self.both is not None:
                    self._add_both(rows)

    def _add_frames(self, batch: Mapping) -> None:
        first = np.flatnonzero(np.diff(batch.pfn, prepend=-1))
        times = np.diff(first, append=len(batch))
        # Members were walked one after the other: the last count is not always the largest.
        mapcount = np.maximum.reduceat(batch.mapcount, first)
        size, keeper = batch.size[first], batch.keeper[first]
        own = (keeper == Keeper.MAPPINGS.value) & (mapcount > 0) & (times >= mapcount)
        self.held += int(size.sum())
        self.own += int(size[own].sum())
        self.elsewhere += int(size[times < mapcount].sum())
        self.unsure += int(size[mapcount == 0].sum())

    def _add_kept(self, rows: Mapping) -> None:
        # (frame, member) as one ascending number, in which a child looks for its parent.
        count = len(self._parent)
        key = frame_numbers(rows) * count + rows.mm
        parent = self._parent[rows.mm]
        own = np.flatnonzero((parent >= 0) & (rows.keeper == Keeper.MAPPINGS.value))
        wanted = key[own] - rows.mm[own] + parent[own]
        at = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
        own = own[key[at] == wanted]
        places = int(rows.place.max()) + 1
        found, back = np.unique(rows.mm[own].astype(np.int64) * places + rows.place[own],
                                return_inverse=True)
        sums = np.bincount(back, rows.size[own], len(found)).astype(np.int64)
        for where, size in zip(found.tolist(), sums.tolist(), strict=True):
            member, place = divmod(where, places)
            self.kept[member, place] = self.kept.get((member, place), 0) + size

    def _add_both(self, rows: Mapping) -> None:
        # Frames that the same members map are one pattern: few, however many frames there are.
        assert self.both is not None
        number = frame_numbers(rows)
        first = np.flatnonzero(np.diff(number, prepend=-1))
        bits = np.zeros((len(first), -(-len(self._parent) // 64)), np.uint64)
        np.bitwise_or.at(bits, (number, rows.mm >> 6),
                         np.uint64(1) << (rows.mm & 63).astype(np.uint64))
        patterns, back = distinct_rows(bits)
        size = np.bincount(back, rows.size[first], len(patterns))
        for at in range(0, len(patterns), _TOGETHER):
            some = slice(at, at + _TOGETHER)
            member = np.unpackbits(
                patterns[some].view(np.uint8), axis=1, bitorder="little",
                count=len(self._parent)).astype(np.float64)
            # exact: sums of bytes below 2**53
            self.both += ((member.T * size[some]) @ member).astype(np.int64)
        np.fill_diagonal(self.both, 0)


def once(batch: Mapping) -> Mapping:
    """Return ``batch`` by frame and member, each pair once, without frames of one member."""
    batch = take(batch, np.lexsort((batch.mm, batch.pfn)))
    new = np.diff(batch.pfn, prepend=-1) != 0
    batch = take(batch, new | (np.diff(batch.mm, prepend=-1) != 0))
    number = frame_numbers(batch)
    return take(batch, np.bincount(number)[number] > 1)


def frame_numbers(rows: Mapping) -> I64:
    """Return which of the frames each row is of, from 0 on."""
    return np.cumsum(np.diff(rows.pfn, prepend=-1) != 0) - 1


def distinct_rows(bits: U64) -> tuple[U64, I64]:
    """Return the distinct rows of ``bits`` (u64[n, k]), and which of them each row is."""
    whole: npt.NDArray[np.void] = np.ascontiguousarray(bits).view(
        np.dtype((np.void, bits.itemsize * bits.shape[1]))).ravel()
    if bits.shape[1] == 1:
        found, back = np.unique(bits[:, 0], return_inverse=True)
        return found[:, np.newaxis], back
    voids, back = np.unique(whole, return_inverse=True)
    return voids.view(np.uint64).reshape(-1, bits.shape[1]), back
