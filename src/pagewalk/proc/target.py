"""Hold one process by file descriptors that can never come to mean another."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field
from typing import NamedTuple

from pagewalk.errors import BadText, NoAddressSpace, PagewalkError, ProcessGone
from pagewalk.proc.files import decode_name, numbers, words
from pagewalk.proc.refusals import meaning, reading
from pagewalk.proc.stall import Stall, read_slices

# do_task_stat, fs/proc/array.c. The name is not escaped here and may hold anything; what stands
# behind it is numbers to the end of the file, which ends in a newline.
STAT = re.compile(rb"(?s)\d+ \((.*)\) ([A-Za-z])((?: -?\d{1,20}){19,})\n")
PF_KTHREAD = 0x00200000  # include/linux/sched.h


@dataclass(frozen=True, eq=False)
class Target:
    """One process, held: ``dirfd`` is its /proc directory, ``pidfd`` its pidfd (-1 before 5.3).

    ``dirfd`` may be the directory of a live thread, when the main thread has exited. ``name`` is
    comm, ``exe`` the program's path or None where it may not be read.
    """

    pid: int
    name: str
    exe: str | None
    starttime: int
    threads: int
    dirfd: int
    pidfd: int
    kept: dict[str, int] = field(default_factory=dict, repr=False)

    def keep(self, *names: str) -> None:
        """Open files of /proc/PID now, for a reader that gives up its rights before it reads.

        The kernel asks for them at open. A file that it refuses is refused again when it is read.
        """
        for name in names:
            with contextlib.suppress(PagewalkError):
                self.kept[name] = self.open(name)

    def open(self, name: str) -> int:
        """Return a descriptor of /proc/PID/``name`` at its start, a kept one if there is one.

        Raises NotPermitted, ProcessGone.
        """
        if name in self.kept:
            fd = os.dup(self.kept[name])
            os.lseek(fd, 0, os.SEEK_SET)
            return fd
        with reading(self.pid, name, self.dirfd):
            return os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.dirfd)

    def read(self, name: str, stall: Stall | None = None) -> bytes:
        """Return the whole of /proc/PID/``name``; raises NotPermitted or ProcessGone.

        What holds the target's lock is read in slices, each of them timed on ``stall``.
        """
        fd = self.open(name)
        try:
            with reading(self.pid, name, self.dirfd):
                return read_all(fd) if stall is None else read_slices(fd, stall, name)
        finally:
            os.close(fd)

    def state(self) -> str:
        """Return the process's state letter (R S D T t Z X); raises ProcessGone once reaped."""
        return parse_stat(self.read("stat")).state

    def close(self) -> None:
        """Give the descriptors back."""
        for fd in (self.dirfd, self.pidfd, *self.kept.values()):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)


class Stat(NamedTuple):
    """The fields of /proc/PID/stat we use; ``rss`` in pages, ``vsize`` in bytes."""

    comm: str
    state: str
    flags: int
    threads: int
    starttime: int
    vsize: int
    rss: int


def parse_stat(text: bytes) -> Stat:
    """Return the fields of a /proc/PID/stat file; comm may hold anything. Raises BadText."""
    found = STAT.fullmatch(text)
    if not found:
        raise BadText("stat", 1, text)
    flags, threads, starttime, vsize, rss = (
        int(words(found[3])[at - 4]) for at in (9, 20, 22, 23, 24)  # as proc_pid_stat(5) counts
    )
    return Stat(decode_name(found[1]), decode_name(found[2]), flags, threads, starttime, vsize, rss)


def read_all(fd: int, size: int = 1 << 18) -> bytes:
    """Return everything behind ``fd`` from offset 0, in reads of ``size`` bytes."""
    os.lseek(fd, 0, os.SEEK_SET)
    parts = []
    while part := os.read(fd, size):
        parts.append(part)
    return b"".join(parts)


def open_target(pid: int) -> Target:
    """Return process ``pid`` held by descriptors.

    A thread's id means its process. Raises ProcessGone when there is none, NoAddressSpace for a
    kernel thread or a zombie, NotPermitted when /proc hides it.
    """
    with reading(pid, ""):
        dirfd = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    held = [dirfd]
    try:
        return hold(pid, dirfd, held)
    except BaseException:
        for fd in held:
            os.close(fd)
        raise


def hold(pid: int, dirfd: int, held: list[int]) -> Target:
    # `held` lists what the caller closes on failure.
    tgid = (numbers(read_in(pid, dirfd, "status"), b"Tgid") or [pid])[0]
    if tgid != pid:
        held.append(os.open(f"/proc/{tgid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        os.close(held.pop(0))
        pid, dirfd = tgid, held[0]
    stat = parse_stat(read_in(pid, dirfd, "stat"))
    if stat.flags & PF_KTHREAD:
        raise NoAddressSpace(pid, f"({stat.comm}) is a kernel thread: it has no address space")
    if stat.state in "ZX":
        thread = live_thread(pid, dirfd)
        if thread is None:
            raise NoAddressSpace(
                pid, f"({stat.comm}) is a zombie: it has ended and its memory is gone"
            )
        held.append(thread)
        os.close(held.pop(0))
        dirfd = thread
        stat = parse_stat(read_in(pid, dirfd, "stat"))
    pidfd = open_pidfd(pid)
    if pidfd >= 0:
        held.append(pidfd)
    return Target(pid, stat.comm, read_exe(dirfd), stat.starttime, stat.threads, dirfd, pidfd)


def open_pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise ProcessGone(pid, "ended while it was opened") from None
    except OSError:
        return -1  # before 5.3, or seccomp: dirfd still protects against reuse of the pid


def live_thread(pid: int, dirfd: int) -> int | None:
    # The main thread has exited: /proc/PID looks dead, but task/TID of another thread works.
    task = os.open("task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=dirfd)
    try:
        for tid in sorted(int(t) for t in os.listdir(task) if int(t) != pid):
            try:
                fd = os.open(str(tid), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=task)
            except OSError:
                continue
            if parse_stat(read_in(pid, fd, "stat")).state not in "ZX":
                return fd
            os.close(fd)
    finally:
        os.close(task)
    return None


def read_in(pid: int, dirfd: int, name: str) -> bytes:
    try:
        fd = os.open(name, os.O_RDONLY, dir_fd=dirfd)
        try:
            return read_all(fd)
        finally:
            os.close(fd)
    except OSError as err:
        raise meaning(err, pid, name, dirfd) from err


def read_exe(dirfd: int) -> str | None:
    try:
        return os.readlink("exe", dir_fd=dirfd)
    except OSError:
        return None
