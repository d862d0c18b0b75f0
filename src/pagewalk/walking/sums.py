"""A walk as sums: equal neighbours as one row, and the pages that may be mapped twice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pagewalk.model.columns import (
    NO_AMOUNTS,
    U8,
    U64,
    Amounts,
    Holes,
    Keeper,
    Leaves,
    Pages,
    Shared,
    State,
    Sums,
    VMAs,
    alike,
    join,
    take,
)
from pagewalk.model.ranges import base_pages, holder
from pagewalk.model.rules import HOLE_STATES, KEEPERS
from pagewalk.model.states import classify, has, maybe_repeated, untold
from pagewalk.walking.rows import Asked, doubt_rows, enough, join_columns, join_looked_up, look_up

TOGETHER = 1 << 17  # base pages in one batch of Shared: their columns fit in the cache


def summed(asked: Asked) -> Iterator[Sums]:
    """Yield the sums of what is asked for, in no order."""
    if not asked.holes:
        yield from parts(asked)
        return
    left = asked.covered()
    for sums in parts(asked):
        np.subtract.at(left, sums.amounts.vma, sums.amounts.size.astype(np.int64))
        yield sums
    row = np.flatnonzero(left > 0)
    if len(row):
        nothing = np.zeros(len(row), np.uint8)
        state = np.full(len(row), State.ABSENT.value, np.uint8)
        size = left[row].astype(np.uint64)
        yield Sums(Amounts(row, state, nothing, nothing.astype(np.uint32), size))


def parts(asked: Asked) -> Iterator[Sums]:
    # Small pieces are combined before their frames are looked up.
    waiting: list[Leaves] = []
    unframed: list[Amounts] = []  # a row or two each
    for part in asked.space.sums(asked.vmas, asked.ranges, frames=asked.frames):
        entries, (amounts, shared) = part.entries, part.sums
        if amounts.kflags is not None or len(shared):
            yield part.sums
        elif len(amounts):
            unframed.append(amounts)
        if len(entries.holes):
            unframed.append(hole_amounts(asked.vmas, entries.holes))
        if len(entries.doubts):
            yield from add_up(doubt_rows(asked.vmas, entries.doubts), asked.page_size)
        if len(entries.leaves):
            waiting.append(entries.leaves)
        if enough(waiting):
            yield from sum_waiting(asked, waiting)
            waiting = []
        if enough(unframed):
            yield Sums(join(unframed))
            unframed = []
    if waiting:
        yield from sum_waiting(asked, waiting)
    if unframed:
        yield Sums(join(unframed))


def sum_waiting(asked: Asked, waiting: list[Leaves]) -> Iterator[Sums]:
    if asked.space.tells.tables:  # they are unordered
        leaves = join(waiting)
        waiting = [take(leaves, np.argsort(leaves.addr, kind="stable"))]
    return sum_batches(asked, waiting)


def sum_batches(asked: Asked, batches: list[Leaves]) -> Iterator[Sums]:
    """Yield the sums of ``batches``, with equal neighbouring base pages as one row."""
    base = asked.page_size.bit_length() - 1
    for leaves, kflags, mapcount in look_up(asked, batches):
        if kflags is None or mapcount is None or (leaves.shift != base).any():
            yield from add_up(join_looked_up(asked, leaves, kflags, mapcount), asked.page_size)
            continue
        amounts = sum_alike(asked, leaves, kflags, mapcount)
        yield Sums(amounts)
        times = (amounts.size // np.uint64(asked.page_size)).astype(np.int64)
        rows = np.flatnonzero(np.repeat(maybe_repeated(amounts), times))
        if len(rows):
            pages = join_columns(asked, take(leaves, rows), kflags[rows], mapcount[rows])
            yield from (Sums(shared=shared) for shared in shared_rows(pages, asked.page_size))


def sum_alike(asked: Asked, leaves: Leaves, kflags: U64, mapcount: U64) -> Amounts:
    edges = np.searchsorted(leaves.addr, asked.vmas.start)
    first = alike(leaves.flags, kflags, mapcount, also=edges)
    vma = np.searchsorted(edges, first, side="right") - 1
    flags, kflags = leaves.flags[first], kflags[first]
    size = np.diff(first, append=len(leaves)).astype(np.uint64) * np.uint64(asked.page_size)
    state = classify(flags, asked.vmas.backing[vma], kflags)
    return Amounts(vma, state, np.zeros_like(state), flags, size, kflags, mapcount[first])


def hole_amounts(vmas: VMAs, holes: Holes) -> Amounts:
    """Return ``holes`` as Amounts, with the states of rows.hole_rows."""
    flags = np.zeros(len(holes), np.uint32)
    vma = holder(holes.addr, vmas.ranges)
    return Amounts(vma, HOLE_STATES[holes.level], holes.level, flags, holes.size)


def add_up(pages: Pages, page_size: int) -> Iterator[Sums]:
    """Yield ``pages`` as Sums."""
    if len(pages):
        yield Sums(squeeze(pages))
        for shared in shared_rows(pages, page_size):
            yield Sums(NO_AMOUNTS, shared)


def squeeze(pages: Pages) -> Amounts:
    """Return ``pages`` (one or more) with neighbours that count alike as one row."""
    first = alike(pages.vma, pages.state, pages.level, pages.flags, pages.kflags, pages.mapcount)
    kflags = None if pages.kflags is None else pages.kflags[first]
    mapcount = None if pages.mapcount is None else pages.mapcount[first]
    return Amounts(
        pages.vma[first], pages.state[first], pages.level[first], pages.flags[first],
        np.add.reduceat(pages.size, first), kflags, mapcount,
    )


def keepers(state: U8, kflags: U64) -> U8:
    """Return what keeps each page in RAM (u8, Keeper)."""
    keeper = KEEPERS[state]
    keeper[(state == State.HUGETLB.value) & has(kflags, "anon")] = Keeper.MAPPINGS.value
    return keeper


def shared_rows(pages: Pages, page_size: int) -> Iterator[Shared]:
    """Yield those of ``pages`` that this process may map more than once, one row per base page.

    A hugetlb page is one row. If another process shares its page table, it is not known how often
    the page is mapped: ``mapcount`` is then 0, as for a page that is migrating. For a frame that
    the frame database does not know it is 1, as in uss.
    """
    if pages.pfn is None or pages.mapcount is None or pages.kflags is None:
        return
    rows = np.flatnonzero(maybe_repeated(pages))
    if len(rows) == 0:
        return
    if len(rows) < len(pages):  # a copy takes 60 bytes a page
        pages = take(pages, rows)
    assert pages.pfn is not None and pages.mapcount is not None and pages.kflags is not None
    mapcount = np.where(pages.mapcount == 1, np.uint64(0), pages.mapcount)
    silent = untold(pages.kflags) & (pages.state != State.MIGRATING.value)
    mapcount[silent & (mapcount == 0)] = 1
    keeper = keepers(pages.state, pages.kflags)
    whole = Shared(pages.vma, pages.pfn, pages.size, mapcount, keeper)
    large = (pages.size > page_size) & (pages.state != State.HUGETLB.value)
    if not large.any():
        yield whole
        return
    yield take(whole, ~large)
    rows = np.flatnonzero(large)
    per, _, _ = base_pages(pages.size[rows], page_size)
    for some in np.split(rows, np.flatnonzero(np.diff(np.cumsum(per) // TOGETHER)) + 1):
        per, _, step = base_pages(pages.size[some], page_size)
        part = take(whole, np.repeat(some, per))
        part.pfn[:] += step
        part.size[:] = page_size
        yield part
