"""The census: frames that count alike become one row, and none is lost."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pagewalk.model.frames import MAPPED_WHOLE, Frames, Kind
from pagewalk.system.census import FLAGS, NOWHERE, Count, KernelFrames, Placed
from tests.system import large
from tests.system.by_hand import Run, frames

RUNS = st.lists(
    st.builds(
        Run, st.sampled_from(Kind), st.integers(1, 1000),
        st.lists(st.sampled_from(FLAGS), unique=True).map(tuple), st.integers(0, 2),
        st.integers(0, 7), st.integers(0, 18), st.just(0), st.just(0),
    ),
    max_size=20,
)


def counted(*batches: Frames) -> Count:
    count = Count(9)
    for batch in batches:
        count.add(batch)
    return count


@given(RUNS, RUNS)
def test_a_row_is_what_its_runs_have_in_common(some: list[Run], more: list[Run]) -> None:
    census = counted(frames(*some), frames(*more)).census
    expected: dict[tuple[object, ...], int] = {}
    for run in some + more:
        mapped = run.mapcount > 0 or bool(run.facts & MAPPED_WHOLE)
        key = (run.kind, frozenset(run.flags), run.facts, run.order >= 9, run.order > 0, mapped)
        expected[key] = expected.get(key, 0) + run.pages
    found = {
        (Kind(census.kind[at]),
         frozenset(name for name in FLAGS if census.has(name)[at]),
         int(census.facts[at]), bool(census.huge[at]), bool(census.large[at]),
         bool(census.mapped[at])):
        int(census.pages[at])
        for at in range(len(census))
    }
    assert found == expected


def test_labels_keep_rows_apart() -> None:
    batch = frames(Run(Kind.FILE, 5), Run(Kind.FILE, 7), Run(Kind.FILE, 11))
    count = Count(9, lambda _: np.array([1, 70_000, 1]))
    count.add(batch)
    census = count.census
    assert dict(zip(census.label.tolist(), census.pages.tolist(), strict=True)) == {
        1: 16, 70_000: 7}


def test_what_backs_a_run_keeps_rows_apart() -> None:
    count = Count(9, lambda _: np.array([7, 7, 7]), lambda _: np.array([0, 2, 1], np.uint8))
    count.add(frames(Run(Kind.FILE, 5), Run(Kind.FILE, 7), Run(Kind.FILE, 11)))
    census = count.census
    assert dict(zip(census.backing.tolist(), census.pages.tolist(), strict=True)) == {
        0: 5, 1: 11, 2: 7}
    assert set(census.label.tolist()) == {7}


def test_placed_frames_are_counted_where_they_lie() -> None:
    placed = Placed(np.array([3, 4, 10, 15, 40]), np.array([0, 1, 0, 1, 0]), ("stack", "vmalloc"))
    # 0 to 3, 4 to 9; a hole; 13 to 15
    own = KernelFrames(100)
    own.add(frames(Run(Kind.KERNEL, 4), Run(Kind.RESERVED, 6)))
    own.add(frames(Run(Kind.KERNEL, 3), Run(Kind.SLAB, 25), first=13))
    assert own.uses(placed) == {
        ("stack", Kind.KERNEL): 1, ("vmalloc", Kind.RESERVED): 1, ("vmalloc", Kind.KERNEL): 1}


def test_nothing_adds_up_to_nothing() -> None:
    own = KernelFrames(100)
    own.add(frames(Run(Kind.KERNEL, 1)))
    own.add(frames())
    assert own.uses(NOWHERE) == {}
    assert len(counted().census) == len(counted(frames()).census) == 0


def test_256_gib_take_less_than_150_mb() -> None:
    assert large.measured("count")[0] < 150
    assert large.measured("kernel")[0] < 150
