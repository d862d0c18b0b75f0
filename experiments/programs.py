"""Compile the experiments' own programs, and run programs so that they always end with us."""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
# linux/prctl.h
PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 36, 37


@functools.cache
def folder() -> Path:
    """Return a temporary directory on a disk, removed at the end."""
    path = Path(tempfile.mkdtemp(prefix="experiments-", dir="/var/tmp"))
    # PostgreSQL runs as a separate user, which must be able to reach its directory in there.
    path.chmod(0o755)
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@functools.cache
def program(name: str, *flags: str) -> Path:
    """Compile ``name``.c from this folder with ``flags``, once per run, and return the program."""
    path = folder() / "-".join([name, *(flag.strip("-") for flag in flags)])
    command = ["cc", "-O1", "-Wall", "-Wextra", *flags, "-o", str(path), str(HERE / f"{name}.c")]
    subprocess.run(command, check=True)
    return path


@contextmanager
def running(command: Sequence[object], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``command`` until the block ends; it and every process it started are then killed."""
    with orphans_come_to_us():
        process = subprocess.Popen([str(word) for word in command], **options)
        try:
            yield process
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill and reap a family, its head first, so that no member is restarted."""
    with suppress(psutil.NoSuchProcess):
        head = psutil.Process(process.pid)
        head.suspend()
        children = head.children(recursive=True)
        head.kill()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        for child in children:
            with suppress(ChildProcessError):
                os.waitpid(child.pid, 0)
    with process:
        process.wait()


@contextmanager
def orphans_come_to_us() -> Iterator[None]:
    # Processes whose parent dies first would be left to init, which does not reap them everywhere.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    before = ctypes.c_int()
    prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, before.value, 0, 0, 0)


def wait(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Wait until ``condition()`` is true; raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.02)
