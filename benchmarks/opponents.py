"""The opponents, compiled here or run as a user would run them. All return milliseconds."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).parent


@functools.cache
def program(name: str) -> str:
    """Compile ``name``.c from this folder, once per run, and return the program's path."""
    folder = Path(tempfile.mkdtemp(prefix="benchmarks-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    command = ["cc", "-O2", "-Wall", "-Wextra", "-o", str(folder / name), str(HERE / f"{name}.c")]
    subprocess.run(command, check=True)
    return str(folder / name)


def pagemap_loop(pid: int) -> float:
    """Count a process's pages in C, word by word of pagemap."""
    return int(output([program("pagemap_loop"), str(pid)]).split()[0]) / 1e6


def kpage_read(pid: int) -> float:
    """Read kpageflags and kpagecount for a process's frames in C, sorted and in runs."""
    return int(output([program("kpage_read"), str(pid)]).split()[0]) / 1e6


def cat(pid: int, name: str) -> float:
    """Read the whole of /proc/PID/``name``, as cat does."""
    return whole(["cat", f"/proc/{pid}/{name}"])


def timed(call: Callable[[], object]) -> float:
    """Return how many milliseconds ``call`` takes."""
    begin = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - begin) / 1e6


def whole(command: Sequence[str]) -> float:
    """Run a command as a user would and return its total time, startup and exit included."""
    return timed(
        lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment())
    )


def output(command: Sequence[str]) -> str:
    """Return what a command prints."""
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment())
    return done.stdout


def environment() -> dict[str, str]:
    """Return a user's environment, in which Python may cache its compiled modules."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


# The command as installed next to this interpreter.
PAGEWALK = (str(Path(sys.executable).with_name("pagewalk")),)
