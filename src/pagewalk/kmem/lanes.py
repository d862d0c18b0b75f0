"""Share work on many pages out among CPUs: a program that runs in two threads at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

# The time is the CPU's, not Python's. Of a machine with many, a monitor should not take more.
LANES = 2


def share(work: Callable[[int, slice], None], count: int, most: int, least: int) -> None:
    """Call ``work(lane, rows)`` for all of range(``count``), with at most ``most`` rows at a time.

    The lanes run side by side, each over a part of its own, in order. One has at least ``least``
    rows to do, so that for little no thread is woken.
    """
    lanes = max(1, min(LANES, len(os.sched_getaffinity(0)), count // least))
    edges = [count * lane // lanes for lane in range(lanes + 1)]

    def do(lane: int) -> None:
        for first in range(edges[lane], edges[lane + 1], most):
            work(lane, slice(first, min(first + most, edges[lane + 1])))

    others = [_threads(os.getpid()).submit(do, lane) for lane in range(1, lanes)]
    try:
        do(0)
    finally:
        for other in others:
            other.result()


# A forked child has none of its parent's threads.
@cache
def _threads(pid: int) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor

    del pid
    return ThreadPoolExecutor(LANES - 1)
