"""A result that is shared until it is old."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from threading import Event, Thread

import pytest

from pagewalk.model.errors import PagewalkError
from pagewalk.system.recent import REST, Recent


class Clock:
    """A clock that stands still; ``takes`` is how long a look takes."""

    def __init__(self, takes: float = 0.0) -> None:
        self.now, self.takes, self.looks = 1000.0, takes, 0

    def __call__(self) -> float:
        return self.now

    def look(self) -> int:
        """Return how many looks there have been."""
        self.now += self.takes
        self.looks += 1
        return self.looks


def test_the_last_result_is_given_until_it_is_old() -> None:
    clock = Clock()
    recent = Recent(clock.look, 15, clock)
    assert [recent.latest().found for _ in range(5)] == [1] * 5
    clock.now += 14.9
    assert recent.latest()[:2] == (1, pytest.approx(14.9))
    clock.now += 0.2
    found = recent.latest()
    assert (found.found, found.age, found.made) == (2, 0, 2)


def test_looking_takes_a_tenth_of_the_time_at_most() -> None:
    clock, began = Clock(takes=4), list[float]()

    def look() -> int:
        began.append(clock.now)
        return clock.look()

    recent = Recent(look, 0, clock)
    while len(began) < 5:
        recent.latest()
        clock.now += 0.5
    assert [later - earlier for earlier, later in pairwise(began)] == [(1 + REST) * 4] * 4


def test_the_age_counts_from_when_the_look_began() -> None:
    clock = Clock(takes=4)
    recent = Recent(clock.look, 15, clock)
    assert recent.latest().age == 4


def test_those_who_ask_while_it_is_made_wait_for_it() -> None:
    begun, go, looks = Event(), Event(), list[int]()

    def look() -> int:
        begun.set()
        assert go.wait(60)
        looks.append(1)
        return len(looks)

    recent, found = Recent(look, 1000), list[int]()
    threads = [Thread(target=lambda: found.append(recent.latest().found)) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert begun.wait(60)
    go.set()
    for thread in threads:
        thread.join(60)
    assert found == [1] * 8 and looks == [1]


def test_a_failure_is_not_tried_again_at_once_either() -> None:
    clock = Clock()
    results: Iterator[object] = iter([PagewalkError("no"), PagewalkError("no"), 3])

    def look() -> object:
        clock.look()
        one = next(results)
        if isinstance(one, PagewalkError):
            raise one
        return one

    recent = Recent(look, 15, clock)
    for _ in range(3):
        with pytest.raises(PagewalkError, match="no"):
            recent.latest()
    assert clock.looks == 1
    clock.now += 15
    with pytest.raises(PagewalkError):
        recent.latest()
    clock.now += 15
    assert recent.latest().found == 3
