"""/proc/PID/task/TID/status: whether any thread of a process has run in the meantime."""

from __future__ import annotations

import contextlib
import os
import re

from pagewalk.proc.files import numbers, read_bytes
from pagewalk.proc.refusals import reading
from pagewalk.proc.target import Target, folder

RUNNING = re.compile(rb"(?m)^State:\tR")


def read_switches(target: Target) -> dict[str, tuple[int, int]] | None:
    """Return how often each thread gave up its CPU and was preempted, by its number.

    None if one is running now. A thread that runs gives up its CPU before it sleeps again: if two
    readings are equal, none has run in between.
    """
    found = {}
    with reading(target.pid, "task", target.pidfd), folder(target.pidfd, "task") as task:
        for tid in os.listdir(task):
            gone = contextlib.suppress(FileNotFoundError, ProcessLookupError)
            with gone:
                status = read_bytes(f"{tid}/status", task)
                if RUNNING.search(status):
                    return None
                found[tid] = (numbers(status, b"voluntary_ctxt_switches")[0],
                              numbers(status, b"nonvoluntary_ctxt_switches")[0])
    return found
