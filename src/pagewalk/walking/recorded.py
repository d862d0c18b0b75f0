"""A walk of what was recorded: its runs as pages, or as sums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np

from pagewalk.model.columns import Amounts, Pages, State, Sums, take
from pagewalk.model.rules import SIZES
from pagewalk.model.states import maybe_repeated
from pagewalk.snapshot.runs import Runs, pages_of, within
from pagewalk.sources.space import Joined
from pagewalk.walking.rows import Asked
from pagewalk.walking.sums import add_up, shared_rows

TOGETHER = 1 << 17  # pages in a batch


def recorded_pages(asked: Asked) -> Iterator[Pages]:
    """Yield every page that is asked for, in address order."""
    assert isinstance(asked.space, Joined)
    for runs in asked.space.runs():
        for some in pieces(wanted(runs, asked)):
            pages = within(pages_of(some), asked.ranges, asked.page_size)
            if len(pages):
                yield pages if asked.frames else without_frames(pages)


def recorded_sums(asked: Asked) -> Iterator[Sums]:
    """Yield the sums of what is asked for, in no order."""
    assert isinstance(asked.space, Joined)
    whole = len(asked.ranges) == len(asked.vmas) and bool(
        (asked.ranges == asked.vmas.ranges).all())
    if not whole:
        for pages in recorded_pages(asked):
            yield from add_up(pages, asked.page_size)
        return
    for every in asked.space.runs():
        runs = wanted(every, asked)
        if not len(runs):
            continue
        amounts = amounts_of(runs)
        if not asked.frames:
            yield Sums(Amounts(amounts.vma, SIZES[amounts.state], amounts.level, amounts.flags,
                               amounts.size))
            continue
        yield Sums(amounts)
        if runs.pfn is None or amounts.mapcount is None:
            continue
        for some in pieces(take(runs, maybe_repeated(amounts))):
            for shared in shared_rows(pages_of(some), asked.page_size):
                yield Sums(shared=shared)


def amounts_of(runs: Runs) -> Amounts:
    """Return ``runs`` as Amounts."""
    return Amounts(runs.vma, runs.state, runs.level, runs.flags, runs.size, runs.kflags,
                   runs.mapcount)


def wanted(runs: Runs, asked: Asked) -> Runs:
    # Without page tables, what is not populated is only a row if that is asked for.
    if asked.holes or asked.space.tells.tables:
        return runs
    return take(runs, runs.state != State.ABSENT.value)


def without_frames(pages: Pages) -> Pages:
    return replace(pages, state=SIZES[pages.state], kflags=None, mapcount=None)


def pieces(runs: Runs) -> Iterator[Runs]:
    """Yield ``runs`` in parts of about TOGETHER pages; a longer run is cut."""
    times = (runs.size // np.maximum(runs.unit, np.uint64(1))).astype(np.int64)
    ends = [*(np.flatnonzero(np.diff(np.cumsum(times) // TOGETHER)) + 1).tolist(), len(runs)]
    for first, end in pairwise([0, *ends]):
        some = take(runs, slice(first, end))
        if len(some) == 1 and times[first] > TOGETHER:
            yield from cut(some, int(times[first]))
        elif len(some):
            yield some


def cut(run: Runs, pages: int) -> Iterator[Runs]:
    for first in range(0, pages, TOGETHER):
        part = take(run, np.zeros(1, np.int64))
        part.addr[:] += np.uint64(first) * run.unit
        part.size[:] = np.uint64(min(TOGETHER, pages - first)) * run.unit
        if part.pfn is not None:
            part.pfn[:] += np.uint64(first) * run.step
        yield part
