"""Turn the kernel's errno into a meaning, in one place, after a second look at the cause."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pagewalk.errors import NotPermitted, PagewalkError, ProcessGone, SourceUnavailable
from pagewalk.proc.files import lines, numbers, read_bytes, words
from pagewalk.proc.mounts import parse_mounts

CAPABILITIES = {
    "CAP_DAC_OVERRIDE": 1,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_SYS_RAWIO": 17,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
    "CAP_CHECKPOINT_RESTORE": 40,
}


def effective_capabilities() -> int:
    """Return this thread's CapEff as a bit mask (Documentation/filesystems/proc.rst, status)."""
    return (numbers(read_bytes("/proc/self/status"), b"CapEff", 16) or [0])[0]


def has_capability(name: str) -> bool:
    """Return whether ``name`` is effective here and counts: the user namespace is the first."""
    return bool(effective_capabilities() >> CAPABILITIES[name] & 1) and in_initial_user_namespace()


def reads_any_file() -> bool:
    """Return whether a file's mode means nothing to us; needed for other users' mode 0400."""
    return has_capability("CAP_DAC_OVERRIDE") or has_capability("CAP_DAC_READ_SEARCH")


def in_initial_user_namespace() -> bool:
    """Return whether this process lives in a namespace that maps all 2**32 - 1 uids to itself."""
    try:
        return is_initial(read_bytes("/proc/self/uid_map"))
    except OSError:
        return True


def is_initial(uid_map: bytes) -> bool:
    """Return whether a uid_map file is that of the first user namespace."""
    return [words(line) for line in lines(uid_map, "uid_map")] == [[b"0", b"0", b"4294967295"]]


@contextmanager
def reading(pid: int, name: str, dirfd: int | None = None) -> Iterator[None]:
    """Raise the typed error behind an OSError met while reading /proc/``pid``/``name``.

    Raises ProcessGone when the process is no more, NotPermitted with the cause narrowed down
    (another user, a missing capability, a process that is not dumpable, a security module).
    """
    try:
        yield
    except OSError as err:
        raise meaning(err, pid, name, dirfd) from err


def meaning(err: OSError, pid: int, name: str, dirfd: int | None = None) -> PagewalkError:
    """Return the pagewalk error for ``err``, met on /proc/``pid``/``name``."""
    what = f"cannot read /proc/{pid}/{name}"
    if err.errno in (errno.ESRCH, errno.ENOENT):
        if dirfd is None and hides_processes() and not has_capability("CAP_SYS_PTRACE"):
            return NotPermitted(
                what,
                "no such file; /proc is mounted with hidepid, so other users' processes are hidden",
                "run as root, or remount /proc with hidepid=0",
            )
        if dirfd is not None and alive(dirfd):
            return SourceUnavailable(
                "procfs", f"/proc/{pid}/{name} does not exist", "this kernel is built without it"
            )
        return ProcessGone(pid, "does not exist" if dirfd is None else "ended while it was read")
    if err.errno in (errno.EACCES, errno.EPERM):
        says, remedy = why_refused(pid, name, dirfd)
        return NotPermitted(what, says, remedy)
    if err.errno == errno.EINTR:
        return PagewalkError(f"{what}: interrupted by a signal; try again")
    return PagewalkError(f"{what}: {os.strerror(err.errno or 0)}")


def alive(dirfd: int) -> bool:
    """Return whether the process behind an open /proc/PID directory is there and no zombie."""
    try:
        fd = os.open("stat", os.O_RDONLY, dir_fd=dirfd)
    except OSError:
        return False
    try:
        state = words(os.read(fd, 4096).rpartition(b")")[2])[:1]
        return state not in ([], [b"Z"], [b"X"])
    except OSError:
        return False
    finally:
        os.close(fd)


def hides_processes() -> bool:
    """Return whether this /proc is mounted so that other users' processes are not listed."""
    try:
        mounts = parse_mounts(read_bytes("/proc/self/mountinfo"))
    except OSError:
        return False
    options: list[bytes] = []
    for mount in mounts:
        if mount.point == b"/proc" and mount.kind == b"proc":
            options = mount.options  # a later mount covers an earlier one
    return not {b"hidepid=2", b"hidepid=invisible", b"hidepid=ptraceable", b"hidepid=4"}.isdisjoint(
        options
    )


def why_refused(pid: int, name: str, dirfd: int | None = None) -> tuple[str, str]:
    """Return (cause, remedy) of an EACCES on /proc/``pid``/``name`` (ptrace_may_access)."""
    if has_capability("CAP_SYS_PTRACE"):
        if name == "pagemap" and not reads_any_file():
            return (
                "permission denied: its mode lets only the owner open it, which CAP_SYS_PTRACE"
                " does not change",
                "run as root, or with CAP_DAC_READ_SEARCH too",
            )
        return (
            "refused although CAP_SYS_PTRACE is held: a security module (LSM) or this kernel's"
            " hardening protects the process",
            "look at the policy of the LSMs named in /sys/kernel/security/lsm; --source ebpf reads"
            " kernel memory, which asks none of them",
        )
    uids = status_uids(pid, dirfd)
    me = os.geteuid()
    if me == 0 and not in_initial_user_namespace():
        return (
            "permission denied: you are root in a user namespace, and the process is outside it",
            "run on the host",
        )
    if me == 0:
        return (
            "permission denied: this is root without CAP_SYS_PTRACE (a default container)",
            "run with that capability (docker run --cap-add SYS_PTRACE --cap-add SYS_ADMIN),"
            " or on the host",
        )
    if uids is not None and any(uid != me for uid in uids):
        return f"permission denied: it belongs to uid {uids[0]}, you are uid {me}", "run as root"
    return (
        "permission denied: the process is your own but not dumpable (set-uid, prctl, or more"
        " capabilities than yours)",
        "run as root",
    )


def status_uids(pid: int, dirfd: int | None) -> tuple[int, ...] | None:
    # Real, effective and saved uid of the process; None when even status is hidden.
    try:
        if dirfd is None:
            text = read_bytes(f"/proc/{pid}/status")
        else:
            with open(os.open("status", os.O_RDONLY, dir_fd=dirfd), "rb") as file:
                text = file.read()
    except OSError:
        return None
    return tuple(numbers(text, b"Uid")[:3]) or None
