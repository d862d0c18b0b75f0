"""Frames of a set: each once, by pair and by child, against a count frame by frame."""

from __future__ import annotations

from collections import defaultdict
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagewalk.model.columns import Keeper
from pagewalk.system import together
from pagewalk.system.together import Mapping, Together

PAGE = 4096
Row = tuple[int, int, int]  # frame, member, place


def mapping(rows: list[Row], mapcount: dict[int, int], keeper: dict[int, Keeper]) -> Mapping:
    rows = sorted(rows, key=lambda row: row[0])
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    pfns = [int(pfn) for pfn in columns[0]]
    return Mapping(
        np.array(pfns, np.int64), np.array(columns[1], np.int32), np.array(columns[2], np.int32),
        np.full(len(rows), PAGE, np.int64), np.array([mapcount[pfn] for pfn in pfns], np.int64),
        np.array([keeper[pfn].value for pfn in pfns], np.uint8))


ROWS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5), st.integers(0, 2)), max_size=40)


@given(ROWS, st.data())
def test_sums_are_those_of_a_count_frame_by_frame(rows: list[Row], data: st.DataObject) -> None:
    by_frame: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        by_frame[row[0]].append(row)
    keeper = {pfn: data.draw(st.sampled_from(Keeper)) for pfn in by_frame}
    # Some frames are mapped by others too; 0: not known.
    count = {pfn: data.draw(st.sampled_from([0, len(maps), len(maps) + 1]))
             for pfn, maps in by_frame.items()}
    parents = [data.draw(st.sampled_from([at for at in range(-1, 6) if at != member]))
               for member in range(6)]
    found = Together(parents)
    half = data.draw(st.integers(0, 13))
    found.add([mapping([row for row in rows if row[0] < half], count, keeper),
               mapping([row for row in rows if row[0] >= half], count, keeper)])
    assert found.held == PAGE * len(by_frame)
    assert found.own == PAGE * sum(
        keeper[pfn] is Keeper.MAPPINGS and 0 < count[pfn] <= len(maps)
        for pfn, maps in by_frame.items())
    assert found.elsewhere == PAGE * sum(count[pfn] > len(maps) for pfn, maps in by_frame.items())
    assert found.unsure == PAGE * sum(not count[pfn] for pfn in by_frame)
    who = {pfn: {member for _, member, _ in maps} for pfn, maps in by_frame.items()}
    assert found.both is not None
    assert {(one, two): found.both[one, two] for one, two in permutations(range(6), 2)} == {
        (one, two): PAGE * sum({one, two} <= members for members in who.values())
        for one, two in permutations(range(6), 2)}
    assert not found.both.diagonal().any()
    kept = {member: PAGE * sum(
        keeper[pfn] is Keeper.MAPPINGS and {member, parents[member]} <= members
        for pfn, members in who.items()) for member in range(6) if parents[member] >= 0}
    told: dict[int, int] = defaultdict(int)
    for (member, _), size in found.kept.items():
        told[member] += size
    assert told == {member: size for member, size in kept.items() if size}


def test_what_is_kept_is_told_by_the_name_of_the_childs_mapping() -> None:
    rows = [(1, 0, 7), (1, 1, 8), (2, 0, 7), (2, 1, 9), (3, 1, 8)]
    found = Together([-1, 0])
    every = (1, 2, 3)
    found.add([mapping(rows, dict.fromkeys(every, 2), dict.fromkeys(every, Keeper.MAPPINGS))])
    assert found.kept == {(1, 8): PAGE, (1, 9): PAGE}


@pytest.mark.parametrize("members", [1, 63, 64, 65, 200])
def test_a_frame_of_all_is_in_every_pair(members: int) -> None:
    rows = [(5, member, 0) for member in range(members)] + [(6, 0, 0), (6, members - 1, 0)]
    found = Together([-1] * members)
    found.add([mapping(rows, {5: members, 6: 2}, {5: Keeper.CACHE, 6: Keeper.CACHE})])
    expected = np.full((members, members), PAGE) - PAGE * np.eye(members, dtype=np.int64)
    if members > 1:
        expected[0, -1] = expected[-1, 0] = 2 * PAGE
    assert found.both is not None
    np.testing.assert_array_equal(found.both, expected)


def test_for_too_many_members_there_is_no_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "MOST", 2)
    rows = [(5, member, 0) for member in range(3)]
    found = Together([-1, 0, 0])
    found.add([mapping(rows, {5: 3}, {5: Keeper.MAPPINGS})])
    assert found.both is None
    assert (found.held, found.own) == (PAGE, PAGE)
    assert found.kept == {(1, 0): PAGE, (2, 0): PAGE}
