"""All frames of RAM: the time to read them, the memory held, and what the machine feels of it."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial

from benchmarks.opponents import output, program, timed
from benchmarks.rows import Limit, Of, Plan, Row, interleave, size
from pagewalk.kernel.open import open_bpf
from pagewalk.kernel.running import RunningKernel, open_running
from pagewalk.kernel.scan import scan_frames
from pagewalk.proc.iomem import read_ranges

EVERYTHING = "C: kpageflags, kpagecount, kpagecgroup whole, 8 MiB a call"

# The most that Python and numpy hold during a scan, and its milliseconds, of as many frames as are
# asked for: RAM is read again and again, as if there were that much.
LONG = """
import sys, time, tracemalloc
from collections import deque
from pagewalk.kernel.open import open_bpf
from pagewalk.kernel.running import open_running
from pagewalk.kernel.scan import scan_frames
from pagewalk.proc.iomem import read_ranges
running = open_running(open_bpf(), loads=True)
ranges = read_ranges()
frames = sum(last - first for first, last in ranges)
ranges *= -(-int(sys.argv[1]) // frames)
begin = time.perf_counter()
deque(scan_frames(running, ranges), 0)
took = time.perf_counter() - begin
tracemalloc.start()
deque(scan_frames(running, ranges), 0)
print(tracemalloc.get_traced_memory()[1] / 1e6, took * 1e3)
"""
LARGE = 256 << 18  # frames: 256 GiB


# One wait that is long by chance must not decide: a scan that makes the program wait does so each
# time.
SCANS = 15

# Two batches of 65,536 frames, if each were a run of its own: nine columns of one, and the six that
# the other is made from, with a few of each between. A chunk of copies is four megabytes more.
HELD_MB = 32.0


def ram_frames(plan: Plan) -> list[Row]:
    """Scan all frames for kind, owner, mapcount and object, with and without the program."""
    frames = sum(last - first for first, last in read_ranges())
    with closing((running := open_running(open_bpf(), loads=True)).kernel):
        copies = running._replace(shortcuts=None)
        got = interleave(
            plan.rounds,
            {
                "ours": lambda: timed(lambda: scan(running)),
                "copies": lambda: timed(lambda: scan(copies)),
                "first": lambda: timed(scan_once),
                "theirs": lambda: int(output([program("kpage_all")]).split()[0]) / 1e6,
            },
        )
    what = f"all {frames} frames of RAM: kind, owner, mapcount, object"
    held, _ = scan_long(frames)
    much, took = scan_long(LARGE // plan.scale)
    large = size((LARGE // plan.scale) >> 8)
    return [
        Row(what, EVERYTHING, "ms", got["ours"], got["theirs"], Limit(1 / 6)),
        Row(f"{what}, kernel opened for it", EVERYTHING, "ms", got["first"], got["theirs"],
            Limit(1 / 6)),
        Row(f"{what}, from copies of struct pages", EVERYTHING, "ms", got["copies"], got["theirs"],
            Limit(1 / 2)),
        Row("held at most by that scan", "", "MB", (held,), limit=Limit(HELD_MB, Of.WORST)),
        Row(f"held at most by a scan of {large}", "of this machine's RAM", "MB", (much,),
            (held,), Limit(1.2), note="RAM is read again and again, as if there were that much"),
        Row(f"a scan of {large}", "of this machine's RAM", "ms", (took,), got["ours"]),
    ]


def scan_long(frames: int) -> tuple[float, float]:
    # (MB held, milliseconds)
    held, took = output([sys.executable, "-c", LONG, str(frames)]).split()
    return float(held), float(took)


def scan(running: RunningKernel) -> None:
    deque(scan_frames(running, read_ranges()), 0)


def scan_once() -> None:
    with closing((running := open_running(open_bpf(), loads=True)).kernel):
        scan(running)


def ram_stall(plan: Plan) -> list[Row]:
    """Scan all frames while a program maps, faults and unmaps, on another CPU and on the same."""
    running = open_running(open_bpf(), loads=True)
    with closing(running.kernel), asked("faults") as (pid, worst):
        scans = partial(scan, running)
        took = statistics.median(timed(scans) for _ in range(SCANS)) / 1e3
        works: dict[str, Callable[[], object]] = {
            "idle": partial(time.sleep, took),
            "scan": scans,
            "scan beside": partial(on_cpu_of, pid, scans),
            "sums beside": partial(on_cpu_of, pid, partial(for_seconds, took, add_up)),
        }
        rounds = [typical_waits(works, worst) for _ in range(plan.rounds)]
    found = {name: tuple(waits[name] for waits in rounds) for name in works}
    what = f"longest wait of a program that maps and faults, median of {SCANS}, during"
    return [
        Row(f"{what} a scan", "idle for as long", "ms", found["scan"], found["idle"]),
        Row(f"{what} a scan on its CPU", "a Python loop there", "ms", found["scan beside"],
            found["sums beside"]),
    ]


def typical_waits(
    works: dict[str, Callable[[], object]], worst: Callable[[], float]
) -> dict[str, float]:
    """Do each of ``works`` in turn, SCANS times; return the median of its worst waits."""
    waits: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(SCANS):
        for name, work in works.items():
            worst()
            work()
            waits[name].append(worst())
    return {name: statistics.median(samples) for name, samples in waits.items()}


@contextmanager
def asked(name: str) -> Iterator[tuple[int, Callable[[], float]]]:
    """Run ``name``.c until the block ends; yields its pid and what asks it for milliseconds."""
    with subprocess.Popen(
        [program(name)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        given, told = process.stdin, process.stdout
        assert given is not None and told is not None
        told.readline()

        def ask() -> float:
            given.write("\n")
            return int(told.readline().split()[0]) / 1e6

        try:
            yield process.pid, ask
        finally:
            process.kill()


def for_seconds(seconds: float, work: Callable[[], object]) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        work()


def add_up() -> int:
    return sum(range(1 << 16))


def on_cpu_of(pid: int, work: Callable[[], object]) -> None:
    """Do ``work`` on one CPU, with ``pid`` on the same."""
    own = os.sched_getaffinity(0)
    try:
        for process in (0, pid):
            os.sched_setaffinity(process, {min(own)})
        work()
    finally:
        for process in (0, pid):
            os.sched_setaffinity(process, own)
