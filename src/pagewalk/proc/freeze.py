"""Stop a process during a walk, and resume it whatever happens to us."""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pagewalk.model.errors import NotPermitted, NotStopped, PagewalkError, ProcessGone, Unsupported
from pagewalk.proc.switches import cpu_time
from pagewalk.proc.target import Stat, Target, thread_stats

PATIENCE_S = 5.0
LOOK_S = 0.001  # between two looks at a process that is to stop
# How many threads are looked at one by one; of more, in how many looks none may have run: on a busy
# machine one that is to stop may wait that long for a CPU.
FEW, STILL = 64, 3

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
    NotStopped when a thread does not stop in ``patience_s``, at most 5.
    """
    if target.state() in "Tt":
        yield False
        return
    with terminating(), watched(target):
        send(target, signal.SIGSTOP)
        wait_stopped(target, min(patience_s, PATIENCE_S))
        yield True


@dataclass
class Stop:
    """A stop: until when nobody resumes the process, and for how long it was stopped in the end.

    ``until_ns`` is of time.monotonic_ns. Both are 0 if others had stopped it.
    """

    until_ns: int = 0
    ns: int = 0


@contextmanager
def frozen_for(target: Target, longest_ns: int) -> Iterator[Stop]:
    """Stop ``target`` inside the block as frozen does, but for no longer than ``longest_ns``.

    It is then resumed by a child process, however busy we are: what was read until then, and only
    that, was read of a stopped process. That is as much earlier as it took to stop, since the
    kernel wakes up each thread in either case. What may come on top is that the child waits for a
    CPU. Raises what frozen does.

    More than FEW threads are not waited for one by one, which takes a tenth of a millisecond each:
    when one has stopped, the kernel has told all of them to stop before they next return to user
    space (do_signal_stop, kernel/signal.c), and when no CPU time passes, none is on its way there.
    """
    stop = Stop()
    if target.state() in "Tt":
        yield stop
        return
    began = time.monotonic_ns()
    stop.until_ns = began + longest_ns
    with terminating(), watched(target, stop) as tell:
        send(target, signal.SIGSTOP)
        wait_at_rest(target, min(longest_ns / 1e9, PATIENCE_S))
        stop.until_ns -= time.monotonic_ns() - began
        with suppress(BrokenPipeError):  # its time is over, and the child has ended
            os.write(tell, b"%d" % stop.until_ns)
        yield stop


@contextmanager
def watched(target: Target, stop: Stop | None = None) -> Iterator[int]:
    # A child process reads from a pipe. It resumes the target when that closes, because we are done
    # or gone, or at the end of `stop`, of which it may be told a new one, and answers when.
    ours, theirs = os.pipe()
    answer, answers = os.pipe()
    began = time.monotonic_ns()
    child = os.fork()
    if child == 0:
        os.close(theirs)
        os.setsid()  # a signal that kills our process group must not kill the child too
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        wait_for_end(ours, None if stop is None else stop.until_ns)
        with suppress(PagewalkError):
            send(target, signal.SIGCONT)
        with suppress(OSError):
            os.write(answers, b"%d" % (time.monotonic_ns() - began))
        os._exit(0)
    os.close(ours)
    os.close(answers)
    try:
        yield theirs
    finally:
        os.close(theirs)
        os.waitpid(child, 0)
        said = os.read(answer, 32)
        os.close(answer)
        if not said:  # somebody killed it
            send(target, signal.SIGCONT)
        if stop is not None:
            stop.ns = int(said) if said else time.monotonic_ns() - began


def wait_for_end(pipe: int, until_ns: int | None) -> None:
    # Returns when the pipe is closed, or at `until_ns`, or a time that is read from the pipe.
    while True:
        left = None if until_ns is None else max(until_ns - time.monotonic_ns(), 0) / 1e9
        if not select.select([pipe], [], [], left)[0]:
            return
        said = os.read(pipe, 32)
        if not said:
            return
        until_ns = int(said)


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
        raise send_error(err, target.pid, number) from None


def send_error(err: OSError, pid: int, number: signal.Signals) -> PagewalkError:
    what, option = f"cannot stop process {pid}", "--freeze"
    if number == signal.SIGQUIT:  # which lets a JVM answer: heap/attach.py
        what, option = f"cannot send SIGQUIT to process {pid}", "--ask"
    if err.errno == errno.EINVAL:  # access_pidfd_pidns(), kernel/signal.c
        return NotPermitted(
            what,
            "it is outside the PID namespace of this command, and the kernel delivers signals"
            " into nested namespaces only",
            f"run pagewalk in its namespace (on the host, nsenter --pid), or drop {option}",
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
            raise NotStopped(unstoppable(target.pid, *moving[0], patience_s))
        time.sleep(LOOK_S)


def wait_at_rest(target: Target, patience_s: float) -> None:
    """Wait until ``target`` has stopped: see frozen_for."""
    if target.stat().threads <= FEW or cpu_time(target) is None:
        wait_stopped(target, patience_s)
        return
    deadline = time.monotonic() + patience_s
    before, still = None, 0
    while True:
        stat = target.stat()
        now = cpu_time(target)
        if stat.ending:
            raise ProcessGone(target.pid, "ended")
        still = still + 1 if now == before else 0
        if stat.state in "Tt" and still == STILL:
            return
        if time.monotonic() > deadline:
            raise NotStopped(unstoppable(target.pid, target.pid, stat, patience_s))
        before = now
        time.sleep(LOOK_S)


def unstoppable(pid: int, tid: int, stat: Stat, patience_s: float) -> str:
    doing = STATES.get(stat.state, "neither running nor stopped")
    return (
        f"process {pid} did not stop within {patience_s:g} s and has been resumed: its thread"
        f" {tid} ({stat.comm}) is {doing} (state {stat.state}); walk it without --freeze"
    )
