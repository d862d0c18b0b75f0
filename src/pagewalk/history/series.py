"""Recordings one after the other, into a data set: what is complete stays, whatever ends it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from pagewalk.history.record import Made
from pagewalk.model.errors import BadTarget, GroupGone, NoAddressSpace, PagewalkError, ProcessGone
from pagewalk.proc.host import read_host
from pagewalk.snapshot.places import place_of

ENDED = (BadTarget, GroupGone, NoAddressSpace, ProcessGone)


class Series(NamedTuple):
    """What became of a series: ``made`` recordings, ``size`` bytes together.

    ``missed`` moments passed while a recording was being made. ``why`` it ended, in words.
    """

    root: str
    made: int
    size: int
    missed: int
    why: str


def record_series(
    root: str, every: float, lasting: float | None, record: Callable[[str], Made],
    tell: Callable[[Made], None],
) -> Series:
    """Let ``record`` write a recording into ``root`` every so many seconds; ``tell`` of each.

    It ends after ``lasting`` seconds, when its processes have ended or its cgroup was removed, by
    Ctrl-C or by SIGTERM.
    Raises what the first recording raises, and what a later one raises but those that say that
    there is nothing to record any more: what was complete is there all the same.
    """
    begun, done = time.monotonic(), Series(root, 0, 0, 0, "")
    host, moment = read_host().name, 0  # moments are at multiples of `every`
    try:
        while True:
            try:
                made = record(place_of(root, host, time.time_ns()))
            except ENDED as error:
                # What is called as others are now, is there.
                if not done.made or (isinstance(error, BadTarget) and error.candidates):
                    raise
                return done._replace(why=end_of(error))
            done = done._replace(made=done.made + 1, size=done.size + made.size)
            tell(made)
            passed = time.monotonic() - begun
            following = max(moment + 1, math.ceil(passed / every))
            done = done._replace(missed=done.missed + following - moment - 1)
            moment = following
            if lasting is not None and moment * every > lasting:
                return done._replace(why="its time is over")
            time.sleep(moment * every - passed)
    except (KeyboardInterrupt, SystemExit):
        if not done.made:
            raise
        return done._replace(why="interrupted")


def end_of(error: PagewalkError) -> str:
    """Return why there is nothing to record any more."""
    if isinstance(error, GroupGone):
        return "its cgroup was removed"
    if isinstance(error, BadTarget):
        return f"there is nothing to record any more: {error}"
    return "its processes have ended"
