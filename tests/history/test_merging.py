"""Two address spaces side by side, compared with a comparison page by page."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from pagewalk.history.changes import CLASSES, Told
from pagewalk.history.matching import same_addresses
from pagewalk.history.merging import Stream, merged
from pagewalk.model.columns import Backing, State, VMAs
from tests.history import spaces as by_hand
from tests.history.spaces import Run, run, vmas
from tests.snapshot.by_hand import PAGE

STATES = (State.ANON, State.FILE, State.SHMEM, State.ZERO, State.SWAPPED, State.HUGETLB,
          State.PRESENT, State.GUARD)
RAM = {State.ANON, State.FILE, State.SHMEM, State.HUGETLB, State.PRESENT}
# Of one page: state, frame, mapcount, huge.
Page = tuple[State, int, int, bool]


def became(before: Page | None, after: Page | None) -> str:
    """Return what became of one page, said as the documentation says it."""
    old, new = (None if one is None else one[0] for one in (before, after))
    if new not in RAM:
        if old in RAM:
            return "swapped_out" if new is State.SWAPPED else "dropped"
        if new is State.SWAPPED:
            return "unchanged" if old is State.SWAPPED else "swapped_out"
        return "discarded" if old is State.SWAPPED else "unchanged" if old is new else "other"
    if old not in RAM:
        if new is State.ANON and old is State.SWAPPED:
            return "swapped_in"
        if new is State.ANON and old is State.ZERO:
            return "copied"
        return {State.ANON: "touched", State.HUGETLB: "touched", State.PRESENT: "appeared"}.get(
            new, "read_in")
    if old is not new and State.PRESENT not in (old, new):
        return "copied" if new is State.ANON and old is not State.HUGETLB else "replaced"
    assert before is not None and after is not None
    (_, frame, count, huge), (_, frame_now, count_now, huge_now) = before, after
    if huge != huge_now:
        return "huge" if huge_now else "split"
    if count > 1 and count_now == 1:
        return "copied" if frame != frame_now and new is State.ANON else "private"
    if count == 1 and count_now > 1:
        return "shared"
    return "moved" if frame != frame_now else "unchanged"


def pages_of(rows: list[Run]) -> dict[int, Page]:
    return {addr // PAGE + at: (state, frame + at, count, huge)
            for addr, size, state, frame, count, huge in rows for at in range(size // PAGE)}


def some_runs(rng: random.Random, mapped: VMAs) -> list[Run]:
    """Return runs within the mappings, with and without gaps between them."""
    rows = []
    for start, end in (mapped.ranges // PAGE).tolist():
        at = start + rng.randrange(3)
        while at < end:
            count = min(rng.randrange(1, 9), end - at)
            rows.append(run(at, count, rng.choice(STATES), rng.choice((100, 100 + at)),
                            rng.randrange(1, 4), rng.random() < 0.2))
            at += count + rng.choice((0, 0, 1, 5))
    return rows


def some_vmas(rng: random.Random) -> VMAs:
    rows, at = [], 10
    for _ in range(rng.randrange(1, 6)):
        pages = rng.randrange(1, 40)
        kind = rng.choice(((Backing.ANON, ""), (Backing.FILE, "/a"), (Backing.FILE, "/b")))
        rows.append((at, pages, *kind, at))
        at += pages + rng.choice((0, 0, 7))
    return vmas(*rows)


def in_batches(rng: random.Random, rows: list[Run]) -> list[list[Run]]:
    cuts = sorted(rng.randrange(len(rows) + 1) for _ in range(rng.randrange(4)))
    return [rows[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]


@pytest.mark.parametrize("seed", range(150))
def test_runs_give_what_pages_would(seed: int) -> None:
    rng = random.Random(seed)
    maps = [some_vmas(rng), some_vmas(rng)]
    if seed % 2:
        maps[1] = maps[0]
    every = [some_runs(rng, mapped) for mapped in maps]
    sections = same_addresses(*maps)
    sides = [
        Stream(by_hand.Space(mapped, in_batches(rng, rows)).runs(), start, sections, len(mapped),
             PAGE, False)
        for mapped, rows, start in zip(maps, every, (sections.before, sections.after), strict=True)]
    changes = merged(sides[0], sides[1], Told())
    before, after = map(pages_of, every)
    covered = {page: at for at, (start, size) in enumerate(zip(
        sections.before.tolist(), sections.size.tolist(), strict=True))
        for page in range(start // PAGE, (start + size) // PAGE)}
    found: Counter[tuple[int, str]] = Counter()
    rss: Counter[int] = Counter()
    counted = RAM - {State.HUGETLB}
    for page in before.keys() | after.keys():
        one, other = before.get(page), after.get(page)
        if page in covered:
            found[covered[page], became(one, other)] += PAGE
            rss[covered[page]] += PAGE * ((other is not None and other[0] in counted)
                                          - (one is not None and one[0] in counted))
    ours = {(at, one.key): int(changes.bytes[at, code]) for at in range(len(sections))
            for code, one in enumerate(CLASSES) if changes.bytes[at, code]}
    assert ours == dict(found)
    assert changes.rss.sum(axis=1).tolist() == [rss[at] for at in range(len(sections))]
    for side, pages in zip(sides, (before, after), strict=True):
        inside = [one for page, one in pages.items() if page not in covered]
        for sums, states in ((side.rest.rss, counted), (side.rest.swap, {State.SWAPPED}),
                             (side.rest.hugetlb, {State.HUGETLB})):
            assert int(sums.sum()) == PAGE * sum(one[0] in states for one in inside)
        assert int(side.whole.rss.sum()) == PAGE * sum(
            one[0] in counted for one in pages.values())


def test_a_side_without_pages_is_no_obstacle() -> None:
    mapped = vmas((10, 4, Backing.ANON, "", 0))
    sections = same_addresses(mapped, mapped)
    for rows, key in (([[], [run(10, 4, State.ANON)]], "touched"),
                      ([[run(10, 4, State.ANON)], []], "dropped")):
        sides = [Stream(by_hand.Space(mapped, [one]).runs(), sections.before, sections, 1, PAGE,
                        False) for one in rows]
        changes = merged(sides[0], sides[1], Told())
        where = [CLASSES[at].key for at in np.flatnonzero(changes.bytes[0])]
        assert where == [key] and changes.bytes.sum() == 4 * PAGE
