"""Wait until the kernel reports something of a cgroup, without waking up meanwhile."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from pagewalk.model.errors import GroupGone, PagewalkError
from pagewalk.proc.cgroup_numbers import FILES, GroupNumbers
from pagewalk.proc.cgroups import GONE
from pagewalk.proc.inotify import DELETED, MODIFIED, add_watch, open_inotify, read_changes
from pagewalk.proc.memory_events import register, seen, watch_events
from pagewalk.proc.pressure import MACHINE, WINDOWS, waited, watch_pressure

# What may be reported. A removed group, and a limit that was changed; an amount that was crossed;
# that something was reclaimed; that little of it could be (version 1 alone tells); that tasks of
# the group, or of the whole machine, wait for memory; that the limit could not be kept; version 2
# only says that one of its events was counted. A look is nothing reported: a time has passed.
REMOVED, LIMIT, CROSSED, RECLAIM = "removed", "limit", "crossed", "reclaim"
CRITICAL, PRESSURE, MACHINE_PRESSURE, OOM = "critical", "pressure", "machine pressure", "oom"
EVENT, LOOK, CHANGES = "event", "look", "changes"
STALLS = (PRESSURE, MACHINE_PRESSURE)
# Which limits are watched for being changed.
LIMITS = ("limit", "high", "both_limit")


@dataclass
class Waiting:
    """Descriptors that the kernel makes ready: ``names`` says what each of them reports.

    ``noticed`` is that in words, ``missing`` what cannot be reported here, and why. ``timer_s`` is
    after how long wait() returns LOOK; None: never. ``stalls`` has, of descriptors whose
    reports of pressure are in doubt, for how long tasks had waited at the last, and how much longer
    they must have for another, both in microseconds.
    """

    group: int
    version: int
    path: str
    names: dict[int, str] = field(default_factory=dict)
    noticed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    timer_s: float | None = None
    poll: select.poll = field(default_factory=select.poll)
    inotify: int = -1
    parent: int = -1
    stalls: dict[int, tuple[int, float]] = field(default_factory=dict)
    thresholds: list[int] = field(default_factory=list)

    def add(self, name: str, fd: int, mask: int) -> int:
        """Wait for ``mask`` of ``fd`` too."""
        self.names[fd] = name
        self.poll.register(fd, mask)
        return fd

    def drop(self, fd: int) -> None:
        """Wait no longer for ``fd``, and close it."""
        self.poll.unregister(fd)
        del self.names[fd]
        os.close(fd)

    def attempt(self, what: str, open_it: Callable[[], int], name: str, mask: int) -> int | None:
        """Wait for what ``open_it`` opens, or keep why that cannot be; raises GroupGone."""
        try:
            fd = self.add(name, open_it(), mask)
            if what not in self.noticed:
                self.noticed.append(what)
            return fd
        except PagewalkError as error:
            self.missing.append(f"{what}: {error}")
        except OSError as error:
            if error.errno in GONE:
                raise GroupGone(self.path) from None
            self.missing.append(f"{what}: {error.strerror}")
        return None

    def wait(self, timeout_s: float | None = None, only: tuple[str, ...] = ()) -> set[str]:
        """Return what was reported, after ``timeout_s`` at the latest, by default ``timer_s``.

        With ``only`` some names, the others are not waited for: they stay reported.
        """
        poll = self.poll
        if only:
            poll = select.poll()
            for fd, name in self.names.items():
                if name in only:
                    poll.register(fd, select.POLLIN | select.POLLPRI)
        longest = self.timer_s if timeout_s is None else timeout_s
        ready = poll.poll(None if longest is None else longest * 1000)
        return {name for fd, event in ready for name in self.read(fd, event)} or {LOOK}

    def forget(self) -> None:
        """Forget what was reported, but for what may not be counted yet, and for changes."""
        for fd, event in self.poll.poll(0):
            if self.names[fd] not in (OOM, EVENT, CHANGES):
                list(self.read(fd, event))

    def read(self, fd: int, event: int) -> Iterator[str]:
        """Yield what descriptor ``fd`` reports, and make it wait for the next."""
        name = self.names[fd]
        if fd == self.inotify:
            yield from self.changes()
        elif name == EVENT:
            try:
                seen(fd)
                yield name
            except OSError:
                yield REMOVED
        elif name in STALLS:
            if event & select.POLLERR:  # the group is gone
                self.drop(fd)
                yield REMOVED
            elif self.stalled(fd):
                yield name
        else:
            with suppress(BlockingIOError):
                os.eventfd_read(fd)
            yield name

    def stalled(self, fd: int) -> bool:
        """Return whether tasks have waited as long as ``fd`` reports, as far as that is in doubt.

        A trigger of someone without CAP_SYS_RESOURCE begins with another sum than it goes on with
        (psi_trigger_create takes that of PSI_POLL, kernel/sched/psi.c, Linux 6.18), so its first
        reports come whenever a task waits at all. What it goes on with is the total in its file.
        """
        if fd not in self.stalls:
            return True
        try:
            now = waited(fd)
        except OSError:
            return False  # the group is gone, which poll() reports next
        before, least = self.stalls[fd]
        if now - before < least:
            return False
        self.stalls[fd] = now, least
        return True

    def watch_stall(
        self, what: str, name: str, share: float, file: str, group: int | None = None
    ) -> bool:
        """Wait for tasks that wait for memory for ``share`` of a time; return whether that works.

        Raises GroupGone.
        """
        windows: list[int] = []

        def open_it() -> int:
            fd, window = watch_pressure(share, file, group)
            windows.append(window)
            return fd

        fd = self.attempt(what, open_it, name, select.POLLPRI)
        if fd is None:
            return False
        if windows[0] != WINDOWS[0]:  # which only CAP_SYS_RESOURCE is given
            try:
                self.stalls[fd] = waited(fd), share * windows[0]
            except OSError:
                raise GroupGone(self.path) from None
        return True

    def changes(self) -> Iterator[str]:
        for watch, _ in read_changes(self.inotify):
            if watch != self.parent:
                yield LIMIT
            elif not self.there():
                yield REMOVED

    def there(self) -> bool:
        """Return whether the group still exists."""
        try:
            os.stat("cgroup.procs", dir_fd=self.group)
        except OSError:
            return False
        return True

    def set_thresholds(self, amounts: list[tuple[str, int]]) -> None:
        """Of version 1: have it reported when one of ``amounts`` is crossed, (file, bytes)."""
        for fd in self.thresholds:
            self.drop(fd)
        found = [self.attempt(file, partial(register, self.group, file, str(size)), CROSSED,
                              select.POLLIN) for file, size in amounts]
        self.thresholds = [fd for fd in found if fd is not None]


@contextmanager
def waiting(path: str, version: int, group: int, pressure: float) -> Iterator[Waiting]:
    """Yield what waits for the cgroup at ``path``, whose directory is ``group``.

    ``pressure`` is the share of time in which tasks wait for memory that is reported, 0 for none.
    Raises GroupGone, OSError.
    """
    told = Waiting(group, version, path)
    try:
        watch_files(told)
        if version == 1:
            watch_1(told)
        else:
            told.attempt("memory.events", partial(watch_events, group), EVENT, select.POLLPRI)
        if pressure:
            watch_stalls(told, pressure)
        yield told
    finally:
        for fd in told.names:
            os.close(fd)


def watch_files(told: Waiting) -> None:
    # That the group is removed, and that its limits are changed.
    told.inotify = told.add(CHANGES, open_inotify(), select.POLLIN)
    here = f"/proc/self/fd/{told.group}"
    if told.path != "/":
        told.parent = add_watch(told.inotify, f"{here}/..", DELETED)
    for name in LIMITS:
        file = FILES[told.version].get(name)
        if file is not None:
            with suppress(FileNotFoundError):
                add_watch(told.inotify, f"{here}/{file}", MODIFIED)


def watch_1(told: Waiting) -> None:
    told.attempt("memory.oom_control", partial(register, told.group, "memory.oom_control"), OOM,
                 select.POLLIN)
    for level, name in (("low", RECLAIM), ("critical", CRITICAL)):
        told.attempt(f"memory.pressure_level ({level})",
                     partial(register, told.group, "memory.pressure_level", level), name,
                     select.POLLIN)


def watch_stalls(told: Waiting, share: float) -> None:
    # Version 1 does not measure that of a group, but of the whole machine alone.
    if told.version == 2 and told.path != "/" and told.watch_stall(
            "memory.pressure", PRESSURE, share, "memory.pressure", told.group):
        return
    told.watch_stall(MACHINE, MACHINE_PRESSURE, share, MACHINE)


def set_nearness(told: Waiting, numbers: GroupNumbers, near: float, look_s: float) -> int | None:
    """Have it reported when the group's limits in ``numbers`` are near by the share ``near``.

    In version 2 nothing reports an amount but memory.high, if that is not above it; else the
    amount is read each ``look_s``, unless that is 0. Returns the lowest limit, None without.
    """
    files = FILES[1]
    if told.version == 1:
        told.set_thresholds([(files[used], int(near * limit)) for used, limit in (
            ("current", numbers.limit), ("both", numbers.both_limit)) if limit])
    limits = [limit for limit in (numbers.limit, numbers.high, numbers.both_limit) if limit]
    reported = numbers.high and numbers.limit and numbers.high <= near * numbers.limit
    told.timer_s = None
    if told.version == 2 and limits and look_s and not reported:
        told.timer_s = look_s
    return min(limits, default=None)
