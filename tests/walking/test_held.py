"""Each frame once: random walks against the same rules written down page by page."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import strategies as st

from pagewalk.model.columns import Keeper, Shared
from pagewalk.walking import held
from pagewalk.walking.held import Held, empty
from tests.by_hand import PAGE
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
