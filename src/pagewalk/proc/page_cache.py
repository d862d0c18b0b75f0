"""What of a file is in the page cache: cachestat(2), before Linux 6.5 mincore(2).

Neither reads the file, nor changes what is in the cache. Opening it has no side effects either.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from stat import S_ISREG
from typing import NamedTuple

import numpy as np

from pagewalk.model.errors import BadText, PagewalkError
from pagewalk.proc.files import read_bytes
from pagewalk.proc.leases import leased
from pagewalk.proc.maps import NEWLINE, device_key, internal_filesystems, parse_mountinfo
from pagewalk.proc.mounts import answers_elsewhere, mount_of, parse_mounts
from pagewalk.proc.rights import has_capability
from pagewalk.proc.target import Target

PAGE = mmap.PAGESIZE
BLOCK = 512  # of st_blocks, stat(2)
LONGEST = 1 << 40  # bytes of a file that mincore may go through, in some 10 s
PLACE = os.O_PATH | os.O_CLOEXEC  # opens nothing
OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
NR_CACHESTAT = 451  # every architecture but alpha, since 6.5
AT_ONCE = 1 << 28  # bytes of a file that mincore is asked about: a byte for each page comes back


class Cached(NamedTuple):
    """What of a range of a file is in RAM, in bytes; None where it is not told.

    ``dirty`` has to be written to the file before it can go, ``writeback`` is being written;
    neither is ever so of shared memory. ``evicted`` is what was there before: of shared memory
    what is in swap.
    """

    resident: int
    dirty: int | None = None
    writeback: int | None = None
    evicted: int | None = None


def read_cached(fd: int, offset: int, size: int, *, below: bool = False) -> Cached:
    """Return what of [``offset``, + ``size``) of an open file is in RAM; whole pages count.

    With ``below`` its pages are those of a file below (see OpenFile), which only mincore finds.
    Raises OSError: EPERM if the kernel tells only the owner and whoever may write the file,
    EOPNOTSUPP on hugetlbfs.
    """
    try:
        if not below:
            return cachestat(fd, offset, size)
    except OSError as error:
        # A container may refuse every system call that it does not know with EPERM.
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        if not may_be_told(fd):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM)) from None
    if below and not may_be_told(fd):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    return Cached(mincore(fd, offset, size))


def cachestat(fd: int, offset: int, size: int) -> Cached:
    """Return what cachestat(2) tells; ``size`` 0 is up to the end. Raises OSError."""
    if os.uname().machine == "alpha":
        raise OSError(errno.ENOSYS, "cachestat has a different number on alpha")
    libc = ctypes.CDLL(None, use_errno=True)
    span = (ctypes.c_uint64 * 2)(offset, size)
    told = (ctypes.c_uint64 * 5)()
    if libc.syscall(NR_CACHESTAT, fd, span, told, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    resident, dirty, writeback, evicted, _ = (int(pages) * PAGE for pages in told)
    return Cached(resident, dirty, writeback, evicted)


def may_be_told(fd: int) -> bool:
    """Return whether mincore tells us the truth: to others it says that all is in RAM.

    That is since 5.2 (can_do_mincore, mm/mincore.c).
    """
    return (os.fstat(fd).st_uid == os.geteuid() or has_capability("CAP_FOWNER")
            or os.access(f"/proc/self/fd/{fd}", os.W_OK, effective_ids=True))


def mincore(fd: int, offset: int, size: int) -> int:
    """Return how many bytes of a range of a file mincore(2) finds in RAM; raises OSError."""
    if os.fstat(fd).st_size > LONGEST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int,
                          ctypes.c_int, ctypes.c_longlong]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    found = 0
    for at in range(offset - offset % PAGE, offset + size, AT_ONCE):
        part = min(AT_ONCE, offset + size - at)
        # Mapped without any right, so that nothing of it can be read in.
        where = libc.mmap(None, part, 0, mmap.MAP_SHARED, fd, at)
        if where in (None, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        pages = np.zeros(-(-part // PAGE), np.uint8)
        told = libc.mincore(where, part, pages.ctypes.data)
        code = ctypes.get_errno()
        libc.munmap(where, part)
        if told != 0:
            raise OSError(code, os.strerror(code))
        found += int((pages & 1).sum()) * PAGE
    return found


# ---- the file


class OpenFile(NamedTuple):
    """A plain file: ``dev`` as in VMAs, bytes of ``size`` and ``allocated``, and of a ``page``.

    ``below``: its pages are those of another file, which is below it on an overlay.
    """

    fd: int
    dev: int
    inode: int
    size: int
    allocated: int
    below: bool = False
    page: int = PAGE

    @property
    def path(self) -> str:
        """Return a path that leads to this very file."""
        return f"/proc/self/fd/{self.fd}"


SAYS = {
    errno.EPERM: "this kernel tells only root, its owner and whoever may write it",
    errno.EACCES: "you may not read it",
    errno.ENOENT: "it is not there under this name any more",
    errno.EFBIG: "it is longer than 1 TiB, and only cachestat(2) of Linux 6.5 tells that fast",
    errno.EOPNOTSUPP: "its file system does not tell",
}


def why_not(error: OSError) -> str:
    """Return why nothing could be found out about a file."""
    return SAYS.get(error.errno or 0, (error.strerror or str(error)).lower())


def filesystems_of(target: Target) -> dict[int, str]:
    """Return the types of the file systems that a process sees, by device; none if it is hidden."""
    try:
        return parse_mountinfo(target.read("mountinfo"))
    except PagewalkError:
        return {}


def filesystem_of(dev: int) -> str:
    """Return the type of the file system with device ``dev``, "" if it is mounted nowhere here."""
    with suppress(OSError, BadText):
        kinds = parse_mountinfo(read_bytes("/proc/self/mountinfo")) | internal_filesystems()
        return kinds.get(dev, "")
    return ""


@contextmanager
def open_mapped(
    target: Target, filesystems: dict[int, str], name: str, key: tuple[int, int],
    at: tuple[int, int],
) -> Iterator[OpenFile]:
    """Open the file of (dev, inode) ``key`` that a process maps as ``name`` in the range ``at``.

    Raises OSError: see why_not.
    """
    dev, inode = key
    kind = filesystems.get(dev, "")
    if answers_elsewhere(kind.encode()):
        raise OSError(0, f"it is on {kind}: looking at it might keep us waiting")
    try:
        link = os.open(f"map_files/{at[0]:x}-{at[1]:x}", PLACE, dir_fd=target.dirfd)
    except (PermissionError, FileNotFoundError):  # without CAP_SYS_ADMIN, or moved meanwhile
        link = os.open(f"root{name.replace(NEWLINE, chr(10))}", PLACE, dir_fd=target.dirfd)
    if dev not in filesystems and filesystems and not mounted(target, link, dev):
        os.close(link)
        raise OSError(0, "its file system is not mounted any more, and might never answer")
    with reopened(link) as file:
        # Some file systems show another device in maps than stat(2) does, one that is not mounted.
        if file.inode != inode or (file.dev != dev and dev in filesystems):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        yield file


def mounted(target: Target, place: int, dev: int) -> bool:
    """Return whether an O_PATH descriptor is of a mount that a process has, or of the kernel's own.

    A device that is mounted nowhere is that of an overlay's layer or a btrfs subvolume, or of a
    file system that was detached: if that is served by a process, nothing of it can be asked.
    """
    if dev in internal_filesystems():
        return True
    whose = mount_of(read_bytes(f"/proc/self/fdinfo/{place}"))
    with suppress(PagewalkError):
        for mount in parse_mounts(target.read("mountinfo")):
            if mount.id == whose:
                return not answers_elsewhere(mount.kind)
    return False


@contextmanager
def open_path(path: str) -> Iterator[OpenFile]:
    """Open the file at ``path``; raises OSError."""
    with reopened(os.open(path, PLACE)) as file:
        yield file


def told_of(fd: int) -> OpenFile:
    """Return what is known of an open file now."""
    told = os.fstat(fd)
    return OpenFile(fd, device_key(told), told.st_ino, told.st_size, told.st_blocks * BLOCK,
                    is_below(fd, told))


def is_below(fd: int, told: os.stat_result) -> bool:
    """Return whether the pages of an open file are those of another, below it on an overlay.

    cachestat(2) looks at the overlay's own file, which has none; a mapping is of the one below
    (ovl_mmap, fs/overlayfs/file.c).
    """
    # The device of an overlay may be mounted nowhere, as that of a btrfs subvolume.
    if not told.st_size or filesystem_of(device_key(told)) not in ("overlay", ""):
        return False
    with suppress(OSError):
        return cachestat(fd, 0, told.st_size).resident < mincore(fd, 0, told.st_size)
    return False


@contextmanager
def reopened(place: int) -> Iterator[OpenFile]:
    # Opens what an O_PATH descriptor is of, if it is a plain file, and closes both.
    try:
        told = os.fstat(place)
        if not S_ISREG(told.st_mode):
            raise OSError(0, "it is no file with contents of its own")
        if leased(told):
            raise OSError(0, "somebody has a lease on it, which opening it would break")
        fd = os.open(f"/proc/self/fd/{place}", OPEN)
        try:
            yield told_of(fd)
        finally:
            os.close(fd)
    finally:
        os.close(place)
