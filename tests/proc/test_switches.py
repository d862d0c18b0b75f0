"""Whether a thread of a process has run: real ones that sleep, work, and end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pagewalk.proc.switches import cpu_time, read_switches
from pagewalk.proc.target import Target, open_target

PATIENCE_S = 60.0


@contextmanager
def running(program: str) -> Iterator[tuple[subprocess.Popen[bytes], Target]]:
    """Run a Python program, which says when it is ready, until the block ends."""
    words = [sys.executable, "-u", "-c", program]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    target = open_target(process.pid)
    try:
        yield process, target
    finally:
        target.close()
        process.kill()
        process.wait()


def settled(target: Target) -> dict[str, tuple[int, int]]:
    """Return its switches once all of it waits."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = read_switches(target)
        if found is not None and found == read_switches(target):
            return found
    raise TimeoutError("it never rests")


def test_a_sleeping_process_stays_the_same_and_one_that_woke_up_does_not() -> None:
    program = "print('ready')\nwhile input(): print('ready')"
    with running(program) as (process, target):
        before = settled(target)
        assert set(before) == {str(process.pid)}
        assert settled(target) == before
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"go on\n")
        process.stdin.flush()
        process.stdout.readline()
        assert settled(target) != before


def test_every_thread_counts() -> None:
    program = """if True:
        import threading, time
        threading.Thread(target=time.sleep, args=(3600,)).start()
        print("ready")
    """
    with running(program) as (process, target):
        tasks = set(os.listdir(f"/proc/{process.pid}/task"))
        assert len(tasks) == 2 and set(settled(target)) == tasks


def test_a_process_that_works_is_seen_to_run() -> None:
    with running("print('ready')\nwhile True: pass") as (_, target):
        seen = set()
        for _ in range(20):
            before = read_switches(target)
            time.sleep(0.01)
            seen.add(before is not None and before == read_switches(target))
        assert seen == {False}


def test_the_cpu_time_stands_still_while_no_thread_runs_and_only_then() -> None:
    program = """if True:
        import threading, time
        threading.Thread(target=time.sleep, args=(3600,)).start()
        print("ready")
        while input():
            print("ready")
    """
    with running(program) as (process, target):
        before = settled(target)
        found = cpu_time(target)
        assert found is not None and cpu_time(target) == found
        # What the kernel counts for the process, in ticks.
        ticks = sum(map(int, Path(f"/proc/{process.pid}/stat").read_text().split()[13:15]))
        assert abs(found / 1e9 - ticks / os.sysconf("SC_CLK_TCK")) <= 2 / os.sysconf("SC_CLK_TCK")
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"go on\n")
        process.stdin.flush()
        process.stdout.readline()
        assert settled(target) != before and cpu_time(target) > found  # type: ignore[operator]


def test_the_cpu_time_of_a_process_that_works_grows() -> None:
    with running("print('ready')\nwhile True: pass") as (_, target):
        seen: set[int | None] = set()
        deadline = time.monotonic() + PATIENCE_S
        while len(seen) < 10 and time.monotonic() < deadline:
            seen.add(cpu_time(target))
            time.sleep(0.01)
    assert len(seen) == 10 and None not in seen
