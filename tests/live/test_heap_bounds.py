"""Bounds of heap: how long the target is stopped, and how much memory the command needs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pagewalk.heap import locate, read
from pagewalk.heap.heap import Heap
from pagewalk.model.errors import NotStopped
from pagewalk.proc.target import open_target
from pagewalk.sources import Source, close, open_source
from tests.live.command import pagewalk, run
from tests.live.test_heap import SAME, anonymous
from tests.live.test_heap_hostile import compiled, running, state_of
from tests.targets.glibcs import SUITES, allocating

pytestmark = pytest.mark.live

MIB = 1 << 20
PROGRAM = (Path(__file__).parents[1] / "targets" / "malloc" / "large.c").read_text()
TRIES = 5
# How long the process may be stopped beyond what was allowed, in ms: the child that resumes it
# waits for a CPU, at most a few slices of the scheduler (3 ms), and for each thread the kernel
# takes 10 us to wake it up (7 seen).
WAIT_MS, THREAD_MS = 20, 0.01


@contextmanager
def opened(pid: int) -> Iterator[Source]:
    """Open a process as the command does."""
    source = open_source("procfs", open_target(pid))
    try:
        yield source
    finally:
        close(source)


def stopped_once(
    source: Source, longest_ms: float, go: str | None = None
) -> tuple[Heap | None, float]:
    """Read a heap while its process is stopped; return it, and for how many ms that was."""
    with locate.memory_file(source) as fd:
        found, ns = read.read_once_stopped(
            source, fd, locate.Program(go, []), int(longest_ms * 1e6))
    return found.heap if found else None, ns / 1e6


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("pattern", ["scattered", "fastbins", "threads", "many_heaps",
                                     "blocked_break", "mapped"])
@pytest.mark.parametrize("largest_copy", [0, locate.LARGEST_COPY])
def test_a_restless_process_is_read_exactly_while_stopped(
    suite: str, pattern: str, largest_copy: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locate, "LARGEST_COPY", largest_copy)
    tried = []
    while len(tried) < TRIES:
        with allocating(suite, pattern, "restless") as program, opened(program.pid) as source:
            said = program.ask("info")
            heap = read.read_stopped_heap(source, 20 * 10**9)
            before = anonymous(program.pid)
            program.ask("trim")
            given_back = before - anonymous(program.pid)
        assert heap.stopped_ns > 0, heap.why
        found = {name: heap.total(name) for name in SAME[:-1]} | {"mmapped": heap.mmapped}
        expected = {name: said[name] for name in SAME} | {"trim": given_back}
        tried.append((heap.why, found | {"trim": heap.total("trim")}, expected))
        if heap.exact and tried[-1][1] == expected:
            return
    raise AssertionError(tried)


def test_a_process_at_rest_is_not_stopped() -> None:
    with allocating("bookworm", "threads") as program:
        ran = pagewalk("heap", program.pid, "--freeze", "--format", "json")
    assert ran.code == 0 and ran.json["exact"] is True and ran.json["stopped_ns"] == 0


@pytest.mark.parametrize(("threads", "mebibytes", "longest_ms"), [
    (1, 3000, 100), (10_000, 10, 400), (10_000, 1000, 400),
])
def test_it_is_not_stopped_for_longer_than_allowed(
    threads: int, mebibytes: int, longest_ms: int
) -> None:
    """However large the heap is and however many threads there are, read in time or not."""
    tried: list[object] = []
    with compiled(PROGRAM, "-w", "-pthread") as program, \
         running(program, mebibytes, threads) as process, opened(process.pid) as source:
        while len(tried) < TRIES:
            try:
                heap, ms = stopped_once(source, longest_ms)
            except NotStopped as err:  # on a busy machine, in which thousands wait for a CPU
                tried.append(err)
                continue
            assert state_of(process.pid) not in "Tt"
            assert heap is None or heap.exact or heap.why == read.RAN
            tried.append(ms)
            if ms <= longest_ms + WAIT_MS + THREAD_MS * threads:
                return
    raise AssertionError(f"stopped for {tried} ms instead of {longest_ms}")


def test_it_is_not_stopped_in_vain() -> None:
    with compiled(PROGRAM, "-w", "-pthread") as program, running(program, 2000, 1) as process:
        ran = pagewalk("heap", process.pid, "--freeze", "--longest-stop", "50", "--format", "json")
    assert ran.code == 3 and ran.json["exact"] is False and ran.json["stopped_ns"] == 0
    assert "the 50 ms for which it may be stopped" in ran.json["why"]
    assert "--longest-stop" in ran.json["why"]


def test_whoever_has_tried_to_stop_it_is_not_told_to_try_that() -> None:
    with allocating("bookworm", "scattered", "restless") as program:
        screens = [pagewalk("heap", program.pid, *options).out
                   for options in ((), ("--freeze", "--longest-stop", "1"))]
    assert "estimates" in screens[0] and "with --freeze" in screens[0]
    assert "with --freeze" not in screens[1]


# Of the command: for any process 40 MiB (Python and numpy) and some blocks of a few MiB; 125 bytes
# for each free chunk, of which the larger heap has 260 000: 31 MiB; and as much again, to spare.
# Stopping it, a copy of the heap comes on top.
SMALL = 120 * MIB


@pytest.mark.parametrize("mebibytes", [300, 3000])
@pytest.mark.parametrize("freeze", [False, True])
def test_its_memory_does_not_follow_the_size_of_the_heap(mebibytes: int, freeze: bool) -> None:
    # VmHWM belongs to the address space: ru_maxrss would include the tests' own before exec.
    script = "import sys; from pagewalk.cli import main; main(sys.argv[1:]);" \
             "sys.stderr.write(open('/proc/self/status').read())"
    options = ("--freeze", "--longest-stop", "60000") if freeze else ()
    with compiled(PROGRAM, "-w", "-pthread") as program, \
         running(program, mebibytes, 1) as process:
        ran = run(sys.executable, "-c", script, "heap", process.pid, "--format", "json", *options,
                  env={**os.environ, "MALLOC_ARENA_MAX": "1"})
    (peak,) = re.findall(r"(?m)^VmHWM:\s+(\d+) kB$", ran.err)
    assert int(peak) << 10 < SMALL + (locate.LARGEST_COPY if freeze else 0)


def test_more_free_chunks_than_fit_are_withheld(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "MOST_CHUNKS", 100)
    with allocating("bookworm", "scattered") as program, opened(program.pid) as source:
        heap = read.read_heap(source)
    assert heap.allocator == "glibc" and not heap.exact
    assert "free chunks: looking at them takes over a gigabyte" in heap.why
    assert [heap.total(name) for name in ("free", "trim", "in_use")] == [None] * 3
    assert heap.tcache is None and heap.total("obtained")
