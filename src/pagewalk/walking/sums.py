"""Pages as sums: equal neighbours as one row, and the pages that may be mapped twice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pagewalk.model.columns import (
    NO_AMOUNTS,
    U8,
    U64,
    Amounts,
    Keeper,
    Pages,
    Shared,
    State,
    Sums,
    alike,
    take,
)
from pagewalk.model.rules import KEEPERS
from pagewalk.model.states import has, maybe_repeated, untold

TOGETHER = 1 << 17  # base pages in one batch of Shared: their columns fit in the cache


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
    yield from base_pages(whole, np.flatnonzero(large), page_size)


def base_pages(whole: Shared, large: np.ndarray, page_size: int) -> Iterator[Shared]:
    # The base pages of the rows `large`, TOGETHER at a time.
    per = (whole.size[large] // np.uint64(page_size)).astype(np.int64)
    cut = np.flatnonzero(np.diff(np.cumsum(per) // TOGETHER)) + 1
    for some, each in zip(np.split(large, cut), np.split(per, cut), strict=True):
        part = take(whole, np.repeat(some, each))
        step = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
        part.pfn[:] += step.astype(np.uint64)
        part.size[:] = page_size
        yield part
