"""Pressure stall information: have the kernel report when tasks wait for memory too long."""

from __future__ import annotations

import errno
import os
import re

from pagewalk.model.errors import BadText, NotPermitted, SourceUnavailable

MACHINE = "/proc/pressure/memory"
# Windows in microseconds, the best first. The kernel looks ten times a window while anybody waits,
# and reports once a window. Without CAP_SYS_RESOURCE only multiples of 2 s are accepted
# (psi_trigger_create, kernel/sched/psi.c).
WINDOWS = (1_000_000, 2_000_000)


def watch_pressure(share: float, file: str, group: int | None = None) -> tuple[int, int]:
    """Return a descriptor that poll() reports POLLPRI for when tasks wait for memory; its window.

    It does when in a window some task waited for ``share`` of it, once a window. ``file`` is
    MACHINE, or memory.pressure of the cgroup whose directory is ``group``; if that is removed,
    poll() reports POLLERR. Raises NotPermitted, SourceUnavailable, and OSError for a group that is
    gone. Source: Documentation/accounting/psi.rst.
    """
    shown = file if group is None else "memory.pressure"
    try:
        fd = os.open(file, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=group)
    except OSError as error:
        raise refused(error, shown) from error
    try:
        return fd, smallest_window(fd, share)
    except OSError as error:
        os.close(fd)
        raise refused(error, shown) from error


def waited(fd: int) -> int:
    """Return for how long some task has waited for memory so far, in microseconds.

    ``fd`` is what watch_pressure returned. Raises BadText, and OSError for a group that is gone.
    """
    text = os.pread(fd, 4096, 0)
    found = re.match(rb"some .*total=(\d+)", text)
    if found is None:
        raise BadText("memory.pressure", 1, text)
    return int(found[1])


def smallest_window(fd: int, share: float) -> int:
    """Set the trigger of ``fd`` with the shortest window that the kernel accepts; return that."""
    for window in WINDOWS:
        try:
            os.write(fd, b"some %d %d\0" % (max(1, round(window * share)), window))
            return window
        except OSError as error:
            if error.errno != errno.EINVAL or window == WINDOWS[-1]:
                raise
    raise AssertionError


def refused(error: OSError, file: str) -> Exception:
    """Return what an error from a file of pressure means; the same if it means nothing more."""
    if isinstance(error, PermissionError):
        return NotPermitted(f"cannot watch {file}", "permission denied",
                            "run as root: a trigger is written into it")
    if error.errno in (errno.ENOENT, errno.EOPNOTSUPP):
        return SourceUnavailable("pressure", f"this kernel does not measure it: no {file}",
                                 "boot with psi=1 (CONFIG_PSI)")
    if error.errno == errno.EINVAL:
        return SourceUnavailable("pressure", f"the kernel accepts no window for {file}",
                                 "run as root, or on a kernel of 5.2 or later")
    return error
