"""Wait until a family of processes is idle, and stop it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from experiments.family import Family
from experiments.programs import wait

TICK = 1 / os.sysconf("SC_CLK_TCK")


def wait_until_quiet(family: Family, seconds: float, patience: float = 90.0) -> bool:
    """Return True once ``family`` has used hardly any CPU, and not grown, for ``seconds``.

    False if it is still busy after ``patience`` seconds.
    """
    deadline = time.monotonic() + patience
    before = seen(family)
    while time.monotonic() < deadline:
        time.sleep(seconds)
        now = seen(family)
        # A hundredth of a CPU is a timer that fires, not work.
        if now[1:] == before[1:] and (now[0] - before[0]) * TICK <= max(0.01 * seconds, TICK):
            return True
        before = now
    return False


def seen(family: Family) -> tuple[int, int, list[int]]:
    """Return the clock ticks that ``family`` has used, the pages it holds, and its members."""
    ticks = pages = 0
    pids = [pid for _, pid in family()]
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()
            ticks += int(stat[11]) + int(stat[12])
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return ticks, pages, pids


@contextmanager
def stopped(pids: Sequence[int]) -> Iterator[None]:
    """Hold every thread of ``pids`` in state T until the block ends; always resumed."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        wait(lambda: set(states(pids)) <= set("TZX"), "the family to stop")
        yield
    finally:
        for pid in reversed(pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def states(pids: Sequence[int]) -> list[str]:
    """Return the state letter of every thread."""
    found = []
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").glob("*/stat"):
            with suppress(FileNotFoundError, ProcessLookupError):
                found.append(path.read_text(errors="replace").rpartition(") ")[2][0])
    return found
