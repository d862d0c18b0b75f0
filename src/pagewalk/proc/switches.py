"""Whether any thread of a process has run in the meantime."""

from __future__ import annotations

import contextlib
import os
import re
import time

from pagewalk.proc.files import numbers, read_bytes
from pagewalk.proc.namespace import own_numbers
from pagewalk.proc.refusals import reading
from pagewalk.proc.target import Target, folder

RUNNING = re.compile(rb"(?m)^State:\tR")


def read_switches(target: Target) -> dict[str, tuple[int, int]] | None:
    """Return how often each thread gave up its CPU and was preempted, by its number.

    None if one is running now. A thread that runs gives up its CPU before it sleeps again: if two
    readings are equal, none has run in between. Reading /proc/PID/task/TID/status takes 35
    microseconds a thread.
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


def cpu_time(target: Target) -> int | None:
    """Return how many ns all threads of ``target`` have run, those that run now included.

    None where its number means another process to us, or a kernel without CPU clocks. It takes a
    tenth of a microsecond a thread. A CPU timer of the process would hide who runs now until the
    next tick (proc_sample_cputime_atomic, kernel/time/posix-cpu-timers.c): the answer is good for a
    process that was told to stop. The number is that of ``target`` for as long as that is not
    reaped.
    """
    if len(own_numbers()) > 1:
        return None
    try:
        # MAKE_PROCESS_CPUCLOCK, CPUCLOCK_SCHED
        return time.clock_gettime_ns(~target.pid << 3 | 2)
    except OSError:
        return None
