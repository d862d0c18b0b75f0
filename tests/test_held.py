"""Each frame once: random walks against the same rules written down page by page."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import strategies as st

from pagewalk import held
from pagewalk.held import Held, empty
from pagewalk.pages import Flag, Keeper, Shared, State
from pagewalk.sums import shared_rows
from tests import by_hand
from tests.by_hand import HERE, ONCE, PAGE, THP, Row
from tests.properties import always

VMAS = 4


class Frame(NamedTuple):
    """A frame: which VMAs map it here, how often others do, what keeps it alive."""

    here: list[int]
    others: int
    keeper: Keeper


FRAMES = st.lists(
    st.builds(
        Frame, st.lists(st.integers(0, VMAS - 1), min_size=1, max_size=6), st.integers(0, 3),
        st.sampled_from(Keeper),
    ),
    max_size=30,
)


def add_all(frames: list[Frame], order: list[int], cut: int) -> Held:
    """Return Held after every mapping of ``frames``, in any order, ``cut`` at a time."""
    rows = [(vma, number, len(frame.here) + frame.others, frame.keeper)
            for number, frame in enumerate(frames) for vma in frame.here]
    rows = [row for _, row in sorted(zip(order, rows, strict=False))]
    out = empty(VMAS)
    for at in range(0, len(rows), cut):
        vma, pfn, mapcount, keeper = zip(*rows[at : at + cut], strict=True)
        out.add_shared(Shared(
            np.array(vma), np.array(pfn, np.uint64), np.full(len(vma), PAGE, np.uint64),
            np.array(mapcount, np.uint64), np.array(keeper, np.uint8),
        ))
    out.finish()
    return out


def by_rule(frames: list[Frame]) -> dict[str, list[int]]:
    out = {name: [0] * VMAS for name in ("frames", "objects", "own", "sole")}
    for frame in frames:
        first = min(frame.here)
        out["frames"][first] += PAGE
        if frame.keeper == Keeper.OBJECT:
            out["objects"][first] += PAGE
        if frame.others == 0 and frame.keeper != Keeper.CACHE:
            out["own" if frame.keeper == Keeper.MAPPINGS else "sole"][first] += PAGE
    return out


@pytest.fixture(params=[(254, 0), (2, 0), (254, 20), (2, 200)],
                ids=["bytes", "overflow", "few at first", "few and overflow"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put frames in several chunks, with byte counters that do or do not suffice; or delay them."""
    most, few = request.param
    monkeypatch.setattr(held, "CHUNK", 8)
    monkeypatch.setattr(held, "CHUNK_SHIFT", np.uint64(3))
    monkeypatch.setattr(held, "TOGETHER", 7)
    monkeypatch.setattr(held, "MOST", most)
    monkeypatch.setattr(held, "FEW", few)


@pytest.mark.usefixtures("small")
@always(FRAMES, st.permutations(range(200)), st.integers(1, 50))
def test_each_frame_counts_once_whatever_the_order(
    frames: list[Frame], order: list[int], cut: int
) -> None:
    found, said = add_all(frames, order, cut), by_rule(frames)
    assert {name: getattr(found, name).tolist() for name in said} == said


def test_a_frame_mapped_a_million_times_is_one() -> None:
    many = 1_000_000
    out = empty(1)
    for _ in range(2):
        out.add_shared(Shared(
            np.zeros(many // 2, np.int64), np.full(many // 2, 5, np.uint64),
            np.full(many // 2, PAGE, np.uint64), np.full(many // 2, many, np.uint64),
            np.full(many // 2, Keeper.MAPPINGS, np.uint8),
        ))
    out.finish()
    assert (out.frames.tolist(), out.own.tolist()) == ([PAGE], [PAGE])
    assert sum(len(rows) for rows, _ in out.often) == 0


# ---- which pages may be mapped more than once


def shared(*rows: Row) -> list[tuple[int, int, int]]:
    parts = list(shared_rows(by_hand.pages(rows), PAGE))
    return [row for part in parts for row in
            zip(part.pfn.tolist(), part.size.tolist(), part.mapcount.tolist(), strict=True)]


HEAP, BIG = by_hand.HEAP, by_hand.BIG


def test_a_page_that_is_mapped_once_is_not_shared() -> None:
    once: Row = (HEAP, PAGE, State.ANON, ONCE, 8, ("anon",), 1)
    twice: Row = (HEAP + PAGE, PAGE, State.ANON, HERE, 9, ("anon", "ksm"), 2)
    assert shared(once, twice) == [(9, PAGE, 2)]


def test_an_anonymous_page_that_others_map_too_is_held_and_not_freed() -> None:
    ours: Row = (HEAP, PAGE, State.ANON, ONCE, 8, ("anon",), 1)
    inherited: Row = (HEAP + PAGE, PAGE, State.ANON, HERE, 9, ("anon",), 3)
    merged: Row = (HEAP + 2 * PAGE, PAGE, State.ANON, HERE, 10, ("anon", "ksm"), 2)
    again: Row = (HEAP + 3 * PAGE, PAGE, State.ANON, HERE, 10, ("anon", "ksm"), 2)
    assert shared(inherited) == []
    table = by_hand.table([ours, inherited, merged, again])
    assert (table.totals["distinct"], table.totals["freed"]) == (3 * PAGE, 2 * PAGE)


def test_pages_that_are_not_in_ram_are_not_shared() -> None:
    assert shared(
        (HEAP, PAGE, State.ZERO, HERE, 8, ("zero_page",), 0),
        (HEAP + PAGE, PAGE, State.SPECIAL, HERE, 9, (), 0),
        (HEAP + 2 * PAGE, PAGE, State.DEVICE, HERE, 10, (), 0),
        (HEAP + 3 * PAGE, PAGE, State.SWAPPED, Flag.SOFT | Flag.SWAP, 11, (), 0),
        (HEAP + 4 * PAGE, PAGE, State.POISONED, Flag.SOFT | Flag.HWPOISON, 12, (), 0),
    ) == []


@pytest.mark.usefixtures("small")
def test_a_huge_page_is_its_base_pages_and_a_hugetlb_page_is_one() -> None:
    thp: Row = (BIG, THP, State.FILE, HERE | Flag.HUGE, 0x400, ("lru", "head", "thp"), 2)
    assert shared(thp) == [(0x400 + i, PAGE, 2) for i in range(512)]
    huge: Row = (BIG, THP, State.HUGETLB, HERE | Flag.HUGE, 0x400, ("huge",), 2)
    assert shared(huge) == [(0x400, THP, 2)]


def test_a_page_with_unknown_mappings_is_never_ours_alone() -> None:
    # Migrating; and in a hugetlb page table that another process shares.
    moving: Row = (HEAP, PAGE, State.MIGRATING, Flag.SOFT | Flag.MIGRATION, 9, (), 0)
    foreign: Row = (BIG, THP, State.HUGETLB, HERE | Flag.HUGE, 0x400, ("huge",), 1)
    assert shared(moving, foreign) == [(9, PAGE, 0), (0x400, THP, 0)]
    table = by_hand.table([moving, foreign])
    assert (table.totals["distinct"], table.totals["freed"]) == (PAGE + THP, 0)


def test_a_frame_that_the_database_does_not_know_counts_as_ours_as_in_uss() -> None:
    silent: Row = (HEAP, PAGE, State.ANON, HERE, 9, (), 0)
    assert shared(silent) == [(9, PAGE, 1)]
    totals = by_hand.table([silent]).totals
    assert totals["uss"] == totals["freed"] == totals["distinct"] == totals["untold"] == PAGE
