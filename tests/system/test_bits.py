"""A set of frames is a set."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pagewalk.system.bits import FrameSet

END = 200
SOME = st.lists(st.integers(0, END - 1), max_size=40)


def array(frames: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(frames, np.int64)


@given(SOME, SOME)
def test_it_has_what_was_added(added: list[int], asked: list[int]) -> None:
    frames = FrameSet(END)
    frames.add(array(added))
    assert frames.has(array(asked)).tolist() == [one in set(added) for one in asked]
    assert len(frames) == len(set(added))


@given(SOME, SOME)
def test_what_is_missing_could_be_in_it(before: list[int], more: list[int]) -> None:
    frames = FrameSet(END)
    frames.add(array(before))
    asked = array([*more, -1, END])
    assert frames.missing(asked).tolist() == [one not in before for one in more] + [False, False]


@given(st.lists(st.tuples(st.integers(0, 150), st.integers(0, 50)), max_size=10))
def test_runs_are_their_frames(runs: list[tuple[int, int]]) -> None:
    frames = FrameSet(END)
    first, pages = (array([run[at] for run in runs]) for at in (0, 1))
    frames.add_runs(first, pages)
    expected = {frame for start, count in runs for frame in range(start, start + count)}
    assert set(np.flatnonzero(frames.has(np.arange(END))).tolist()) == expected


def test_frames_outside_are_not_in_it() -> None:
    frames = FrameSet(8)
    frames.add(array([7]))
    assert frames.has(array([-1, 7, 8, 1 << 40])).tolist() == [False, True, False, False]
