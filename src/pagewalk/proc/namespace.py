"""Which PID namespace's ids this /proc shows: a number means a different process in each.

A /proc shows the ids of the namespace it was mounted in (pid_namespaces(7)), which need not be
ours: after `unshare --pid --fork` without `--mount-proc`, or in a container that was given the
host's /proc.
"""

from __future__ import annotations

import os
import re

from pagewalk.model.errors import BadTarget, PagewalkError, ProcessGone
from pagewalk.proc.files import decode_name, numbers, read_bytes

PID = re.compile(rb"(?m)^Pid:\t(-?[0-9]+)\n")  # pidfd_show_fdinfo()
INITIAL = 0xEFFFFFFC
REMEDY = (
    "mount a /proc of your own (unshare --mount-proc, or in a mount namespace of your own:"
    " mount -t proc proc /proc)"
)


def own_numbers() -> list[int]:
    """Return this process's ids, from the PID namespace of this /proc down to our own.

    A single number means that /proc uses our own namespace's ids. Raises PagewalkError if this
    /proc does not show us at all. Source: NSpid of /proc/self/status, fs/proc/array.c.
    """
    try:
        status = read_bytes("/proc/self/status")
    except FileNotFoundError:
        raise PagewalkError(why_unseen()) from None
    return numbers(status, b"NSpid") or [os.getpid()]


def pid_numbers(pid: int) -> tuple[int, ...]:
    """Return the ids of process ``pid``: in this /proc, then in each PID namespace below it.

    The last is its id in its own namespace, a container's. Raises ProcessGone. Source: NSpid of
    /proc/PID/status, fs/proc/array.c.
    """
    try:
        return tuple(numbers(read_bytes(f"/proc/{pid}/status"), b"NSpid")) or (pid,)
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessGone(pid, "has exited") from None


def shows_all() -> bool | None:
    """Return whether this /proc shows the processes of the whole machine; None: not known.

    A /proc of another PID namespace than the machine's first shows only what runs in that one and
    in those below it. Source: PROC_PID_INIT_INO, include/linux/proc_ns.h.
    """
    try:
        # Process 1 is of the namespace that this /proc was mounted in, which need not be ours.
        whose = "self" if len(own_numbers()) == 1 else "1"
        return os.stat(f"/proc/{whose}/ns/pid").st_ino == INITIAL
    except OSError:
        return None


def own_parent() -> int:
    """Return our parent's id in this /proc, 0 if it does not show the parent."""
    return numbers(read_bytes("/proc/self/status"), b"PPid")[0]


def why_unseen() -> str:
    # Whatever we read could be about some other process than the one that was meant.
    if not any(entry.isdigit() for entry in os.listdir("/proc")):
        return "/proc is not mounted: no process can be seen; mount -t proc proc /proc"
    return (
        "this /proc belongs to a PID namespace that we are not in, so a pid cannot be matched to a"
        " process in it; enter that namespace too (nsenter --pid), or " + REMEDY
    )


def number_in_proc(pid: int) -> int:
    """Return the number under which /proc shows the process that the caller calls ``pid``.

    If /proc uses another namespace's ids, ``pid`` may be an id in either. Raises BadTarget when it
    is one process there and another one here, because there is no telling which is meant.
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

    None if there is no such process; 0 if there is one but its number cannot be found, as with a
    thread's id. Source: the Pid line of a pidfd in /proc/self/fdinfo, which is an id of that /proc
    (kernel/fork.c).
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
