"""Pages as runs of pages that are alike, and back: what a recording holds of an address space."""

from __future__ import annotations

import numpy as np

from pagewalk.model.columns import I64, U8, U32, U64, Bool, Flag, Pages, Rows, State, take
from pagewalk.model.rules import HAS_ENTRY
from pagewalk.model.soft import pack

# From here on a frame's number is not its place in RAM, but one that it was given when it was first
# met: no physical address has so many bits (52 at most, on any architecture here).
ANEW = 1 << 52
SWAP_STEP = int(pack(0, 1))


class Runs(Rows):
    """Runs of pages by ascending address: the i-th page of a run is at ``addr + i * unit``.

    As in Pages, but ``size`` u64 is that of all pages of the run, ``unit`` u64 that of each, and
    ``pfn`` rises by ``step`` (u64) from page to page. ``entry`` is of DOUBT only, else 0.
    """

    addr: U64
    size: U64
    unit: U64
    vma: I64
    state: U8
    level: U8
    flags: U32
    entry: U64
    pfn: U64 | None
    step: U64
    kflags: U64 | None
    mapcount: U64 | None


def runs_of(pages: Pages, page_size: int) -> Runs:
    """Return ``pages`` (sorted by address) as runs."""
    step = steps(pages, page_size)
    first = np.flatnonzero(begins(pages, step))
    size = np.add.reduceat(pages.size, first) if len(first) else pages.size
    state = pages.state[first]
    entry = np.where(state == State.DOUBT.value, pages.entry[first], np.uint64(0))

    def at(column: U64 | None) -> U64 | None:
        return None if column is None else column[first]

    return Runs(
        pages.addr[first], size, pages.size[first], pages.vma[first], state, pages.level[first],
        pages.flags[first], entry, at(pages.pfn), step[first],
        at(pages.kflags), at(pages.mapcount),
    )


def steps(pages: Pages, page_size: int) -> U64:
    # By how much the number of the next page of a run is higher.
    step = pages.size >> np.uint64(page_size.bit_length() - 1)
    step[(pages.state == State.ZERO.value) | ~HAS_ENTRY[pages.state]] = 0
    step[pages.flags & np.uint32(Flag.SWAP) != 0] = SWAP_STEP
    return step


def begins(pages: Pages, step: U64) -> Bool:
    """Return which of ``pages`` begin a run; what has no entry is one of its own."""
    new = np.ones(len(pages), bool)
    alone = ~HAS_ENTRY[pages.state] | (pages.state == State.DOUBT.value)
    same = ~alone[1:] & (pages.addr[1:] == pages.addr[:-1] + pages.size[:-1])
    for column in (pages.vma, pages.state, pages.size, pages.flags, pages.kflags, pages.mapcount,
                   pages.level):
        if column is not None:
            same &= column[1:] == column[:-1]
    if pages.pfn is not None:
        same &= pages.pfn[1:] == pages.pfn[:-1] + step[:-1]
    new[1:] = ~same
    return new


def pages_of(runs: Runs) -> Pages:
    """Return the pages of ``runs``, each a row."""
    times = (runs.size // np.maximum(runs.unit, np.uint64(1))).astype(np.int64)
    row = np.repeat(np.arange(len(runs)), times)
    first = np.cumsum(times) - times
    nth = (np.arange(len(row)) - first[row]).astype(np.uint64)
    pfn = None if runs.pfn is None else runs.pfn[row] + nth * runs.step[row]
    return Pages(
        runs.addr[row] + nth * runs.unit[row], runs.unit[row], runs.vma[row], runs.state[row],
        runs.level[row], runs.flags[row], runs.entry[row], pfn,
        None if runs.kflags is None else runs.kflags[row],
        None if runs.mapcount is None else runs.mapcount[row],
    )


def within(pages: Pages, ranges: U64, page_size: int) -> Pages:
    """Return the parts of ``pages`` inside ``ranges`` (u64[k, 2], sorted)."""
    from pagewalk.model.ranges import intersect

    end = pages.addr + pages.size
    at = np.searchsorted(ranges[:, 0], pages.addr, "right") - 1
    if len(ranges) and (at >= 0).all() and (end <= ranges[at, 1]).all():
        return pages
    both = np.stack([pages.addr, end], axis=1)
    pieces, row, _ = intersect(both, ranges)
    found = take(pages, row)
    into = (pieces[:, 0] - found.addr) // np.uint64(page_size)
    pfn = found.pfn
    if pfn is not None:
        framed = HAS_ENTRY[found.state] & (found.flags & np.uint32(Flag.SWAP) == 0)
        pfn = pfn + np.where(framed, into, np.uint64(0))
    return Pages(pieces[:, 0], pieces[:, 1] - pieces[:, 0], found.vma, found.state, found.level,
                 found.flags, found.entry, pfn, found.kflags, found.mapcount)
