"""Stop a process during a walk, and resume it whatever happens to us."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pagewalk.model.errors import NotPermitted, PagewalkError, ProcessGone, Unsupported
from pagewalk.proc.target import Stat, Target, thread_stats

PATIENCE_S = 5.0

# What a thread that does not stop may be doing, by its state in stat (filesystems/proc.rst).
STATES = {
    "D": "waiting inside the kernel, where no signal is taken",
    "R": "running inside the kernel, or waiting for a CPU",
    "S": "sleeping; a cgroup may have frozen it",
}


@contextmanager
def frozen(target: Target, patience_s: float = PATIENCE_S) -> Iterator[bool]:
    """Stop ``target`` with SIGSTOP inside the block, and resume it when the block ends.

    It is resumed after an error, Ctrl-C, SIGTERM and SIGHUP too, and a child process resumes it
    even if we are killed. Yields True, or False for a process that was already stopped, which stays
    stopped. Its parent can see the stop. Raises NotPermitted, ProcessGone, Unsupported, or
    PagewalkError when a thread does not stop in ``patience_s``, at most 5.
    """
    if target.state() in "Tt":
        yield False
        return
    with terminating(), watched(target):
        send(target, signal.SIGSTOP)
        wait_stopped(target, min(patience_s, PATIENCE_S))
        yield True


@contextmanager
def watched(target: Target) -> Iterator[None]:
    # A child process reads from a pipe. It resumes the target when told to, or when the pipe closes
    # because we are gone.
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(theirs)
        os.setsid()  # a signal that kills our process group must not kill the child too
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.read(ours, 1)
        with suppress(PagewalkError):
            send(target, signal.SIGCONT)
        os._exit(0)
    os.close(ours)
    try:
        yield
    finally:
        os.close(theirs)
        os.waitpid(child, 0)


@contextmanager
def terminating() -> Iterator[None]:
    # SIGTERM and SIGHUP raise SystemExit, so that every finally block runs.
    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {n: signal.signal(n, leave) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def send(target: Target, number: signal.Signals) -> None:
    """Send a signal to ``target`` through its descriptor, so that no other process can get it.

    Raises ProcessGone, NotPermitted, Unsupported.
    """
    try:
        signal.pidfd_send_signal(target.pidfd, number)
    except ProcessLookupError:
        raise ProcessGone(target.pid, "ended") from None
    except OSError as err:
        raise send_error(err, target.pid) from None


def send_error(err: OSError, pid: int) -> PagewalkError:
    what = f"cannot stop process {pid}"
    if err.errno == errno.EINVAL:  # access_pidfd_pidns(), kernel/signal.c
        return NotPermitted(
            what,
            "it is outside the PID namespace of this command, and the kernel delivers signals"
            " into nested namespaces only",
            "run pagewalk in its namespace (on the host, nsenter --pid), or drop --freeze",
        )
    if err.errno in (errno.ENOSYS, errno.EBADF):
        return Unsupported("pidfd_send_signal(2)", "5.1")
    return NotPermitted(what, os.strerror(err.errno or 0).lower(), "run as root")


def wait_stopped(target: Target, patience_s: float = PATIENCE_S) -> None:
    """Wait until every thread of ``target`` has stopped or is exiting."""
    deadline = time.monotonic() + patience_s
    while True:
        threads = thread_stats(target)
        if all(stat.ending for _, stat in threads):
            raise ProcessGone(target.pid, "ended")
        moving = [(tid, stat) for tid, stat in threads if not (stat.state in "Tt" or stat.ending)]
        if not moving:
            return
        if time.monotonic() > deadline:
            raise PagewalkError(unstoppable(target.pid, *moving[0], patience_s))
        time.sleep(0.001)


def unstoppable(pid: int, tid: int, stat: Stat, patience_s: float) -> str:
    doing = STATES.get(stat.state, "neither running nor stopped")
    return (
        f"process {pid} did not stop within {patience_s:g} s and has been resumed: its thread"
        f" {tid} ({stat.comm}) is {doing} (state {stat.state}); walk it without --freeze"
    )
