"""Walk a process: a source's leaves, joined with their VMA and their frame, batch by batch."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np

from pagewalk.afterwards import look_back
from pagewalk.errors import BadRequest
from pagewalk.facts import Facts
from pagewalk.outcome import Outcome
from pagewalk.pages import (
    I64,
    U64,
    Backing,
    Counts,
    Leaves,
    Pages,
    Shared,
    State,
    VMAs,
    Withheld,
    join,
    take,
)
from pagewalk.proc.namespace import number_in_proc
from pagewalk.proc.pagemap import PAGE
from pagewalk.proc.stall import BUDGET_NS
from pagewalk.proc.target import open_target
from pagewalk.ranges import check, holder, intersect
from pagewalk.rows import (
    doubt_rows,
    fill,
    hole_counts,
    hole_rows,
    join_batches,
    join_frames,
    sum_batches,
    unpopulated,
)
from pagewalk.sources import Source, open_source
from pagewalk.states import hwpoison

# So many leaves have their frames looked up at once: neighbours in RAM, which one read gets, lie
# far apart in the address space. Their columns take 15 MB.
TOGETHER = 1 << 18
Rows = TypeVar("Rows", bound=Pages | Counts | Shared)

# Modules that would be imported after the process was opened. A caller that drops its rights then
# may no longer be able to read the checkout, or Python itself.
LATER = (
    "gzip", "pagewalk.account", "pagewalk.kmem.condenser", "pagewalk.kmem.counter",
    "pagewalk.kmem.direct",
)


class Walk(NamedTuple):
    """One walk of one process: the VMAs at its start, and the batches to consume, once.

    ``sums`` is for adding up: the same walk, but in no order; many alike pages may come as one row
    of Counts, and those that may be mapped more than once come as Shared as well. Consume either.

    ``facts`` are those of the process's kernel.

    What the source can tell: ``frames``, ``huge`` leaves, ``tables`` (holes by level), ``young``
    pages, ``zeros`` (the zero page from an anonymous one), ``ksm`` pages. ``covered`` i64 bytes of
    each VMA are walked: all of it, unless ranges were asked for.
    """

    pid: int
    name: str
    exe: str | None
    source: str
    facts: Facts
    arch: str
    page_size: int
    frames: bool
    huge: bool
    tables: bool
    young: bool
    zeros: bool
    ksm: bool
    vmas: VMAs
    covered: I64
    batches: Iterator[Pages | Counts]
    sums: Iterator[Pages | Counts | Shared]
    outcome: Outcome


def walk(
    target: int | Source,
    *,
    source: str = "auto",
    frames: bool = True,
    holes: bool = False,
    ranges: U64 | None = None,
    budget_ns: int = BUDGET_NS,
) -> Walk:
    """Walk process ``target`` (a pid, or a Source opened earlier) and return a Walk.

    With ``frames=False`` no page is looked at one by one: batches are Counts, bytes by state, and
    everything that needs a frame is withheld. With ``holes=True`` the batches also hold rows for
    what is not populated. ``ranges`` u64[k, 2] restricts the walk (sorted, half open).

    Nothing is read before the batches are consumed, but the VMAs. Raises BadTarget, ProcessGone,
    NotPermitted, NoAddressSpace, SourceUnavailable, BadRequest for invalid ranges; consuming
    the batches may raise ProcessGone.
    """
    if ranges is not None:
        check(ranges, PAGE)
    opened = open_process(target, source, budget_ns) if isinstance(target, int) else target
    try:
        vmas = opened.vmas()
    except BaseException:
        if isinstance(target, int):
            close(opened)
        raise
    wanted = vmas.ranges if ranges is None else intersect(vmas.ranges, ranges)[0]
    outcome = Outcome(opened.stall, list(opened.withheld))
    if not frames:
        outcome.withheld.append(
            Withheld("pss, uss, distinct, freed and the split by kind", "page frames were not"
                     " requested",
                     partial=False)
        )
    batches: Iterator[Pages | Counts]
    sums: Iterator[Pages | Counts | Shared]
    if frames:
        batches = run(opened, vmas, outcome, page_batches(opened, vmas, wanted, holes=holes))
        sums = run(opened, vmas, outcome, summed(opened, vmas, wanted))
    else:
        counts = opened.counts(vmas, wanted)
        if holes:
            counts = with_absent(counts, covered(vmas, wanted))
        sums = batches = run(opened, vmas, outcome, counts)
    if isinstance(target, int):
        lease = Lease(opened)
        batches, sums = closing(batches, lease), closing(sums, lease)
    return Walk(
        pid=opened.target.pid,
        name=opened.target.name,
        exe=opened.target.exe,
        source=opened.name,
        facts=opened.facts,
        arch=opened.facts.architecture,
        page_size=opened.facts.page_size,
        frames=frames and opened.frames is not None,
        huge=opened.huge,
        tables=opened.tables,
        young=opened.frames is not None and opened.frames.young,
        zeros=opened.huge or opened.frames is not None,
        ksm=opened.frames is not None and opened.frames.ksm,
        vmas=vmas,
        covered=covered(vmas, wanted),
        batches=batches,
        sums=sums,
        outcome=outcome,
    )


def open_process(pid: int, source: str = "auto", budget_ns: int = BUDGET_NS) -> Source:
    """Return process ``pid`` opened by ``source``; rights may be dropped before it is walked.

    The caller gives it back with `close`. Raises what `walk` raises, and BadTarget if ``pid`` means
    one process to the caller and another in /proc.
    """
    for name in LATER:
        importlib.import_module(name)
    return open_listed(number_in_proc(pid), source, budget_ns)


def open_listed(number: int, source: str = "auto", budget_ns: int = BUDGET_NS) -> Source:
    """Return the process that /proc lists as ``number``, opened as open_process does."""
    target = open_target(number)
    try:
        target.keep("maps", "smaps")
        return open_source(source, target, budget_ns)
    except BaseException:
        target.close()
        raise


def close(source: Source) -> None:
    """Give back a source and the target it holds."""
    source.close()
    source.target.close()


class Lease:
    """A source that a walk opened itself: closed once, at the walk's end or when it is dropped.

    Closing it twice would close descriptors that belong to somebody else by then.
    """

    def __init__(self, source: Source) -> None:
        self.source: Source | None = source

    def end(self) -> None:
        """Close the source, unless that was done."""
        source, self.source = self.source, None
        if source is not None:
            close(source)

    def __del__(self) -> None:
        # A generator that was never started runs no `finally`.
        self.end()


def closing(batches: Iterator[Rows], lease: Lease) -> Iterator[Rows]:
    if lease.source is None:
        raise BadRequest("this walk is over: its batches or its sums can be consumed only once")
    try:
        yield from batches
    finally:
        lease.end()


def covered(vmas: VMAs, wanted: U64) -> I64:
    # How much of each VMA the walk is about, bytes.
    out = np.zeros(len(vmas), np.int64)
    size = (wanted[:, 1] - wanted[:, 0]).astype(np.int64)
    np.add.at(out, holder(wanted[:, 0], vmas.ranges), size)
    return out


def with_absent(batches: Iterator[Counts], whole: I64) -> Iterator[Counts]:
    # The batches and, at the end, what of each VMA none of them covers.
    left = whole.copy()
    for batch in batches:
        np.subtract.at(left, batch.vma, batch.size.astype(np.int64))
        yield batch
    row = np.flatnonzero(left > 0)
    state = np.full(len(row), State.ABSENT.value, np.uint8)
    yield Counts(row, state, np.zeros(len(row), np.uint32), left[row].astype(np.uint64))


def run(
    source: Source, vmas: VMAs, outcome: Outcome, batches: Iterator[Rows]
) -> Iterator[Rows]:
    # The walk proper; what can only be known at its end goes into `outcome`.
    keep_freed_memory()
    doubtful = 0
    for batch in batches:
        if not isinstance(batch, Shared):
            doubtful += int(batch.size[batch.state == State.DOUBT.value].sum())
            note_hwpoison(vmas, outcome, batch)
        yield batch
        del batch  # or it stays in memory while the next one is made
    if doubtful:
        outcome.withheld.append(
            Withheld(
                f"{doubtful} bytes",
                "malformed page-table entries, still malformed when read again: the tables changed"
                " during the walk, or are corrupt; pages --where doubt lists them",
                partial=True,
            )
        )
    look_back(source, vmas, outcome)


def note_hwpoison(vmas: VMAs, outcome: Outcome, batch: Pages | Counts) -> None:
    rows = np.flatnonzero(batch.state == State.POISONED.value)
    if len(rows):
        rows = rows[hwpoison(batch.flags[rows])]
        vma = batch.vma[rows]
        outcome.hwpoison.update(vma[vmas.backing[vma] != Backing.HUGETLB.value].tolist())


def keep_freed_memory() -> None:
    # glibc gives a batch's memory back to the kernel after each batch, and to fault it in again
    # costs a third of a walk. Its threshold follows the largest piece freed: free one, untouched.
    np.empty(31 << 20, np.uint8)


def page_batches(source: Source, vmas: VMAs, wanted: U64, *, holes: bool) -> Iterator[Pages]:
    # Every page, in address order.
    if source.tables:
        return table_pages(source, vmas, wanted, in_order=holes)
    return filled(source, vmas, wanted) if holes else leaf_pages(source, vmas, wanted)


def summed(source: Source, vmas: VMAs, wanted: U64) -> Iterator[Pages | Counts | Shared]:
    # What adds up to the same. Small pieces are put together before their frames are looked up.
    waiting: list[Leaves] = []
    for part in source.sums(vmas, wanted):
        if isinstance(part, Counts | Shared):
            yield part
            continue
        if len(part.holes):
            yield hole_counts(vmas, part.holes)
        if len(part.doubts):
            yield doubt_rows(vmas, part.doubts)
        if len(part.leaves):
            waiting.append(part.leaves)
        if sum(map(len, waiting)) >= TOGETHER:
            yield from sum_sorted(source, vmas, waiting)
            waiting = []
    if waiting:
        yield from sum_sorted(source, vmas, waiting)


def sum_sorted(
    source: Source, vmas: VMAs, waiting: list[Leaves]
) -> Iterator[Pages | Counts | Shared]:
    if source.tables:
        leaves = join(waiting)
        waiting = [take(leaves, np.argsort(leaves.addr, kind="stable"))]
    return sum_batches(vmas, waiting, source.frames)


def leaf_pages(source: Source, vmas: VMAs, wanted: U64) -> Iterator[Pages]:
    # Batches of what is populated.
    waiting: list[Leaves] = []
    for batch in source.leaves(vmas, wanted):
        waiting.append(batch.leaves)
        if sum(map(len, waiting)) >= TOGETHER:
            yield from join_batches(vmas, waiting, source.frames)
            waiting = []
    if waiting:
        yield from join_batches(vmas, waiting, source.frames)


def table_pages(source: Source, vmas: VMAs, wanted: U64, *, in_order: bool) -> Iterator[Pages]:
    # Batches with a row for each hole and doubt too; who only looks at leaves minds no order.
    for batch in source.leaves(vmas, wanted):
        parts = [join_frames(vmas, batch.leaves, source.frames)] if len(batch.leaves) else []
        if len(batch.holes):
            parts.append(hole_rows(vmas, batch.holes))
        if len(batch.doubts):
            parts.append(doubt_rows(vmas, batch.doubts))
        if not in_order:
            yield from parts
        elif parts:
            rows = join(parts)
            yield take(rows, np.argsort(rows.addr, kind="stable"))


def filled(source: Source, vmas: VMAs, wanted: U64) -> Iterator[Pages]:
    # Batches with ABSENT rows between the leaves, for a source that cannot tell holes apart.
    at = 0
    for pages in leaf_pages(source, vmas, wanted):
        if len(pages):
            end = int(pages.addr[-1] + pages.size[-1])
            yield fill(vmas, pages, at, end, wanted)
            at = end
    none = np.zeros(0, np.uint64)
    rest = fill(vmas, unpopulated(vmas, none, none, none.astype(np.uint8)), at, 1 << 64, wanted)
    if len(rest):
        yield rest
