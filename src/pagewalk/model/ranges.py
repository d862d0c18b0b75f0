"""Arithmetic on sorted, half-open address ranges: pure, vectorised over ranges.

Ranges are u64[n, 2], sorted, without overlap; adjacent ranges are allowed.
"""

from __future__ import annotations

import numpy as np

from pagewalk.model.columns import I64, U64, Bool
from pagewalk.model.errors import BadRequest


def join_near(starts: U64, ends: U64, gap: int) -> list[tuple[int, int]]:
    """Return the ranges, with those at most ``gap`` bytes apart joined."""
    return joined(starts, ends, starts[1:] - ends[:-1] > np.uint64(gap))


def join_free(ranges: U64, others: U64, gap: int, free: int) -> list[tuple[int, int]]:
    """Return ``ranges``, with those at most ``gap`` bytes apart joined.

    If none of ``others`` (u64, sorted) is between two, they may be ``free`` bytes apart.
    """
    starts, ends = ranges[:, 0], ranges[:, 1]
    empty = np.searchsorted(others, starts[1:]) == np.searchsorted(others, ends[:-1])
    most = np.where(empty, np.uint64(max(gap, free)), np.uint64(gap))
    return joined(starts, ends, starts[1:] - ends[:-1] > most)


def joined(starts: U64, ends: U64, apart: Bool) -> list[tuple[int, int]]:
    # The ranges, each joined with the previous one unless marked in `apart`.
    if len(starts) == 0:
        return []
    heads = np.flatnonzero(np.append(True, apart))
    tails = np.append(heads[1:], len(starts)) - 1
    return list(zip(starts[heads].tolist(), ends[tails].tolist(), strict=True))


def reaching(ranges: U64, start: int, end: int) -> slice:
    """Return the rows of ``ranges`` that overlap [``start``, ``end``)."""
    first = np.searchsorted(ranges[:, 1], np.uint64(start), side="right")
    return slice(int(first), int(np.searchsorted(ranges[:, 0], np.uint64(end))))


def inside(points: U64, ranges: U64) -> Bool:
    """Return whether each of ``points`` is in one of ``ranges``."""
    if len(ranges) == 0:
        return np.zeros(len(points), bool)
    row = holder(points, ranges)
    held: Bool = (row >= 0) & (points < ranges[row, 1])
    return held


def holder(points: U64, ranges: U64) -> I64:
    """Return the row of the last range that starts at or below each point, -1 if none does."""
    return np.searchsorted(ranges[:, 0], points, side="right").astype(np.int64) - 1


def distinct(values: U64) -> U64:
    """Return the distinct ``values``, ascending.

    Like np.unique, whose first call imports numpy.ma, which would cost every command 15 ms.
    """
    ordered = np.sort(values)
    new = np.ones(len(ordered), bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return ordered[new]


def differing(before: U64, after: U64) -> int:
    """Return how many ranges of ``before`` are not in ``after``; if none, the other way round."""
    if len(before) == len(after) and (before == after).all():
        return 0
    old, new = (set(map(tuple, ranges.tolist())) for ranges in (before, after))
    return len(old - new) or len(new - old)


def intersect(first: U64, second: U64) -> tuple[U64, I64, I64]:
    """Return what both cover, split at every edge of either, and each piece's row in both."""
    if len(first) == 0 or len(second) == 0:
        none = np.zeros(0, np.int64)
        return np.zeros((0, 2), np.uint64), none, none
    edges = distinct(np.concatenate([first.ravel(), second.ravel()]))
    low, high = edges[:-1], edges[1:]
    keep = inside(low, first) & inside(low, second)
    pieces = np.stack([low[keep], high[keep]], axis=1)
    return pieces, holder(pieces[:, 0], first), holder(pieces[:, 0], second)


def overlapping(ranges: U64, others: U64) -> Bool:
    """Return a mask of ``ranges`` (in any order) that share a byte with any of ``others``."""
    if len(others) == 0:
        return np.zeros(len(ranges), bool)
    at = np.minimum(np.searchsorted(others[:, 1], ranges[:, 0], side="right"), len(others) - 1)
    mask: Bool = (others[at, 0] < ranges[:, 1]) & (ranges[:, 0] < others[at, 1])
    return mask


def union(ranges: U64) -> U64:
    """Return what ``ranges`` (in any order) cover, sorted and joined where adjacent."""
    if len(ranges) == 0:
        return ranges
    ordered = ranges[np.argsort(ranges[:, 0], kind="stable")]
    reach = np.maximum.accumulate(ordered[:, 1])
    new = np.ones(len(ordered), bool)
    new[1:] = ordered[1:, 0] > reach[:-1]
    heads = np.flatnonzero(new)
    last = np.append(heads[1:], len(ordered)) - 1
    return np.stack([ordered[heads, 0], reach[last]], axis=1)


def without(ranges: U64, others: U64) -> U64:
    """Return what ``ranges`` (in any order) cover and ``others`` do not, sorted and joined."""
    whole = union(ranges)
    if len(whole) == 0 or len(others) == 0:
        return whole
    edges = distinct(np.concatenate([whole.ravel(), others.ravel()]))
    low, high = edges[:-1], edges[1:]
    keep = inside(low, whole) & ~inside(low, others)
    return union(np.stack([low[keep], high[keep]], axis=1))


def gaps(covered: U64, start: int, end: int) -> U64:
    """Return the parts of [``start``, ``end``) that ``covered`` does not cover."""
    last = np.uint64(min(end, 2**64 - 1))
    low = np.concatenate([[np.uint64(start)], covered[:, 1]])
    high = np.concatenate([covered[:, 0], [last]])
    low, high = np.maximum(low, np.uint64(start)), np.minimum(high, last)
    free = low < high
    return np.stack([low[free], high[free]], axis=1)


def check(ranges: U64, page: int) -> None:
    """Raise BadRequest unless ``ranges`` are u64[k, 2], whole pages, sorted and disjoint."""
    if not isinstance(ranges, np.ndarray):
        raise BadRequest(f"ranges must be an array u64[k, 2], not {type(ranges).__name__}")
    if ranges.dtype != np.uint64 or ranges.ndim != 2 or ranges.shape[1] != 2:
        raise BadRequest(f"ranges must be u64[k, 2], not {ranges.dtype}{list(ranges.shape)}")
    if (ranges % np.uint64(page)).any():
        raise BadRequest(f"cannot walk part of a page of {page} bytes")
    bounds = ranges.ravel()
    if (bounds[1:] < bounds[:-1]).any():
        raise BadRequest("ranges must be sorted, and must not overlap")


def base_pages(size: U64, page_size: int) -> tuple[I64, I64, U64]:
    """Return the base pages of rows of ``size`` bytes, as three columns.

    By row: how many it has (i64), and where they begin among those of all rows (i64). By base page:
    its number within its row (u64).
    """
    per = (size // np.uint64(page_size)).astype(np.int64)
    first = np.cumsum(per) - per
    return per, first, (np.arange(per.sum()) - np.repeat(first, per)).astype(np.uint64)
