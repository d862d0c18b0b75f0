"""Stop a process for the length of a walk, and let it go on whatever happens to us."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pagewalk.errors import NotPermitted, PagewalkError, ProcessGone
from pagewalk.proc.target import Target, parse_stat

PATIENCE_S = 5.0


@contextmanager
def frozen(target: Target) -> Iterator[None]:
    """Stop ``target`` with SIGSTOP inside the block, and resume it when the block ends.

    It is resumed after an error, Ctrl-C, SIGTERM and SIGHUP, and by a watching child even when we
    are killed. A process that was stopped already is left stopped. Its parent sees the stop.
    Raises NotPermitted, ProcessGone, or PagewalkError when a thread does not stop in time.
    """
    if target.state() in "Tt":
        yield
        return
    with terminating(), watched(target):
        send(target, signal.SIGSTOP)
        wait_stopped(target)
        yield


@contextmanager
def watched(target: Target) -> Iterator[None]:
    # A child holds the other end of a pipe. It resumes the target when told to, or when the pipe
    # breaks because we are gone.
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(theirs)
        os.setsid()  # what ends our process group must not end the child with it
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
    # SIGTERM and SIGHUP become SystemExit, so that every finally runs.
    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {n: signal.signal(n, leave) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def send(target: Target, number: signal.Signals) -> None:
    """Send a signal to ``target``, never to another process that got its pid."""
    try:
        if target.pidfd >= 0:
            signal.pidfd_send_signal(target.pidfd, number)
        else:
            os.kill(target.pid, number)
    except ProcessLookupError:
        raise ProcessGone(target.pid, "ended") from None
    except PermissionError:
        raise NotPermitted(
            f"cannot stop process {target.pid}", "operation not permitted", "run as root"
        ) from None


def wait_stopped(target: Target) -> None:
    """Wait until every thread of ``target`` is stopped."""
    deadline = time.monotonic() + PATIENCE_S
    while not all(state in "TtZX" for state in thread_states(target)):
        if time.monotonic() > deadline:
            raise PagewalkError(
                f"process {target.pid} does not stop: a thread of it is stuck in the kernel"
                " (state D); walk it without --freeze"
            )
        time.sleep(0.001)


def thread_states(target: Target) -> Iterator[str]:
    root = f"/proc/{target.pid}/task"
    for tid in os.listdir(root):
        try:
            with open(f"{root}/{tid}/stat", "rb") as file:
                yield parse_stat(file.read()).state
        except (FileNotFoundError, ProcessLookupError):
            continue  # that thread has ended
