"""`record --armed`: what it costs while nothing happens, and how soon the file is complete."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from tests.live.charged import MIB, Group, group

from benchmarks.opponents import PAGEWALK, environment, program, timed, whole
from benchmarks.rows import Limit, Of, Plan, Row, interleave, size
from pagewalk.proc.cgroup_numbers import FILES, read_numbers
from pagewalk.proc.cgroups import find_hierarchy

IDLE_S, PROCESSES = 600, 8
# What people do instead: a loop that reads one number a second, and atop, which they let write down
# all processes, here every 10 s; the recorder looks as often on cgroup v2, and never on v1.
LOOP = 'while :; do cat "$1"; sleep 1; done'
LOOP_NAME = "a loop in sh: cat the cgroup's usage, sleep 1"
ATOP_NAME = "atop -w FILE 10"


def armed(plan: Plan) -> list[Row]:
    """Let a recorder and its opponents idle, then have it record 2 GiB of several processes."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        return [*idle(IDLE_S // plan.scale, Path(folder)), *triggered(plan, Path(folder))]


def idle(seconds: int, folder: Path) -> Iterator[Row]:
    """Yield the CPU time and the memory of each, all of them at once."""
    with ExitStack() as stack:
        where = stack.enter_context(group(f"benchmarks-armed-{os.getpid()}"))
        stack.enter_context(populated(where, 64))
        limit_of(where).write_text(str(1024 * MIB))  # on version 2 it looks how near that is
        recorder = stack.enter_context(recording(where, folder / "idle"))
        usage = where.directory / FILES[find_hierarchy().version]["current"]
        others = {LOOP_NAME: ["sh", "-c", LOOP, "sh", str(usage)]}
        if shutil.which("atop"):
            others[ATOP_NAME] = ["atop", "-w", str(folder / "atop"), "10"]
        pids = {"": recorder, **{name: stack.enter_context(running(words))
                                 for name, words in others.items()}}
        time.sleep(5)  # until all of them have started
        before = {name: cpu_ms(pid) for name, pid in pids.items()}
        time.sleep(seconds)
        spent = {name: cpu_ms(pid) - before[name] for name, pid in pids.items()}
        held = {name: megabytes(pid) for name, pid in pids.items()}
    what = f"record --armed, idle for {seconds} s"
    yield Row(f"{what}: CPU", LOOP_NAME, "ms", (spent[""],), (spent[LOOP_NAME],), Limit(1 / 20))
    yield Row(f"{what}: memory", "", "MB", (held[""],), limit=Limit(200, Of.WORST),
              note="Python, numpy and pyarrow, which it has loaded before there is no time")
    if ATOP_NAME in pids:
        yield Row(f"{what}: CPU", ATOP_NAME, "ms", (spent[""],), (spent[ATOP_NAME],))
        yield Row(f"{what}: memory", ATOP_NAME, "MB", (held[""],), (held[ATOP_NAME],))
    else:
        yield Row(f"{what}: CPU and memory", ATOP_NAME, "ms", missing="atop is not installed")


def triggered(plan: Plan, folder: Path) -> Iterator[Row]:
    """Yield how long it takes from a limit that is near to the whole file of the group."""
    mib = plan.mib(2)
    with ExitStack() as stack:
        where = stack.enter_context(group(f"benchmarks-armed-{os.getpid()}"))
        pids = [stack.enter_context(populated(where, mib // PROCESSES)) for _ in range(PROCESSES)]
        files = folder / "triggered"
        stack.enter_context(recording(where, files, "--at-most", "0", "--look", "0",
                                      "--pressure", "0", "--keep", str(plan.rounds + 1)))
        large = folder / "large"
        with open(large, "wb") as out:
            for _ in range(mib):
                out.write(os.urandom(MIB))
        got = interleave(plan.rounds, {
            "file": partial(near, where, files),
            "smaps": lambda: whole(["cat", *(f"/proc/{pid}/smaps" for pid in pids)]),
            "cp": lambda: whole(["cp", str(large), str(folder / "copy")]),
        })
    what = f"record --armed: {size(mib)} of {PROCESSES} processes, from the trigger to the file"
    yield Row(what, "cp of as many bytes, which are in the page cache", "ms", got["file"],
              got["cp"], Limit(1))
    yield Row(what, "cat smaps of them, which holds their locks", "ms", got["file"], got["smaps"])


def near(where: Group, files: Path) -> float:
    """Bring the group near its limit, and return how many ms later there is one file more."""
    limit, used = limit_of(where), read_numbers(find_hierarchy(), where.path).current
    assert used is not None
    made = len(names(files))
    took = timed(lambda: (limit.write_text(str(used + (used >> 6))), until_more(files, made)))
    limit.write_text(str(4 * used))
    time.sleep(0.5)  # until it has noticed that
    return took


def limit_of(where: Group) -> Path:
    return where.directory / FILES[find_hierarchy().version]["limit"]


def until_more(files: Path, made: int) -> None:
    while len(names(files)) <= made:
        time.sleep(0.0005)


def names(files: Path) -> list[str]:
    return [name for name in os.listdir(files) if "Z-near-" in name and name.endswith(".parquet")]


@contextmanager
def populated(where: Group, mib: int) -> Iterator[int]:
    """Run a process with that much memory in a group; yields its pid."""
    line = f"echo 0 > {where.procs} && exec {program('populated')} anon {mib}"
    with subprocess.Popen(["sh", "-c", line], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError("populated ended before it was ready")
            yield process.pid
        finally:
            process.kill()


@contextmanager
def recording(where: Group, folder: Path, *options: str) -> Iterator[int]:
    """Arm a recorder of a group; yields its pid once it waits."""
    words = [*PAGEWALK, "record", "--armed", where.path, "-o", str(folder), *options]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          env=environment()) as process:
        try:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if "pagewalk: armed: " in line:
                    break
            else:
                raise RuntimeError("".join(said))
            yield process.pid
        finally:
            process.terminate()


@contextmanager
def running(words: Sequence[str]) -> Iterator[int]:
    """Run a command that does not end by itself."""
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def cpu_ms(pid: int) -> float:
    """Return the CPU time of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * 1000 / os.sysconf("SC_CLK_TCK")


def megabytes(pid: int) -> float:
    """Return the RSS of a process."""
    said = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert said is not None
    return int(said[1]) * 1024 / 1e6
