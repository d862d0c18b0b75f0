"""Whose process ids this /proc shows: the same number means another process in each PID namespace.

A /proc counts as the namespace it was mounted in does (pid_namespaces(7)), which need not be ours:
`unshare --pid --fork` without `--mount-proc`, a container that was given the host's /proc.
"""

from __future__ import annotations

import os
import re

from pagewalk.errors import BadTarget, PagewalkError
from pagewalk.proc.files import decode_name, numbers, read_bytes

PID = re.compile(rb"(?m)^Pid:\t(-?[0-9]+)\n")  # pidfd_show_fdinfo()
REMEDY = (
    "mount a /proc of your own (unshare --mount-proc; in a mount namespace of its own:"
    " mount -t proc proc /proc)"
)


def own_numbers() -> list[int]:
    """Return this process's ids, from the PID namespace of this /proc down to our own.

    One number: /proc counts as we do. Raises PagewalkError where this /proc does not show us at
    all. Source: NSpid of /proc/self/status, fs/proc/array.c.
    """
    try:
        status = read_bytes("/proc/self/status")
    except FileNotFoundError:
        raise PagewalkError(why_unseen()) from None
    return numbers(status, b"NSpid") or [os.getpid()]


def own_parent() -> int:
    """Return the id of our parent as this /proc counts, 0 where it does not show it."""
    return numbers(read_bytes("/proc/self/status"), b"PPid")[0]


def why_unseen() -> str:
    # Nothing that is read of a process here could be proved to be of the one that was meant.
    if not any(entry.isdigit() for entry in os.listdir("/proc")):
        return "/proc is not mounted: no process can be seen; mount -t proc proc /proc"
    return (
        "this /proc belongs to a PID namespace that we are not in, so no process in it can be told"
        " to be the one that is meant; enter that namespace too (nsenter --pid), or " + REMEDY
    )


def number_in_proc(pid: int) -> int:
    """Return the number under which /proc shows the process that the caller calls ``pid``.

    Where /proc counts otherwise than we do, ``pid`` may be a number of either. Raises BadTarget
    when it is one process there and another one here: which is meant cannot be known.
    """
    if len(own_numbers()) == 1:
        return pid
    ours = shown_as(pid)
    if ours is None or ours == pid:
        return pid
    if ours and not os.path.exists(f"/proc/{pid}"):
        return ours
    raise BadTarget(
        f"'{pid}' may be two processes: /proc belongs to another PID namespace than this command,"
        f" and {pid} there is not {pid} here{called(pid, ours)}; {REMEDY}, or give a name",
        ((pid, comm(pid)), (ours, comm(ours))) if ours else (),
    )


def called(pid: int, ours: int) -> str:
    if not ours:
        return ""
    return f": there it is ({comm(pid)}), here ({comm(ours)}), which /proc shows as {ours}"


def shown_as(pid: int) -> int | None:
    """Return the number in /proc of the process that our own PID namespace calls ``pid``.

    None where there is none; 0 where there is one that cannot be found, as by a thread's id.
    Source: the Pid line of a pidfd in /proc/self/fdinfo counts as that /proc does (kernel/fork.c).
    """
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    except (OSError, OverflowError):
        return 0
    try:
        info = read_bytes(f"/proc/self/fdinfo/{fd}")
    except OSError:
        return 0
    finally:
        os.close(fd)
    found = PID.search(info)
    if found and found[1] == b"-1":  # it ended meanwhile
        return None
    return int(found[1]) if found else 0


def comm(pid: int) -> str:
    try:
        return decode_name(read_bytes(f"/proc/{pid}/comm").removesuffix(b"\n"))
    except OSError:
        return "?"
