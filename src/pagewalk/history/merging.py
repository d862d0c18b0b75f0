"""Two address spaces side by side: runs of pages by ascending address, compared as they stream.

What is held is a batch of each. Both are laid on one line, on which the parts of them that
correspond to one another (Sections) stand at the same place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from pagewalk.history.changes import COUNT, Ranges, Told, classify
from pagewalk.model.columns import F64, I64, U8, U32, U64, Bool, Rows, State, join, take
from pagewalk.model.ranges import intersect
from pagewalk.model.rules import HAS_ENTRY, IN_RSS
from pagewalk.model.states import hwpoison
from pagewalk.snapshot.runs import Runs

END = np.uint64(2**64 - 1)
NO_ENTRY = State.ABSENT.value


class Sections(Rows):
    """What corresponds: ``size`` u64 bytes from ``before`` u64 on in the one and from ``after`` on.

    ``vma`` and ``vma_after`` i64 are the VMAs that they lie in. Both addresses ascend.
    """

    before: U64
    after: U64
    size: U64
    vma: I64
    vma_after: I64

    @property
    def line(self) -> U64:
        """Return where each stands on the line on which both sides are laid, u64."""
        ends: U64 = np.cumsum(self.size, dtype=np.uint64)
        return ends - self.size


def no_sections() -> Sections:
    """Return no sections at all: nothing corresponds."""
    words, rows = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    return Sections(words, words, words, rows, rows)


class Pieces(Rows):
    """Runs, or parts of them, on the line: from ``start`` u64 to ``end``, in section ``at`` i64.

    ``rss`` says whether Rss counts them; the others are as in Ranges.
    """

    start: U64
    end: U64
    at: I64
    rss: Bool
    state: U8
    flags: U32
    frame: U64 | None
    mapcount: U64 | None


class Amounts:
    """Bytes by VMA, i64, of one side: ``rss``, ``swap`` and ``hugetlb``."""

    def __init__(self, vmas: int) -> None:
        self.rss, self.swap, self.hugetlb = (np.zeros(vmas, np.int64) for _ in range(3))

    def add(self, vma: I64, state: U8, rss: Bool, size: U64) -> None:
        """Add ranges of ``size`` bytes in ``state``."""
        for sums, counted in ((self.rss, rss), (self.swap, state == State.SWAPPED.value),
                              (self.hugetlb, state == State.HUGETLB.value)):
            add_up(sums, vma[counted], size[counted])


    def of(self, vma: int) -> tuple[int, int, int]:
        """Return the RSS, the swap and the hugetlb pages of VMA ``vma``."""
        return int(self.rss[vma]), int(self.swap[vma]), int(self.hugetlb[vma])


class Stream:
    """A process of one side while it is read.

    ``whole`` is what it has by VMA, ``rest`` what of that is in no section. ``poison``: Rss
    counts entries of pages lost to a memory error.
    """

    def __init__(
        self, runs: Iterable[Runs], start: U64, sections: Sections, vmas: int, page: int,
        poison: bool,
    ) -> None:
        self.runs, self.start, self.sections = runs, start, sections
        self.page, self.poison = np.uint64(page), poison
        self.line = sections.line
        self.ranges = np.stack([start, start + sections.size], axis=1)
        self.whole, self.rest = Amounts(vmas), Amounts(vmas)

    def pieces(self) -> Iterator[Pieces]:
        """Yield what is in sections, by ascending place on the line."""
        for every in self.runs:
            runs = take(every, HAS_ENTRY[every.state])
            rss = IN_RSS[runs.state]
            if self.poison:
                rss |= hwpoison(runs.flags)
            self.whole.add(runs.vma, runs.state, rss, runs.size)
            found = self.placed(runs, rss)
            if len(found):
                yield found

    def placed(self, runs: Runs, rss: Bool) -> Pieces:
        # The parts of runs that are in sections; of the others the amounts are added up.
        row, at = np.arange(len(runs)), self.section(runs)
        low, high = runs.addr, runs.addr + runs.size
        if (at < 0).any():
            pieces, row, at = intersect(np.stack([low, high], axis=1), self.ranges)
            left = runs.size.astype(np.int64)
            add_up(left, row, pieces[:, 1] - pieces[:, 0], -1)
            some = left > 0
            self.rest.add(runs.vma[some], runs.state[some], rss[some],
                          left[some].astype(np.uint64))
            low, high = pieces[:, 0], pieces[:, 1]
        place = self.line[at] + (low - self.start[at])
        frame = runs.pfn
        if frame is not None:
            frame = frame[row] + (low - runs.addr[row]) // self.page
        return Pieces(
            place, place + (high - low), at, rss[row], runs.state[row], runs.flags[row], frame,
            None if runs.mapcount is None else runs.mapcount[row],
        )

    def read(self) -> None:
        """Read it to its end, for its amounts alone."""
        for _ in self.pieces():
            pass

    def section(self, runs: Runs) -> I64:
        # The section that each run is in as a whole, -1 for the others.
        if not len(self.start):
            return np.full(len(runs), -1)
        at = np.searchsorted(self.start, runs.addr, side="right").astype(np.int64) - 1
        inside = (at >= 0) & (runs.addr + runs.size <= self.ranges[at, 1])
        return np.where(inside, at, -1)


class Changes:
    """What became of each section: bytes by class, and by how much each class changed the RSS.

    ``bytes`` and ``rss`` are i64[sections, classes]; ``swap`` and ``hugetlb`` i64 by section, by
    how much they changed.
    """

    def __init__(self, sections: int) -> None:
        self.bytes, self.rss = (np.zeros((sections, COUNT), np.int64) for _ in range(2))
        self.swap, self.hugetlb = (np.zeros(sections, np.int64) for _ in range(2))

    def add(self, before: Pieces, after: Pieces, told: Told) -> None:
        """Add what is side by side; see aligned."""
        if not len(before):
            return
        found = classify(ranges_of(before), ranges_of(after), told)
        size, at = before.end - before.start, before.at
        here = slice(int(at[0]), int(at[-1]) + 1)
        key = (at - here.start) * COUNT + found
        add_up(self.bytes[here], key, size)
        for sign, side in ((-1, before), (1, after)):
            add_up(self.rss[here], key[side.rss], size[side.rss], sign)
            for sums, state in ((self.swap, State.SWAPPED.value),
                                (self.hugetlb, State.HUGETLB.value)):
                some = side.state == state
                add_up(sums, at[some], size[some], sign)


def ranges_of(pieces: Pieces) -> Ranges:
    return Ranges(pieces.state, pieces.flags, pieces.frame, pieces.mapcount)


def add_up(sums: I64, key: I64, size: U64, sign: int = 1) -> None:
    """Add ``size`` times ``sign`` to the elements ``key`` of ``sums``, in its flat order."""
    if not len(key):
        return
    weights: F64 = size.astype(np.float64)  # exact below 2**53 bytes, more than any process has
    first = int(key.min())
    found = np.bincount(key - first, weights).astype(np.int64)
    sums.reshape(-1)[first : first + len(found)] += sign * found


def merged(before: Stream, after: Stream, told: Told) -> Changes:
    """Read both sides to their ends and return what became of each section."""
    changes = Changes(len(before.sections))
    for one, other in side_by_side(before.pieces(), after.pieces(), before.page):
        changes.add(one, other, told)
    return changes


def side_by_side(
    before: Iterator[Pieces], after: Iterator[Pieces], page: np.uint64
) -> Iterator[tuple[Pieces, Pieces]]:
    """Yield what both have, cut at every edge of either; see aligned."""
    streams, held = (before, after), [next(before, None), next(after, None)]
    while held != [None, None]:
        reach = min((one.end[-1] for one in held if one is not None), default=END)
        parts: list[Pieces] = []
        for at, one in enumerate(held):
            if one is None:
                parts.append(no_pieces())
                continue
            part, rest = divided(one, reach, page)
            parts.append(part)
            held[at] = rest if len(rest) else next(streams[at], None)
        yield aligned(parts[0], parts[1], page)


def divided(pieces: Pieces, place: np.uint64, page: np.uint64) -> tuple[Pieces, Pieces]:
    """Return ``pieces`` below ``place`` and from there on; one that crosses it is cut."""
    below = int(np.searchsorted(pieces.start, place))
    first, rest = take(pieces, slice(0, below)), take(pieces, slice(below, None))
    if below and first.end[-1] > place:
        crossing = take(first, slice(below - 1, below))
        into = (place - crossing.start) // page
        cut = replace(crossing, start=np.array([place]),
                      frame=None if crossing.frame is None else crossing.frame + into)
        ends = first.end.copy()
        ends[-1] = place
        first, rest = replace(first, end=ends), join([cut, rest]) if len(rest) else cut
    return first, rest


def aligned(before: Pieces, after: Pieces, page: np.uint64) -> tuple[Pieces, Pieces]:
    """Return both, cut at every edge of either, side by side; where one has nothing it is ABSENT.

    Both are sorted and do not overlap themselves.
    """
    edges = np.concatenate([before.start, before.end, after.start, after.end])
    edges.sort(kind="stable")  # of four sorted pieces: merges them
    new = np.ones(len(edges), bool)
    new[1:] = edges[1:] != edges[:-1]
    edges = edges[new]
    low, high = edges[:-1], edges[1:]
    rows, there = zip(*(within(side, low) for side in (before, after)), strict=True)
    keep = there[0] | there[1]
    low, high = low[keep], high[keep]
    one, other = (spread(side, row[keep], has[keep], low, high, page)
                  for side, row, has in zip((before, after), rows, there, strict=True))
    at = np.where(there[0][keep], one.at, other.at)
    return replace(one, at=at), replace(other, at=at)


def within(pieces: Pieces, low: U64) -> tuple[I64, Bool]:
    """Return the row of the piece in which each address of ``low`` is, and whether it is in one."""
    row = np.searchsorted(pieces.start, low, side="right").astype(np.int64) - 1
    if not len(pieces):
        return row, np.zeros(len(low), bool)
    return row, (row >= 0) & (low < pieces.end[row])


def spread(
    pieces: Pieces, row: I64, has: Bool, low: U64, high: U64, page: np.uint64
) -> Pieces:
    # The parts of pieces from low to high; nothing where they have none.
    if not len(pieces):
        none = np.zeros(len(low), np.uint64)
        return Pieces(low, high, none.astype(np.int64), has, np.full(len(low), NO_ENTRY, np.uint8),
                      none.astype(np.uint32), none, none)
    found = take(pieces, row)
    into = np.where(has, low - found.start, np.uint64(0)) // page
    return Pieces(
        low, high, found.at, found.rss & has,
        np.where(has, found.state, np.uint8(NO_ENTRY)), found.flags,
        None if found.frame is None else found.frame + into, found.mapcount,
    )


def no_pieces() -> Pieces:
    words = np.zeros(0, np.uint64)
    return Pieces(words, words, words.astype(np.int64), words.astype(bool), words.astype(np.uint8),
                  words.astype(np.uint32), words, words)
