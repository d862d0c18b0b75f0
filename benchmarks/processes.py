"""The processes that are measured: the tests' targets, and programs in this folder."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.targets import Running, start

from benchmarks.opponents import program

__all__ = ["Running", "available_mib", "own", "start"]


@contextmanager
def own(name: str, *args: object) -> Iterator[int]:
    """Run ``name``.c of this folder until the block ends; yields its pid once it prints a line."""
    command = [program(name), *map(str, args)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError(f"{name} ended before it was ready")
            yield process.pid
        finally:
            process.kill()


def available_mib() -> int:
    """Return how much memory the machine has available, in MiB."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(line for line in lines if line.startswith("MemAvailable:"))
    return int(free.split()[1]) >> 10
