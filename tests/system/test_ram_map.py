"""Where RAM's uses lie: each frame in the stretch that its address is in, and in its group."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pagewalk.model.columns import join
from pagewalk.model.frames import Kind
from pagewalk.system.census import Count
from pagewalk.system.ram import GROUPS, NO_LABELS, PARTS, group_of, parts_of
from pagewalk.system.ram_map import Piece, RamMap, map_ram
from tests.system.by_hand import Run, frames

FREE = (Kind.BUDDY, Kind.CPU_LIST, Kind.DEFERRED, Kind.UNACCEPTED)
RUNS = st.lists(
    st.tuples(st.sampled_from(Kind), st.integers(1, 100)).map(lambda run: Run(*run)),
    min_size=1, max_size=20,
)  # fmt: skip


def by_frame(runs: list[Run], first: int) -> dict[int, Kind]:
    kinds = [run.kind for run in runs for _ in range(run.pages)]
    return dict(enumerate(kinds, first))


def stretches(found: RamMap) -> dict[tuple[int, str], int]:
    rows = zip(found.stretches.number.tolist(), found.stretches.pages.tolist(), strict=True)
    return {(number, group): pages for number, row in rows
            for group, pages in zip(GROUPS, row, strict=True) if pages}


@given(RUNS, RUNS, st.integers(0, 50), st.integers(1, 5000), st.integers(2, 9))
def test_each_frame_is_in_its_stretch_and_group(
    low: list[Run], high: list[Run], first: int, gap: int, most: int
) -> None:
    one, two = by_frame(low, first), by_frame(high, first + sum(r.pages for r in low) + gap)
    ranges = [(min(part), max(part) + 1) for part in (one, two)]
    batches = [frames(*low, first=min(one)), frames(*high, first=min(two))]
    found = map_ram(batches, ranges, most)
    expected: dict[tuple[int, str], int] = {}
    for pfn, kind in (one | two).items():
        key = (pfn >> found.shift, group_of(kind))
        expected[key] = expected.get(key, 0) + 1
    assert stretches(found) == expected
    assert len(found.stretches) <= most
    # The stretches are as short as that allows.
    assert found.shift == 0 or len({pfn >> found.shift - 1 for pfn in one | two}) > most
    assert stretches(map_ram([join(batches)], ranges, most)) == expected


@given(RUNS, st.integers(0, 19), st.integers(0, 50))
def test_the_largest_piece_that_is_free(runs: list[Run], cut: int, first: int) -> None:
    parts = [frames(*runs[:cut], first=first)]
    middle = first + int(parts[0].pages.sum())
    parts.append(frames(*runs[cut:], first=middle))
    end = middle + int(parts[1].pages.sum())
    free = [group_of(kind) == "free" for kind in by_frame(runs, first).values()]
    lengths, length = {}, 0
    for pfn, one in enumerate(free, first):
        length = length + 1 if one else 0
        lengths[pfn] = length
    longest = max(lengths.values())
    found = map_ram(parts, [(first, end)]).largest_free
    last = next(pfn for pfn, length in lengths.items() if length == longest)
    assert found == (Piece(last - longest + 1, longest) if longest else None)


def test_a_kind_is_in_the_row_of_all_its_parts() -> None:
    group = {part.name: part.group for part in PARTS}
    for kind in Kind:
        count = Count(9)
        count.add(frames(Run(kind, 1), Run(kind, 1, mapcount=1), Run(kind, 1, order=9)))
        assert {group[part] for part in parts_of(count.census, NO_LABELS, {})} == {group_of(kind)}
    assert [kind for kind in Kind if group_of(kind) == "free"] == sorted(FREE)


def test_terabytes_with_far_gaps_are_as_many_stretches_as_any() -> None:
    # 4 TiB of frames in 64 ranges, spread over all that 52 bits can address
    ranges = [(at << 34, (at << 34) + (1 << 24)) for at in range(64)]
    batches = (frames(Run(Kind.ANON, last - first), first=first) for first, last in ranges)
    found = map_ram(batches, ranges)
    assert 512 < len(found.stretches) <= 1024
    assert int(found.stretches.pages.sum()) == 1 << 30
    assert found.largest_free is None
    assert np.all(found.stretches.pages[:, 1:] == 0)
