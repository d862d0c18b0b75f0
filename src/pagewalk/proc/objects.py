"""Memory objects that a process holds: memfd, tmpfs, hugetlbfs, SysV, shared anonymous memory.

It holds them through open files and mappings. No file is opened or queried until it is known to be
on tmpfs or hugetlbfs: another file system may take forever to answer.
"""

import errno
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, lru_cache
from stat import S_ISREG
from typing import NamedTuple, TypeAlias

import numpy as np

from pagewalk.model.columns import VMAs, Withheld
from pagewalk.model.errors import PagewalkError
from pagewalk.proc.files import decode_name, read_bytes, rows
from pagewalk.proc.maps import device_key, internal_files
from pagewalk.proc.mounts import mount_of, parse_mounts
from pagewalk.proc.page_cache import BLOCK
from pagewalk.proc.swap import evicted, swap_in_use
from pagewalk.proc.target import Target, folder

SHM_DEST = 0o1000  # include/linux/shm.h: destroyed at the last detach
MOST_FILES, LONGEST_NS = 1 << 16, 500_000_000
SEGMENT = "/SYSV"
# /proc/sysvipc/shm (ipc/shm.c): key shmid perms size cpid lpid nattch ...
SHM_LINE = re.compile(
    rb"(?m)^ *(?:key|-?\d+) +(shmid|\d+) +(perms|\d+) +(?:size|\d+) +(?:cpid|\d+) +(?:lpid|\d+)"
    rb" +(nattch|\d+) [^\n]*\n"
)
CUT = Withheld(
    "a part of unmapped and freed",
    "the process has too many open files to look at them all: the limit is"
    f" {MOST_FILES} files or half a second",
    partial=True,
)

NO_CACHESTAT = Withheld(
    "unmapped",
    "swap is in use, and only cachestat(2), since Linux 6.5, tells how much of an object is there",
)


class Object(NamedTuple):
    """A memory object; ``dev`` (major << 32 | minor) and ``inode`` are as in VMAs.

    ``resident`` is its bytes in RAM; if ``linked``, it has a name in a file system, and so stays
    even when nothing holds it.
    """

    dev: int
    inode: int
    name: str
    resident: int
    linked: bool


Found: TypeAlias = dict[tuple[int, int], Object]
Ask: TypeAlias = Callable[[list[tuple[int, int]]], list[bool | None]]


def read_objects(target: Target, vmas: VMAs) -> tuple[list[Object], list[Withheld]]:
    """Return the objects that ``target`` holds, and why any may be missing.

    Raises ProcessGone.
    """
    found: Found = {}
    missing: list[Withheld] = []
    try:
        mounts = memory_mounts(target)
        if not add_open(target, mounts, found):
            missing.append(CUT)
    except (PagewalkError, OSError) as err:
        missing.append(refused(err, f"cannot look at its open files: {reason(err)}"))
    try:
        add_mapped(target, vmas, found)
    except OSError as err:
        why = f"cannot follow /proc/PID/map_files ({reason(err)}), which needs CAP_SYS_ADMIN or"
        missing.append(refused(err, f"{why} CAP_CHECKPOINT_RESTORE; run as root"))
    return list(found.values()), list(dict.fromkeys(missing))


def refused(err: Exception, why: str) -> Withheld:
    if isinstance(err, OSError) and err.errno == errno.ENOSYS:
        return NO_CACHESTAT
    return Withheld("unmapped", why, partial=True)


def reason(err: Exception) -> str:
    return (err.strerror or "").lower() if isinstance(err, OSError) else str(err)


def memory_mounts(target: Target) -> set[int]:
    """Return the ids of the mounts of tmpfs and hugetlbfs; raises PagewalkError."""
    found = set(internal_mounts()) | memory_ids(target.read("mountinfo"))
    # A file that was opened before its process entered another mount namespace is still on a mount
    # of the namespace that it came from, which is usually ours.
    with suppress(OSError):
        found |= memory_ids(read_bytes("/proc/self/mountinfo"))
    return found


@lru_cache(maxsize=8)  # most processes have the same text
def memory_ids(mountinfo: bytes) -> frozenset[int]:
    """Return the ids of the mounts of tmpfs and hugetlbfs in a mountinfo file; raises BadText."""
    return frozenset(
        one.id for one in parse_mounts(mountinfo) if one.kind in (b"tmpfs", b"hugetlbfs"))


@cache
def internal_mounts() -> tuple[int, ...]:
    # The mounts that no mountinfo lists, where memfd, SysV and shared anonymous memory live.
    return tuple(mount_of(read_bytes(f"/proc/self/fdinfo/{fd}")) for _, fd in internal_files())


def add_open(target: Target, mounts: set[int], found: Found) -> bool:
    """Add open objects to ``found``; return False if some files were skipped. Raises OSError."""
    started = time.perf_counter_ns()
    with folder(target.dirfd, "fd") as opened, os.scandir(opened) as entries:
        for many, entry in enumerate(entries):
            if many >= MOST_FILES or time.perf_counter_ns() - started > LONGEST_NS:
                return False
            try:
                path = os.readlink(os.fsencode(entry.name), dir_fd=opened)
                fdinfo = f"fdinfo/{entry.name}"
                if path.startswith(b"/") and mount_of(read_bytes(fdinfo, target.dirfd)) in mounts:
                    add(target, f"fd/{entry.name}", decode_name(path), mounts, found)
            except OSError as err:
                if err.errno not in (errno.ENOENT, errno.ESRCH):  # closed meanwhile
                    raise
    return True


def add(target: Target, link: str, name: str, mounts: set[int] | None, found: Found) -> None:
    # An O_PATH open does not involve the file system. Check the mount again: the process may have
    # put another file at this descriptor in the meantime.
    fd = os.open(link, os.O_PATH | os.O_CLOEXEC, dir_fd=target.dirfd)
    try:
        if mounts is not None and mount_of(read_bytes(f"/proc/self/fdinfo/{fd}")) not in mounts:
            return
        told = os.fstat(fd)
        key = device_key(told), told.st_ino
        if key not in found and S_ISREG(told.st_mode):
            resident = told.st_blocks * BLOCK - swapped(fd)
            found[key] = Object(*key, name, resident, told.st_nlink > 0)
    finally:
        os.close(fd)


def swapped(fd: int) -> int:
    # cachestat needs a real open; for a regular file on tmpfs it has no side effects.
    if not swap_in_use():
        return 0
    opened = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return evicted(opened, 0, 0)
    finally:
        os.close(opened)


def add_mapped(target: Target, vmas: VMAs, found: Found) -> None:
    """Add objects that are mapped but not open to ``found``; raises OSError."""
    known = set(found)
    for row in np.flatnonzero(vmas.of_objects).tolist():
        key = int(vmas.dev[row]), int(vmas.inode[row])
        if key in known:
            continue
        known.add(key)
        link = f"map_files/{int(vmas.start[row]):x}-{int(vmas.end[row]):x}"
        try:
            add(target, link, vmas.name[row], None, found)
        except FileNotFoundError:  # unmapped meanwhile
            continue


def segment_ends(target: Target, found: Object, attached: int) -> bool | None:
    """Return whether a SysV segment ends if it is detached ``attached`` times.

    None if ``target``, which has it, is in another IPC namespace.
    """
    try:
        if os.readlink("ns/ipc", dir_fd=target.dirfd) != os.readlink("/proc/self/ns/ipc"):
            return None
        table = rows(SHM_LINE, read_bytes("/proc/sysvipc/shm"), "sysvipc/shm")
    except OSError:
        return None
    for shmid, perms, nattch in table[1:]:
        if int(shmid) == found.inode:
            return bool(int(perms, 8) & SHM_DEST) and int(nattch) == attached
    return None


def attachments(vmas: VMAs, found: Object) -> int:
    """Return how often an address space has object ``found`` mapped."""
    return int(((vmas.dev == found.dev) & (vmas.inode == found.inode)).sum())


def ends(target: Target, vmas: VMAs, objects: list[Object], ask: Ask) -> list[bool | None]:
    """Return whether each of ``objects`` ends with ``target``; None where that is not known.

    ``ask`` is Source.ended_by, called for the unlinked objects, each as (dev, inode).
    """
    out: list[bool | None] = [False] * len(objects)
    asked = []
    for at, found in enumerate(objects):
        if found.name.startswith(SEGMENT) and not found.linked:
            out[at] = segment_ends(target, found, attachments(vmas, found))
        elif not found.linked:
            asked.append(at)
    if asked:
        answers = ask([(objects[at].dev, objects[at].inode) for at in asked])
        for at, answer in zip(asked, answers, strict=True):
            out[at] = answer
    return out
