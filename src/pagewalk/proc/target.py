"""Hold one process by file descriptors that can never come to mean another process."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from pagewalk.model.errors import BadText, NoAddressSpace, PagewalkError, ProcessGone
from pagewalk.proc.files import decode_name, numbers, read_bytes, words
from pagewalk.proc.refusals import PF_EXITING, reading
from pagewalk.proc.stall import Stall, read_slices

# do_task_stat, fs/proc/array.c. The name is not escaped here and may contain anything; after it
# come the state and numbers only, up to the newline that ends the file.
STAT = re.compile(rb"(?s)\d+ \((.*)\) ([A-Za-z])((?: -?\d{1,20}){21,})\n")
PF_KTHREAD = 0x00200000  # include/linux/sched.h

TICK = 10_000_000  # nanoseconds: USER_HZ is 100 on every architecture here


class Stat(NamedTuple):
    """The fields of /proc/PID/stat we use; ``rss`` in pages, ``vsize`` in bytes.

    ``state`` is a letter (R S D T t Z X), ``faults`` how many page faults its threads have had;
    ``parent`` the process that it is a child of, ``started`` when, in nanoseconds since boot.
    """

    comm: str
    state: str
    flags: int
    threads: int
    vsize: int
    rss: int
    faults: int
    parent: int
    started: int = 0

    @property
    def ending(self) -> bool:
        """Return whether this thread has exited or is exiting: its memory may already be gone."""
        return self.state in "ZX" or bool(self.flags & PF_EXITING)


class Target(NamedTuple):
    """A process held open: ``dirfd`` and ``pidfd`` are its /proc directory, ``pid`` its number.

    When the main thread has exited, ``dirfd`` is the directory of a live thread instead; ``pidfd``
    never is. The kernel accepts a /proc directory as a pidfd (tgid_pidfd_to_pid(), fs/proc/base.c),
    so the process that is read and the one that is stopped cannot differ. ``opened`` lists both
    until they are closed, ``kept`` the files that were opened early (see keep). ``name`` is comm,
    ``exe`` the program's path, or None where we may not read it.
    """

    pid: int
    name: str
    exe: str | None
    dirfd: int
    pidfd: int
    opened: list[int]
    kept: dict[str, int]

    def keep(self, *names: str) -> None:
        """Open files of /proc/PID now, for a reader that gives up its rights before it reads.

        The kernel checks rights at open. A file that it refuses now is refused again when read.
        """
        for name in names:
            with contextlib.suppress(PagewalkError):
                self.kept[name] = self.open(name)

    def open(self, name: str) -> int:
        """Return a descriptor of /proc/PID/``name`` at its start, duplicated if one was kept.

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

        With ``stall``, for files whose reads take the target's lock, it is read in timed slices.
        """
        with reading(self.pid, name, self.dirfd), open(self.open(name), "rb", 0) as file:
            return file.read() if stall is None else read_slices(file.fileno(), stall, name)

    def state(self) -> str:
        """Return the process's state letter (R S D T t Z X); raises ProcessGone once reaped."""
        return self.stat().state

    def faults(self) -> int:
        """Return how many page faults the process has had; raises ProcessGone once reaped."""
        return self.stat().faults

    def stat(self) -> Stat:
        """Return what /proc/PID/stat tells now; raises ProcessGone once reaped."""
        return parse_stat(self.read("stat"))

    def close(self) -> None:
        """Close the descriptors; closing them again does nothing."""
        fds = [*self.opened, *self.kept.values()]
        self.opened.clear()
        self.kept.clear()
        for fd in fds:
            os.close(fd)


def parse_stat(text: bytes) -> Stat:
    """Return the fields of a /proc/PID/stat file; comm may hold anything. Raises BadText."""
    found = STAT.fullmatch(text)
    if not found:
        raise BadText("stat", 1, text)
    fields = words(found[3])
    parent, flags, minor, major, threads, started, vsize, rss = (
        # field numbers as in proc_pid_stat(5)
        int(fields[at - 4]) for at in (4, 9, 10, 12, 20, 22, 23, 24)
    )
    name, state = decode_name(found[1]), decode_name(found[2])
    return Stat(name, state, flags, threads, vsize, rss, minor + major, parent, started * TICK)


def open_target(number: int) -> Target:
    """Return the process that this /proc shows as ``number``, held by descriptors.

    A thread's number stands for its process. Raises ProcessGone if there is none or it is exiting,
    NoAddressSpace for a kernel thread or a zombie, NotPermitted if /proc hides it.
    """
    with reading(number, ""):
        held = [open_folder(f"/proc/{number}")]
    try:
        return hold(number, held)
    except BaseException:
        for fd in held:
            os.close(fd)
        raise


def read_maps(number: int, stall: Stall) -> bytes:
    """Return maps of the process that /proc lists as ``number`` now.

    It is not held, so the caller has to recognise it by its VMAs. Raises what open_target raises.
    """
    with reading(number, "maps"), open(f"/proc/{number}/maps", "rb", 0) as file:
        text = read_slices(file.fileno(), stall, "maps")
    if text:
        return text
    target = open_target(number)  # its main thread has ended
    try:
        return target.read("maps", stall)
    finally:
        target.close()


def open_folder(path: str, dir_fd: int | None = None) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)


def hold(pid: int, held: list[int]) -> Target:
    # The caller closes the descriptors in `held` on failure; the first is the process's directory.
    tgid = read_tgid(pid, held[0])
    if tgid != pid:
        with reading(pid, "", held[0]):
            held.append(open_folder(f"/proc/{tgid}"))
            # While this thread lives, its process's number cannot have been reused.
            read_tgid(pid, held[0])
        os.close(held.pop(0))
        pid = tgid
    stat = parse_stat(read_in(pid, held[0], "stat"))
    if stat.flags & PF_KTHREAD:
        raise NoAddressSpace(pid, f"({stat.comm}) is a kernel thread: it has no address space")
    if stat.ending:
        with reading(pid, "task", held[0]):
            held.append(live_thread(pid, held[0]))
        stat = parse_stat(read_in(pid, held[1], "stat"))
    else:
        held.append(os.dup(held[0]))
    pidfd, dirfd = held
    return Target(pid, stat.comm, read_exe(dirfd), dirfd, pidfd, held, {})


def read_tgid(pid: int, dirfd: int) -> int:
    return (numbers(read_in(pid, dirfd, "status"), b"Tgid") or [pid])[0]


def live_thread(pid: int, dirfd: int) -> int:
    # The main thread has exited: /proc/PID looks dead, but task/TID of another thread works.
    with folder(dirfd, "task") as task:
        ended = []
        for tid in sorted(int(t) for t in os.listdir(task)):
            try:
                fd = open_folder(str(tid), task)
            except OSError:
                continue
            stat = thread_stat(fd)
            if stat is not None and not stat.ending:
                return fd
            os.close(fd)
            if stat is not None:
                ended.append(stat)
    if ended and all(stat.state in "ZX" for stat in ended):
        raise NoAddressSpace(
            pid, f"({ended[0].comm}) is a zombie: it has ended and its memory is gone"
        )
    raise ProcessGone(pid, "is ending: its memory is being freed")


@contextlib.contextmanager
def folder(dirfd: int, name: str) -> Iterator[int]:
    fd = open_folder(name, dirfd)
    try:
        yield fd
    finally:
        os.close(fd)


def thread_stat(dirfd: int) -> Stat | None:
    # None if the thread is gone.
    try:
        return parse_stat(read_bytes("stat", dirfd))
    except OSError:
        return None


def thread_stats(target: Target) -> list[tuple[int, Stat]]:
    """Return (number, stat) of every thread of ``target``; raises ProcessGone once it is reaped."""
    found = []
    with reading(target.pid, "task", target.pidfd), folder(target.pidfd, "task") as task:
        for tid in os.listdir(task):
            with contextlib.suppress(OSError), folder(task, tid) as fd:
                stat = thread_stat(fd)
                if stat is not None:
                    found.append((int(tid), stat))
    return found


def read_in(pid: int, dirfd: int, name: str) -> bytes:
    with reading(pid, name, dirfd):
        return read_bytes(name, dirfd)


def read_exe(dirfd: int) -> str | None:
    try:
        return os.readlink("exe", dir_fd=dirfd)
    except OSError:
        return None
