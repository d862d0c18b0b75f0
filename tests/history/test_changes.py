"""What became of memory: each class, decided by what was there and what is there."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.history.changes import BECAME, CLASSES, IN_RAM, Ranges, Told, became, classify
from pagewalk.model.columns import Flag, State

ANON, FILE, SHMEM, ZERO, SWAPPED = State.ANON, State.FILE, State.SHMEM, State.ZERO, State.SWAPPED
NONE = State.ABSENT


@pytest.mark.parametrize(("before", "after", "key"), [
    (NONE, ANON, "touched"), (NONE, FILE, "read_in"), (NONE, SHMEM, "read_in"),
    (NONE, State.HUGETLB, "touched"), (NONE, State.PRESENT, "appeared"),
    (ZERO, ANON, "copied"), (FILE, ANON, "copied"), (SHMEM, ANON, "copied"),
    (SWAPPED, ANON, "swapped_in"), (SWAPPED, FILE, "read_in"),
    (ANON, NONE, "dropped"), (FILE, NONE, "dropped"), (ANON, ZERO, "dropped"),
    (ANON, SWAPPED, "swapped_out"), (NONE, SWAPPED, "swapped_out"), (SWAPPED, NONE, "discarded"),
    (ANON, FILE, "replaced"), (FILE, SHMEM, "replaced"), (NONE, ZERO, "other"),
    (ZERO, State.GUARD, "other"), (ANON, ANON, "unchanged"), (SWAPPED, SWAPPED, "unchanged"),
    (State.PRESENT, ANON, "unchanged"), (State.MIGRATING, ANON, "unchanged"),
])
def test_states_decide(before: State, after: State, key: str) -> None:
    assert became(before, after) == key


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", State)
def test_a_class_tells_what_became_of_rss(before: State, after: State) -> None:
    change = (after in IN_RAM) - (before in IN_RAM)
    key = CLASSES[BECAME[before, after]].key
    gains = {"touched", "read_in", "swapped_in", "appeared"} | ({"copied"} if change else set())
    assert (key in gains) == (change == 1)
    # What was swapped out may have been touched since.
    assert (key in {"dropped"} | ({"swapped_out"} if before in IN_RAM else set())) == (change == -1)


def side(
    state: State = ANON, frame: int | None = 7, mapcount: int | None = 1, huge: bool = False
) -> Ranges:
    return Ranges(
        np.array([state], np.uint8), np.array([Flag.HUGE if huge else 0], np.uint32),
        None if frame is None else np.array([frame], np.uint64),
        None if mapcount is None else np.array([mapcount], np.uint64))


@pytest.mark.parametrize(("before", "after", "key"), [
    (side(), side(), "unchanged"),
    (side(), side(frame=8), "moved"),
    (side(), side(frame=None), "unchanged"),
    (side(), side(mapcount=2), "shared"),
    (side(mapcount=2), side(), "private"),
    (side(mapcount=3), side(mapcount=2), "unchanged"),
    (side(mapcount=2), side(mapcount=None), "unchanged"),
    # Shared with a child, written to since: a private copy in a frame of its own.
    (side(mapcount=2), side(frame=8), "copied"),
    (side(FILE, mapcount=2), side(FILE, frame=8), "private"),
    (side(), side(huge=True, frame=512), "huge"),
    (side(huge=True), side(), "split"),
    (side(huge=True, mapcount=2), side(frame=9), "split"),
    # Not in RAM: frames and mapcounts say nothing.
    (side(SWAPPED, 1), side(SWAPPED, 2), "unchanged"),
])
def test_of_what_stayed_the_entry_decides(before: Ranges, after: Ranges, key: str) -> None:
    assert CLASSES[classify(before, after, Told())[0]].key == key


def test_what_one_side_does_not_tell_is_not_compared() -> None:
    assert classify(side(), side(frame=8), Told(frames=False))[0] == BECAME[ANON, ANON]
    assert classify(side(), side(mapcount=2), Told(sharing=False))[0] == BECAME[ANON, ANON]
    assert classify(side(), side(huge=True), Told(huge=False))[0] == BECAME[ANON, ANON]
    # Whether it is a copy, only frames tell.
    found = classify(side(mapcount=2), side(frame=8), Told(frames=False))
    assert CLASSES[found[0]].key == "private"
