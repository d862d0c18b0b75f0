"""memory.oom_control of cgroup v1: have processes wait at the limit instead of being killed.

At the limit, with 1 in it, a process waits in state D until something is freed, the limit is
raised, or 0 is written (mem_cgroup_oom_synchronize, mm/memcontrol-v1.c). Version 2 has no such
thing.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pagewalk.model.errors import BadRequest, NotPermitted
from pagewalk.proc.cgroup_numbers import parse_counts
from pagewalk.proc.files import LARGEST
from pagewalk.proc.freeze import wait_for_end

FILE = "memory.oom_control"
LONGEST_S = 10.0  # for which processes wait at most, whatever becomes of us
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
KILLED_S, LOOK_S = 5.0, 0.005  # how long the kernel may take to kill what waited


@dataclass
class Hold:
    """Processes of a group wait at its limit while ``start`` is in force, until ``release``.

    ``control`` is memory.oom_control, open for reading and writing. Between the two a child
    process waits, which puts it back if we end in any way, or after LONGEST_S of ``limit``.
    ``before`` says that others had set it: then it stays.
    """

    control: int
    before: bool = False
    child: int = 0
    pipe: int = -1

    def start(self) -> str:
        """Have processes wait at the limit from now on; return in words what that changes.

        Raises OSError if the group is gone.
        """
        self.before = bool(self.read()["oom_kill_disable"])
        if self.before:
            return f"{FILE} is 1 already: processes wait at the limit, and are not let go"
        ours, self.pipe = os.pipe()
        kept = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self.child = os.fork()
            if self.child == 0:
                os.close(self.pipe)
                put_back_at_end(self.control, ours)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, kept)
        os.close(ours)
        os.write(self.control, b"1")
        return (f"{FILE} is 1 while this runs: at the limit processes wait, in state D, for up to"
                f" {LONGEST_S:g} s until they are recorded, and only then one of them is killed; if"
                f" all of pagewalk is killed with -9, write 0 into {FILE}")

    def limit(self) -> bool:
        """Say that processes may be waiting: they do so no longer than LONGEST_S from now.

        Returns whether they wait because of us.
        """
        if not self.child:
            return False
        with suppress(BrokenPipeError):  # the child was killed
            os.write(self.pipe, b"%d" % (time.monotonic_ns() + int(LONGEST_S * 1e9)))
        return True

    def release(self) -> None:
        """Let them go on, which gets one of them killed; does nothing if it was not started."""
        if not self.child:
            return
        os.close(self.pipe)
        with suppress(OSError):  # the group is gone
            os.write(self.control, b"0")
        os.waitpid(self.child, 0)
        self.child, self.pipe = 0, -1

    def wait_for_kill(self, kills: int) -> None:
        """Wait until more than ``kills`` were counted, or nobody waits, or KILLED_S have passed."""
        until = time.monotonic() + KILLED_S
        while time.monotonic() < until:
            with suppress(OSError):
                now = self.read()
                if now.get("oom_kill", 0) > kills or not now["under_oom"]:
                    return
            time.sleep(LOOK_S)

    def read(self) -> dict[str, int]:
        """Return the lines of memory.oom_control; raises OSError, BadText."""
        return parse_counts(os.pread(self.control, LARGEST, 0), FILE)


@contextmanager
def open_hold(group: int, version: int) -> Iterator[Hold]:
    """Yield a Hold of the group whose directory is ``group``, and release it at the end.

    Raises BadRequest in version 2, NotPermitted, OSError if the group is gone.
    """
    if version != 1:
        raise BadRequest("--hold needs cgroup v1: version 2 has nothing that makes processes wait"
                         " at the limit; memory.high below memory.max slows them down before it")
    try:
        control = os.open(FILE, os.O_RDWR | os.O_CLOEXEC, dir_fd=group)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise NotPermitted(f"cannot write {FILE}", os.strerror(error.errno).lower(),
                           "run as root, or leave out --hold") from error
    hold = Hold(control)
    try:
        yield hold
    finally:
        hold.release()
        os.close(control)


def put_back_at_end(control: int, pipe: int) -> None:
    """Wait for the end of our parent, or what it says is the latest; write 0, and exit."""
    # The signals stay blocked: our parent ends by them, and then we do.
    try:
        os.setsid()  # a signal that kills our process group must not kill us too
        wait_for_end(pipe, None)
        os.write(control, b"0")
    finally:
        os._exit(0)
