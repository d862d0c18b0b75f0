"""Compare two walks of one process, page by page and VMA by VMA. No I/O of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from pagewalk.account import Table, by_vma
from pagewalk.pages import I64, U64, Backing, Bool, Pages, State, VMAs, take
from pagewalk.proc.pagemap import PAGE
from pagewalk.ranges import gaps, inside, intersect
from pagewalk.sources import Source
from pagewalk.states import untold
from pagewalk.walking import walk

VM_PFNMAP = np.uint64(0x400)  # include/linux/mm.h
MOST_LISTED = 1000


@dataclass(frozen=True, eq=False)
class Difference:
    """One stretch of pages, or one amount of a VMA, on which the two sources differ.

    ``addr`` and ``size`` bytes; ``what`` names the column; ``first`` and ``second`` are what each
    source says, None where it says nothing.
    """

    addr: int
    size: int
    what: str
    first: str | None
    second: str | None


@dataclass(eq=False)
class Report:
    """What a comparison found; ``pages`` base pages, ``fields`` amounts of VMAs were compared.

    ``left_out`` are the VMAs that one of the sources never shows; ``moved`` counts differences
    that were gone when their pages were walked again; ``more`` those beyond MOST_LISTED.
    """

    first: str
    second: str
    pages: int = 0
    fields: int = 0
    moved: int = 0
    more: int = 0
    differences: list[Difference] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def check(first: Source, second: Source, rounds: int = 4) -> Report:
    """Walk one process by two sources and return a Report.

    What differs is walked again, ``rounds`` times at most, for a page may have changed between
    the two; on a stopped process a difference that stays is real. Raises what walk raises.
    """
    report = Report(first.name, second.name)
    vmas = first.vmas()
    report.left_out, ranges = comparable(vmas)
    found = list(page_differences(first, second, ranges, report, count=True))
    for _ in range(rounds):
        if not found:
            break
        again = list(page_differences(first, second, touched(found, vmas), report, count=False))
        report.moved += max(len(found) - len(again), 0)
        found = again
    keep(report, found)
    keep(report, table_differences(first, second, vmas, report, rounds))
    return report


def keep(report: Report, found: list[Difference]) -> None:
    room = MOST_LISTED - len(report.differences)
    report.differences.extend(found[:room])
    report.more += max(len(found) - room, 0)


def comparable(vmas: VMAs) -> tuple[list[str], U64]:
    """Return the names of the VMAs procfs shows nothing of, and the ranges of the others."""
    hidden: Bool = vmas.backing == Backing.HIDDEN.value
    if vmas.flags is not None:
        hidden = hidden | (vmas.flags & VM_PFNMAP != 0)
    names = [vmas.name[row] or "[anon]" for row in np.flatnonzero(hidden).tolist()]
    return names, vmas.ranges[~hidden]


def touched(found: list[Difference], vmas: VMAs) -> U64:
    spans = np.array(sorted({(d.addr, d.addr + d.size) for d in found}), np.uint64).reshape(-1, 2)
    apart = np.ones(len(spans), bool)
    apart[1:] = spans[1:, 0] >= np.maximum.accumulate(spans[:-1, 1])
    return intersect(vmas.ranges, spans[apart])[0]


def page_differences(
    first: Source, second: Source, ranges: U64, report: Report, *, count: bool
) -> Iterator[Difference]:
    """Yield every stretch of pages in ``ranges`` on which two fresh walks differ."""
    walks = [populated(source, ranges) for source in (first, second)]
    for one, other in side_by_side(*walks):
        if count:
            report.pages += int(one.size.sum()) // PAGE
        yield from differing(one, other)


def populated(source: Source, ranges: U64) -> Iterator[Pages]:
    # What has an entry, by address; how a source splits holes is its own affair.
    for batch in walk(source, ranges=ranges).batches:
        assert isinstance(batch, Pages)
        rows = np.isin(batch.state, NO_ENTRY, invert=True)
        if rows.any():
            yield take(batch, rows)


# Two sources may rightly differ in what they cannot tell, and in what that makes of the rest.
NOT_COMPARED = ("not_present", "hidden", "untold")
NO_ENTRY = (State.EMPTY, State.NOT_MAPPED, State.ABSENT)


def side_by_side(
    first: Iterator[Pages], second: Iterator[Pages]
) -> Iterator[tuple[Pages, Pages]]:
    """Yield pairs of batches cut at the same addresses; one of a pair may be empty."""
    streams = [first, second]
    waiting: list[Pages | None] = [next(first, None), next(second, None)]
    while any(batch is not None for batch in waiting):
        full = [batch for batch in waiting if batch is not None]
        # up to where both are known: the lesser of their ends
        end = min(int(batch.addr[-1] + batch.size[-1]) for batch in full)
        pair = []
        for which, batch in enumerate(waiting):
            source = batch if batch is not None else take(full[0], slice(0))
            here = source.addr < np.uint64(end)
            pair.append(take(source, here))
            left = take(source, ~here)
            waiting[which] = left if len(left) else next(streams[which], None)
        if len(pair[0]) or len(pair[1]):
            yield pair[0], pair[1]


def differing(first: Pages, second: Pages) -> Iterator[Difference]:
    spans = [np.stack([rows.addr, rows.addr + rows.size], axis=1) for rows in (first, second)]
    pieces, one, other = intersect(*spans)
    for name, same, values in compared(first, second, pieces, one, other):
        for row in np.flatnonzero(~same).tolist():
            addr, size = int(pieces[row, 0]), int(pieces[row, 1] - pieces[row, 0])
            yield Difference(addr, size, name, *(str(column[row]) for column in values))
    for spare, known, which in ((spans[0], spans[1], 0), (spans[1], spans[0], 1)):
        yield from alone(spare, known, (first, second)[which], which)


def compared(
    first: Pages, second: Pages, pieces: U64, one: I64, other: I64
) -> Iterator[tuple[str, Bool, tuple[np.ndarray, np.ndarray]]]:
    labels = np.array([state.label for state in State])
    states = first.state[one], second.state[other]
    yield "state", states[0] == states[1], (labels[states[0]], labels[states[1]])
    if first.pfn is not None and second.pfn is not None:
        frames = first.pfn[one], second.pfn[other]
        here = [state <= State.PRESENT.value for state in states]
        steps = [
            np.where(mask, (pieces[:, 0] - rows.addr[row]) // PAGE, 0)
            for mask, rows, row in zip(here, (first, second), (one, other), strict=True)
        ]
        found = frames[0] + steps[0].astype(np.uint64), frames[1] + steps[1].astype(np.uint64)
        yield "pfn", found[0] == found[1], found
    if first.mapcount is not None and second.mapcount is not None:
        counts = first.mapcount[one], second.mapcount[other]
        # procfs knows no mapcount of a frame that the frame database says nothing of
        unknown = no_count(first)[one] | no_count(second)[other]
        yield "mapcount", (counts[0] == counts[1]) | unknown, counts


def no_count(pages: Pages) -> Bool:
    if pages.kflags is None or pages.mapcount is None:
        return np.ones(len(pages), bool)
    silent: Bool = untold(pages.kflags) & (pages.mapcount == 0)
    return silent & (pages.state <= State.PRESENT.value)


def alone(spare: U64, known: U64, rows: Pages, which: int) -> Iterator[Difference]:
    # What only one of the two has an entry for.
    if len(spare) == 0:
        return
    free = gaps(known, int(spare[0, 0]), int(spare[-1, 1]))
    pieces, row, _ = intersect(spare, free)
    for (start, end), at in zip(pieces.tolist(), row.tolist(), strict=True):
        label = State(int(rows.state[at])).label
        sides = (label, None) if which == 0 else (None, label)
        yield Difference(start, end - start, "state", *sides)


def table_differences(
    first: Source, second: Source, vmas: VMAs, report: Report, rounds: int
) -> list[Difference]:
    """Return the amounts of VMAs on which the two differ, round after round.

    Others map and unmap the same pages all the time, so an amount counts only where the first
    source says the same before and after the second was asked.
    """
    shown = inside(vmas.start, comparable(vmas)[1])
    found: list[Difference] = []
    for attempt in range(rounds):
        before, other, after = (by_vma(walk(s)) for s in (first, second, first))
        if not all(np.array_equal(t.vmas.start, vmas.start) for t in (before, other, after)):
            return found
        if attempt == 0:
            report.fields = sum(int(shown.sum()) for _ in shared_columns(before, other))
        again = list(amounts(before, other, after, shown))
        report.moved += max(len(found) - len(again), 0)
        found = again
        if not found:
            break
    return found


def shared_columns(first: Table, second: Table) -> Iterator[tuple[str, I64, I64]]:
    # not_present counts what is not mapped too where a source cannot tell.
    for name, column in first.columns.items():
        other = second.columns.get(name)
        if column is not None and other is not None and name not in NOT_COMPARED:
            yield name, column, other


def amounts(before: Table, second: Table, after: Table, shown: Bool) -> Iterator[Difference]:
    vmas = before.vmas
    for name, column, other in shared_columns(before, second):
        still = column == after.columns[name]
        if name in ("pss", "uss", "locked"):  # what nobody told one of them, it cannot add up
            still &= (before.columns["untold"] == 0) & (second.columns["untold"] == 0)
        for row in np.flatnonzero((column != other) & shown & still).tolist():
            size = int(vmas.end[row] - vmas.start[row])
            sides = (str(int(column[row])), str(int(other[row])))
            yield Difference(int(vmas.start[row]), size, name, *sides)
