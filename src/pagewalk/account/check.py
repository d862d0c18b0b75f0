"""Compare two walks of one process, page by page and VMA by VMA. No I/O of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from pagewalk.account.table import Table, table
from pagewalk.model.bits import VM_PFNMAP
from pagewalk.model.columns import I64, U64, Bool, Pages, State, VMAs, join, take
from pagewalk.model.ranges import gaps, inside, intersect, union
from pagewalk.model.rules import HAS_ENTRY, IS_PRESENT
from pagewalk.model.states import untold
from pagewalk.sources import Source
from pagewalk.walking.walk import walk

MOST_LISTED = 1000

# How often a difference is looked at again. It is real if it was there in every look and if, in
# half of them, both sources said the same as ever and the first did so before and after the second
# was asked. A process that forks may change a mapcount and change it back between two readings,
# even in step with our looks, but what the second source adds up meanwhile is rarely the same.
LOOKS, FIRM = 20, 10

# These depend on how often other processes map the same pages, not on the target's pages alone.
OTHERS = frozenset({
    "mapcount", "pss", "uss", "locked", "private_hugetlb", "shared_hugetlb", "hugetlb_pmd_shared",
})


@dataclass(frozen=True)
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

    ``left_out`` are the VMAs that one of the sources never shows; ``more`` counts differences
    beyond MOST_LISTED. Two kinds are counted but are not differences: ``moved`` were gone when
    looked at again, and on ``unsteady`` a source never held still. ``moved_by_others`` and
    ``unsteady_by_others`` are those that other processes cause by mapping the same pages.
    """

    first: str
    second: str
    pages: int = 0
    fields: int = 0
    moved: int = 0
    moved_by_others: int = 0
    unsteady: int = 0
    unsteady_by_others: int = 0
    more: int = 0
    differences: list[Difference] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def check(first: Source, second: Source) -> Report:
    """Walk one process by two sources and return a Report.

    Whatever differs is looked at again, at most LOOKS times: the first source before the second and
    after it. On a stopped process a difference that stays is real. Raises what walk raises.
    """
    report = Report(first.name, second.name)
    vmas, page_size = first.vmas(), first.space.facts.page_size
    report.left_out, ranges = comparable(vmas)

    def look_again(
        found: list[Difference], read: Callable[..., Any],
        differ: Callable[[Any, Any], list[Difference]],
    ) -> None:
        # Adds to the report what of `found` stays when both sources are read again, by `read`.
        def ask(asked: list[Difference]) -> Answer:
            spans = touched(asked, vmas)
            before, other, after = (read(s, ranges=spans) for s in (first, second, first))
            return differ(before, other), differ(before, after)

        firm = settle(found, ask, report)
        room = MOST_LISTED - len(report.differences)
        report.differences.extend(firm[:room])
        report.more += max(len(firm) - room, 0)

    found: list[Difference] = []
    for one, other in side_by_side(*(populated(source, ranges) for source in (first, second))):
        report.pages += int(one.size.sum()) // page_size
        found += differing(one, other, page_size)
    look_again(found, whole, lambda a, b: list(differing(a, b, page_size)))
    report.fields, found = amounts(table(first), table(second), ranges)
    look_again(found, table, lambda a, b: amounts(a, b, ranges)[1])
    return report


# What differs between the two sources, and what changed in the first one in the meantime.
Answer: TypeAlias = tuple[list[Difference], list[Difference]]


def settle(
    found: list[Difference], ask: Callable[[list[Difference]], Answer], report: Report
) -> list[Difference]:
    """Return those of ``found`` that stay when looked at again; count the others."""
    steady = Counter[tuple[int, str, str | None, str | None]]()
    for _ in range(LOOKS):
        if not found or all(steady[said(d)] >= FIRM for d in found):
            break
        again, moving = ask(found)
        left = overlapping(again, found)
        gone = len(found) - len(left), by_others(found) - by_others(left)
        report.moved += max(gone[0], 0)
        report.moved_by_others += max(gone[1], 0)
        busy = set(map(key, overlapping(left, moving)))
        steady.update(said(d) for d in left if key(d) not in busy)
        found = left
    firm = [d for d in found if steady[said(d)] >= FIRM]
    report.unsteady += len(found) - len(firm)
    report.unsteady_by_others += by_others(found) - by_others(firm)
    return firm


def said(difference: Difference) -> tuple[int, str, str | None, str | None]:
    """Return what must be the same in each look: where, and what both sources said."""
    return *key(difference), difference.first, difference.second


def key(difference: Difference) -> tuple[int, str]:
    return difference.addr, difference.what


def by_others(found: list[Difference]) -> int:
    return sum(d.what in OTHERS for d in found)


def overlapping(found: list[Difference], others: list[Difference]) -> list[Difference]:
    """Return those of ``found`` whose column and bytes one of ``others`` is about, too."""
    kept = []
    for what in {d.what for d in others}:
        spans = np.array(sorted((d.addr, d.addr + d.size) for d in others if d.what == what))
        here = [d for d in found if d.what == what]
        ends = np.array([d.addr + d.size for d in here], np.uint64)
        at = np.searchsorted(spans[:, 0].astype(np.uint64), ends) - 1
        for d, row in zip(here, at.tolist(), strict=True):
            if row >= 0 and int(spans[row, 1]) > d.addr:
                kept.append(d)
    return sorted(kept, key=key)


def comparable(vmas: VMAs) -> tuple[list[str], U64]:
    """Return the names of the VMAs procfs shows nothing of, and the ranges of the others."""
    hidden = vmas.hidden
    if vmas.flags is not None:
        hidden = hidden | (vmas.flags & np.uint64(VM_PFNMAP) != 0)
    names = [vmas.name[row] or "[anon]" for row in np.flatnonzero(hidden).tolist()]
    return names, vmas.ranges[~hidden]


def touched(found: list[Difference], vmas: VMAs) -> U64:
    """Return the parts of ``vmas`` that ``found`` is about, as ranges (u64[k, 2])."""
    spans = np.array([(d.addr, d.addr + d.size) for d in found], np.uint64).reshape(-1, 2)
    return intersect(vmas.ranges, union(spans))[0]


def whole(source: Source, ranges: U64) -> Pages:
    """Return a fresh walk of ``ranges``, which are few, as one batch."""
    return join([NO_PAGES, *populated(source, ranges)])


def populated(source: Source, ranges: U64) -> Iterator[Pages]:
    # What has an entry, by address; how a source splits holes is its own affair.
    for batch in walk(source, ranges=ranges):
        rows = HAS_ENTRY[batch.state]
        if rows.any():
            yield take(batch, rows)


# Two sources may rightly differ in what they cannot tell, and in what that makes of the rest.
NOT_COMPARED = ("not_present", "hidden", "untold")
NO_PAGES = Pages(
    *(np.zeros(0, kind) for kind in ("u8", "u8", "i8", "u1", "u1", "u4", "u8", "u8", "u8", "u8"))
)


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


def differing(first: Pages, second: Pages, page_size: int) -> Iterator[Difference]:
    spans = [np.stack([rows.addr, rows.addr + rows.size], axis=1) for rows in (first, second)]
    pieces, one, other = intersect(*spans)
    for name, same, values in compared(first, second, pieces, one, other, page_size):
        for row in np.flatnonzero(~same).tolist():
            addr, size = int(pieces[row, 0]), int(pieces[row, 1] - pieces[row, 0])
            yield Difference(addr, size, name, *(str(column[row]) for column in values))
    for spare, known, which in ((spans[0], spans[1], 0), (spans[1], spans[0], 1)):
        yield from alone(spare, known, (first, second)[which], which)


def compared(
    first: Pages, second: Pages, pieces: U64, one: I64, other: I64, page_size: int
) -> Iterator[tuple[str, Bool, tuple[np.ndarray, np.ndarray]]]:
    labels = np.array([state.label for state in State])
    states = first.state[one], second.state[other]
    yield "state", states[0] == states[1], (labels[states[0]], labels[states[1]])
    if first.pfn is not None and second.pfn is not None:
        frames = first.pfn[one], second.pfn[other]
        here = [IS_PRESENT[state] for state in states]
        steps = [
            np.where(mask, (pieces[:, 0] - rows.addr[row]) // page_size, 0)
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
    return silent & IS_PRESENT[pages.state]


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


def same_vmas(first: VMAs, second: VMAs, shown: U64) -> tuple[I64, I64]:
    if len(first) == 0 or len(second) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    at = np.minimum(np.searchsorted(second.start, first.start), len(second) - 1)
    same = (second.start[at] == first.start) & (second.end[at] == first.end)
    rows = np.flatnonzero(same & inside(first.start, shown))
    return rows, at[rows]


def amounts(first: Table, second: Table, shown: U64) -> tuple[int, list[Difference]]:
    """Return how many amounts of VMAs in ``shown`` two tables both tell, and those that differ."""
    rows, others = same_vmas(first.vmas, second.vmas, shown)
    count, found = 0, []
    for name, column in first.columns.items():
        other = second.columns.get(name)
        # Where a source cannot tell not_mapped, its not_present includes it.
        if column is None or other is None or name in NOT_COMPARED:
            continue
        count += len(rows)
        differ = column[rows] != other[others]
        if name in ("pss", "uss", "locked"):  # an amount with untold pages is incomplete
            for table, at in ((first, rows), (second, others)):
                untold_bytes = table.columns["untold"]
                assert untold_bytes is not None
                differ &= untold_bytes[at] == 0
        for row, at in zip(rows[differ].tolist(), others[differ].tolist(), strict=True):
            start, end = int(first.vmas.start[row]), int(first.vmas.end[row])
            sides = str(int(column[row])), str(int(other[at]))
            found.append(Difference(start, end - start, name, *sides))
    return count, found
