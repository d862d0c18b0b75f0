"""Turn the kernel's errno into the error it means, after looking into the cause."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pagewalk.model.errors import NotPermitted, PagewalkError, ProcessGone, SourceUnavailable
from pagewalk.proc.files import TOO_MANY, numbers, read_bytes, to_do, words
from pagewalk.proc.rights import (
    has_capability,
    hides_processes,
    in_initial_user_namespace,
    proc_options,
    reads_any_file,
)

PF_EXITING = 0x00000004  # include/linux/sched.h

@contextmanager
def reading(pid: int, name: str, dirfd: int | None = None) -> Iterator[None]:
    """Turn an OSError from reading /proc/``pid``/``name`` into the typed error it means.

    Raises ProcessGone if the process no longer exists, NotPermitted with the cause narrowed down
    (another user, a missing capability, a process that is not dumpable, a security module).
    """
    try:
        yield
    except OSError as err:
        raise meaning(err, pid, name, dirfd) from err


# What the files of /proc/PID contain while a process is exiting, on Linux 6.18. "Ending" begins
# when exit_mm() has dropped the memory, which may take seconds to free; stat still says R then,
# with PF_EXITING among its flags. (tests/live/test_ending.py checks each of them.)
#
#                 ending           zombie           reaped    opened before, read when reaped
#   stat          zeros for sizes  zeros for sizes  ESRCH     ESRCH
#   status        no Vm lines      no Vm lines      ESRCH     ESRCH
#   statm         zeros            zeros            ESRCH     ESRCH
#   maps, smaps   empty            empty            ESRCH     ESRCH
#   smaps_rollup  ESRCH            ESRCH            ESRCH     ESRCH
#   pagemap       ESRCH            ESRCH            ESRCH     empty; PAGEMAP_SCAN: ESRCH
#   mem           ESRCH            ESRCH            ESRCH     empty
#   mountinfo     as ever          EINVAL, ENOENT   ESRCH     as ever
#   cmdline       empty            empty            ESRCH     ESRCH
#   exe           ENOENT           ENOENT           ESRCH
#   task          listed           listed           ESRCH
#   map_files/A-B ENOENT           ENOENT           ESRCH
#
# On older kernels pagemap and smaps_rollup can still be opened, and are empty; /proc/PID itself is
# ENOENT once the process is reaped. A text that was being read when the memory was dropped is cut
# short without an error, so readers have to check afterwards that the memory is still there.
GONE = (errno.ESRCH, errno.ENOENT, errno.EINVAL)


def meaning(err: OSError, pid: int, name: str, dirfd: int | None = None) -> PagewalkError:
    """Return the pagewalk error for ``err``, raised by /proc/``pid``/``name``."""
    what = f"cannot read /proc/{pid}/{name}"
    if err.errno in GONE:
        found = why_gone(err, pid, name, dirfd)
        if found is not None:
            return found
    if err.errno in (errno.EACCES, errno.EPERM):
        says, remedy = why_refused(pid, name, dirfd)
        return NotPermitted(what, says, remedy)
    if err.errno == errno.EINTR:
        return PagewalkError(f"{what}: interrupted by a signal; try again")
    remedy = f"; {to_do(err, '')}" if err.errno in TOO_MANY else ""
    return PagewalkError(f"{what}: {os.strerror(err.errno or 0)}{remedy}")


def why_gone(err: OSError, pid: int, name: str, dirfd: int | None) -> PagewalkError | None:
    # None if the process still exists and the error means something else.
    if dirfd is None:
        if hides_processes() and not has_capability("CAP_SYS_PTRACE"):
            return NotPermitted(
                f"cannot read /proc/{pid}/{name}",
                "no such file; /proc is mounted with hidepid, which hides other users' processes",
                "run as root, or remount /proc with hidepid=0",
            )
        return ProcessGone(pid, "does not exist")
    if err.errno == errno.ESRCH or not alive(dirfd):
        return ProcessGone(pid, "exited while it was read")
    if err.errno == errno.ENOENT and not os.path.exists(f"/proc/self/{name}"):
        return SourceUnavailable(
            "procfs", f"/proc/{pid}/{name} does not exist", "use a kernel that is built with it"
        )
    if err.errno == errno.ENOENT:
        return ProcessGone(pid, "exited or executed another program while it was read")
    return None


def alive(dirfd: int) -> bool:
    """Return whether the thread behind an open /proc/PID directory exists and is not ending."""
    try:
        state, *rest = words(read_bytes("stat", dirfd).rpartition(b")")[2]) or [b"Z"]
    except OSError:
        return False
    return state not in (b"Z", b"X") and not int(rest[5]) & PF_EXITING


def why_missing(path: str, symbol: str) -> tuple[str, str]:
    """Return (cause, remedy) for a missing global file ``path`` in /proc.

    ``symbol`` is the kernel option that provides it.
    """
    if b"subset=pid" in proc_options():
        return (
            f"{path} does not exist: /proc is mounted with subset=pid, so it shows only processes",
            "mount a /proc without that option (systemd: ProcSubset=all)",
        )
    return f"{path} does not exist", f"use a kernel built with {symbol}"


def why_refused(pid: int, name: str, dirfd: int | None = None) -> tuple[str, str]:
    """Return (cause, remedy) of an EACCES on /proc/``pid``/``name`` (ptrace_may_access)."""
    if has_capability("CAP_SYS_PTRACE"):
        if name == "pagemap" and not reads_any_file():
            return (
                "permission denied: only its owner may open it, and CAP_SYS_PTRACE does not change"
                " that",
                "run as root, or with CAP_DAC_READ_SEARCH as well",
            )
        return (
            "refused despite CAP_SYS_PTRACE: a security module (LSM) or kernel hardening protects"
            " the process",
            "check the policy of the LSMs listed in /sys/kernel/security/lsm; --source ebpf reads"
            " kernel memory, which no LSM checks",
        )
    uids = status_uids(pid, dirfd)
    me = os.geteuid()
    if me == 0 and not in_initial_user_namespace():
        return (
            "permission denied: you are root in a user namespace and the process is outside it",
            "run on the host",
        )
    if me == 0:
        return (
            "permission denied: you are root without CAP_SYS_PTRACE (a default container)",
            "add it (docker run --cap-add SYS_PTRACE --cap-add SYS_ADMIN), or run on the host",
        )
    if uids is not None and any(uid != me for uid in uids):
        other = next(uid for uid in uids if uid != me)  # the effective one of a set-uid program
        return f"permission denied: it belongs to uid {other}, you are uid {me}", "run as root"
    return (
        "permission denied: the process is yours but not dumpable (set-uid, prctl, or more"
        " capabilities than you have)",
        "run as root",
    )


def status_uids(pid: int, dirfd: int | None) -> tuple[int, ...] | None:
    # Real, effective and saved uid of the process; None when even status is hidden.
    try:
        text = read_bytes(f"/proc/{pid}/status" if dirfd is None else "status", dirfd)
    except OSError:
        return None
    return tuple(numbers(text, b"Uid")[:3]) or None


@contextmanager
def listening(host: str, port: int) -> Iterator[None]:
    """Turn an OSError from listening on a TCP port into the typed error it means."""
    try:
        yield
    except OSError as err:
        what = f"cannot listen on {host}, port {port}"
        if err.errno == errno.EACCES:
            raise NotPermitted(
                what, "permission denied: it takes CAP_NET_BIND_SERVICE for a port so low",
                "choose one above 1023") from err
        remedy = {
            errno.EADDRINUSE: "; end what listens there (ss -ltnp shows it), or choose another",
            errno.EADDRNOTAVAIL: "; choose an address of this machine (ip addr shows them)",
        }.get(err.errno or 0, "")
        said = os.strerror(err.errno or 0).lower()
        raise PagewalkError(f"{what}: {said}{remedy}") from err
