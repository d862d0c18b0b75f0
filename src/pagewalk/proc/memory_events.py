"""What the kernel reports of a memory cgroup by itself: amounts, pressure, kills.

In version 1 through descriptors of eventfd(2), which are registered with cgroup.event_control
(memcg_write_event_control, mm/memcontrol-v1.c); each is reported once more when the group is
removed. In version 2 poll() reports that memory.events has changed (cgroup_file_notify).
"""

from __future__ import annotations

import errno
import os

from pagewalk.model.errors import NotPermitted, Unsupported
from pagewalk.proc.files import LARGEST

EVENTS = "memory.events"
# Of memory.pressure_level: how little of what was scanned could be reclaimed (mm/vmpressure.c).
# "low" is any reclaim at all, also of page cache that nobody needs.
LEVELS = ("medium", "critical")


def register(group: int, file: str, argument: str = "") -> int:
    """Return an eventfd that counts what ``file`` of version 1 reports.

    ``group`` is the directory of the cgroup. memory.usage_in_bytes and memory.memsw.usage_in_bytes
    take a number of bytes and report when it is crossed in either direction,
    memory.pressure_level takes one of LEVELS, memory.oom_control nothing. Raises NotPermitted,
    Unsupported, OSError for a group that is gone.
    """
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        write_registration(group, fd, file, argument)
    except OSError as error:
        os.close(fd)
        if isinstance(error, PermissionError):
            what = f"cannot watch {file}"
            raise NotPermitted(what, "permission denied", "run as root") from error
        if error.errno == errno.EINVAL:
            raise Unsupported(f"notification by {file}", "2.6.34") from error
        raise
    return fd


def write_registration(group: int, fd: int, file: str, argument: str) -> None:
    watched = os.open(file, os.O_RDONLY | os.O_CLOEXEC, dir_fd=group)
    try:
        control = os.open("cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC, dir_fd=group)
        try:
            os.write(control, " ".join(filter(None, (str(fd), str(watched), argument))).encode())
        finally:
            os.close(control)
    finally:
        os.close(watched)


def watch_events(group: int) -> int:
    """Return memory.events of version 2, open and read: poll() reports POLLPRI once it changes.

    It does so again and again until ``seen`` has read it. Raises OSError.
    """
    fd = os.open(EVENTS, os.O_RDONLY | os.O_CLOEXEC, dir_fd=group)
    try:
        seen(fd)
    except OSError:
        os.close(fd)
        raise
    return fd


def seen(fd: int) -> None:
    """Make poll() wait for the next change of the file behind ``fd``; raises OSError if gone."""
    os.pread(fd, LARGEST, 0)
