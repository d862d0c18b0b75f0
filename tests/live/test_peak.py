"""The most that a set ever held: against what processes did, VmHWM and the memory cgroup."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pagewalk.proc.cgroups import find_hierarchy
from tests.live.bracket import look_again
from tests.live.test_share import KERNEL, server, shared
from tests.machine import memory_cgroup, prepared
from tests.targets import TARGETS, start

pytestmark = pytest.mark.live
MIB = 1 << 20
PEAK = {1: "memory.max_usage_in_bytes", 2: "memory.peak"}[find_hierarchy().version]
# Holds so many MiB as it is told.
HOLDER = """
import mmap, sys
for line in sys.stdin:
    held = mmap.mmap(-1, max(int(line), 1) << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held.madvise(mmap.MADV_NOHUGEPAGE)
    held[: int(line) << 20] = b"x" * (int(line) << 20)
    print("held", flush=True)
"""


@contextmanager
def holder() -> Iterator[subprocess.Popen[str]]:
    """Start HOLDER, which is killed at the end."""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", HOLDER], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def hold(process: subprocess.Popen[str], mib: int) -> None:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{mib}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "held\n"


def high_water(pid: int) -> int:
    """Return VmHWM of a process in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if "VmHWM" in line)


def test_what_was_held_before_is_below_the_bound_and_what_is_held_now_above() -> None:
    with holder() as one, holder() as two:
        for process, most in ((one, 64), (two, 48)):
            hold(process, most)
            hold(process, 1)  # what it held before is unmapped
        pids = [one.pid, two.pid]
        found = shared(*pids)
        peak: dict[str, Any] = found["peak"]
        assert peak["at_least"] == found["held"]
        assert peak["vm_hwm"] == sum(map(high_water, pids))
        assert peak["at_most"] == peak["vm_hwm"] + peak["vm_hwm_off"]
        # Each held so much at one moment, and the interpreter besides.
        assert peak["at_most"] >= (64 + 48) * MIB
        if found["held"] is not None:
            assert found["held"] < peak["at_most"]


@KERNEL
def test_the_peak_of_their_cgroup_is_told_if_it_is_theirs_alone() -> None:
    with memory_cgroup("peak") as group, server(group) as (_, pids):

        def look() -> None:
            before = (group / PEAK).read_text() if (group / PEAK).exists() else None
            found = shared("--cgroup", group)["peak"]
            if before is None:  # before Linux 5.19
                assert found["charged"] is None and "5.19" in found["not_told"][0]["why"]
                return
            assert before == (group / PEAK).read_text()
            assert (found["cgroup"], found["charged"]) == (f"/{group.name}", int(before))

        look_again(look)
        for some, why in ((pids[1:], f"/{group.name} has 1 other process"),
                          (pids[2:], f"/{group.name} has 2 other processes"),
                          ([*pids, os.getpid()], "they are not in a cgroup of their own")):
            found = shared(*some)["peak"]
            assert found["charged"] is found["cgroup"] is None
            assert {"what": "the peak of their cgroup", "why": why} in found["not_told"]


def test_hugetlb_pages_leave_no_bound() -> None:
    with prepared(*TARGETS["hugetlb_fork"].needs), start("hugetlb_fork", stopped=True) as running:
        found = shared(*running.pids)["peak"]
    assert found["at_most"] is found["vm_hwm"] is None
    assert "hugetlb pages, which VmHWM does not count" in found["not_told"][0]["why"]


def test_watched_it_is_the_most_that_was_seen() -> None:
    with holder() as process:
        hold(process, 64)
        words = [sys.executable, "-m", "pagewalk", "share", str(process.pid), "--watch", "0.1",
                 "--format", "json"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as watch:
            try:
                assert watch.stdout is not None
                first = document(watch)
                hold(process, 1)
                while (last := document(watch))["held"] > 32 * MIB:
                    pass
            finally:
                watch.send_signal(signal.SIGINT)
                watch.communicate()
    assert first["held"] > 64 * MIB
    assert last["peak"]["at_least"] >= first["held"] > last["held"]


def document(watch: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the next document that a command writes again and again."""
    assert watch.stdout is not None
    text = ""
    for line in watch.stdout:
        text += line
        if line == "}\n":
            break
    found: dict[str, Any] = json.loads(text)
    return found
