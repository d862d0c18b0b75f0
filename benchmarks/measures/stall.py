"""How much a reader disturbs the target: the longest read, and a mapping thread's worst wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from benchmarks.opponents import timed
from benchmarks.processes import Running, start
from benchmarks.rows import Limit, Plan, Row, size
from pagewalk import table


def stall(plan: Plan) -> list[Row]:
    """Walk 6 GiB while a thread of the target maps and unmaps, and then read its smaps_rollup."""
    mib = plan.mib(6)
    reads: list[float] = []
    rollups: list[float] = []
    waits: dict[str, list[float]] = {"idle": [], "walk": [], "rollup": []}
    with start("mapper", mib) as target:
        for _ in range(plan.rounds):
            spent = watched(target, waits["walk"], lambda: reads.append(longest(target.pid)))
            watched(target, waits["idle"], partial(time.sleep, spent))
            watched(target, waits["rollup"], partial(read_rollups, target.pid, spent, rollups))
    what = f"{size(mib)} with a mapping thread"
    own = tuple(waits["walk"])
    return [
        Row(f"{what}: longest read of a walk", "its read of smaps_rollup", "ms", tuple(reads),
            tuple(rollups), Limit(1 / 5)),
        Row(f"{what}: its worst mmap during a walk", "idle for as long", "ms", own,
            tuple(waits["idle"])),
        Row(f"{what}: its worst mmap during a walk", "smaps_rollup for as long", "ms", own,
            tuple(waits["rollup"])),
    ]


def watched(target: Running, waits: list[float], work: Callable[[], object]) -> float:
    """Do ``work``, append the mapping thread's worst wait during it (ms), return its seconds."""
    target.tell("stall")
    took = timed(work)
    waits.append(target.tell("stall")["worst_ns"] / 1e6)
    return took / 1e3


def longest(pid: int) -> float:
    amounts = table(pid, source="procfs")
    return amounts.outcome.stall.longest_ns / 1e6


def read_rollups(pid: int, seconds: float, longest_ms: list[float]) -> None:
    # Repeatedly, for as long as the walk took, so that the worst wait is as likely to occur.
    end = time.perf_counter() + seconds
    took: list[float] = []
    while not took or time.perf_counter() < end:
        with open(f"/proc/{pid}/smaps_rollup", "rb", buffering=0) as file:
            took.append(timed(file.read))
    longest_ms.append(max(took))
