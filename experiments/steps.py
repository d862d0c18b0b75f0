"""Drive steps.c, and read what the kernel says after each step. Imports only the library.

As a program, python -m experiments.steps STEPS HELLO..., it prints as JSON how far each counter
lags, step by step, and what the kernel says about each hello world. That is how it runs on other
kernels, where Python is slow.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PAGE = 4096
STEPS = 200


class Stepper:
    """One running steps.c."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pid = process.pid

    def tell(self, command: str) -> None:
        """Send one command; all except "d" are done when this returns."""
        assert self.process.stdin is not None and self.process.stdout is not None
        os.write(self.process.stdin.fileno(), command.encode())
        if command != "d":
            os.read(self.process.stdout.fileno(), 1)


@contextmanager
def stepper(program: Path) -> Iterator[Stepper]:
    """Run steps.c until the block ends."""
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Stepper(process)
        finally:
            process.kill()


def said(pid: int) -> dict[str, int]:
    """Return the RSS of a process in pages, according to smaps, status, statm and stat.

    "private" is how many of them no other process maps, according to smaps.
    """
    status = fields(Path(f"/proc/{pid}/status").read_text())
    smaps = fields(Path(f"/proc/{pid}/smaps_rollup").read_text())
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return {
        "smaps": smaps["Rss"] * 1024 // PAGE,
        "status": status["VmRSS"] * 1024 // PAGE,
        "statm": int(Path(f"/proc/{pid}/statm").read_text().split()[1]),
        "stat": int(stat[24 - 3]),
        "private": (smaps["Private_Clean"] + smaps["Private_Dirty"]) * 1024 // PAGE,
    }


def fields(text: str) -> dict[str, int]:
    """Return the "kB" lines of a status or smaps_rollup file in KiB, by name."""
    rows = (line.partition(":") for line in text.splitlines() if line.endswith(" kB"))
    return {key: int(value.split()[0]) for key, _, value in rows}


def lags(program: Path) -> dict[str, list[int]]:
    """Write page after page; return by file how many pages it lagged behind smaps after each."""
    short: dict[str, list[int]] = {"status": [], "statm": [], "stat": []}
    with stepper(program) as steps:
        for _ in range(STEPS):
            steps.tell("w")
            now = said(steps.pid)
            for name, row in short.items():
                row.append(now["smaps"] - now[name])
    return short


def said_of(hello: Path) -> dict[str, int]:
    """Run a hello world, and return what the kernel says about it once it waits."""
    with subprocess.Popen([hello], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            while "(sleeping)" not in Path(f"/proc/{process.pid}/status").read_text():
                time.sleep(0.01)
            return said(process.pid)
        finally:
            process.kill()


def report(steps: Path, hellos: Sequence[Path]) -> dict[str, object]:
    """Return what this module prints as a program."""
    return {
        "release": os.uname().release,
        "short": lags(steps),
        "hello": {path.name: said_of(path) for path in hellos},
    }


if __name__ == "__main__":
    json.dump(report(Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]]), sys.stdout)
