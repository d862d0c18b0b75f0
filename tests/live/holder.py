"""A process that holds memory in one way: python tests/live/holder.py KIND, until stdin ends.

It prints "ready" once it does. It imports nothing from this project, to keep the process small.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
from collections.abc import Callable

PAGE, MIB = 4096, 1 << 20
SIZE = 4 * MIB
IPC_RMID, IPC_CREAT = 0, 0o1000
MAP_HUGETLB, HUGE = 0x40000, 2 * MIB
kept: list[object] = []


def fill(area: mmap.mmap, size: int = SIZE) -> mmap.mmap:
    for at in range(0, size, PAGE):
        area[at] = 1
    kept.append(area)
    return area


def filled(fd: int, size: int = SIZE) -> int:
    os.truncate(fd, 0)
    for _ in range(size // MIB):
        os.write(fd, b"x" * MIB)
    return fd


def child(also: Callable[[], object] = lambda: None) -> None:
    # It stays until it is killed with its parent's process group.
    told, tell = os.pipe()
    if os.fork() == 0:
        also()
        os.write(tell, b"x")
        signal.pause()
    os.read(told, 1)


def thrice() -> None:
    """Map one memfd three times, as ZGC does, and a part of it once more."""
    fd = filled(os.memfd_create("heap"))
    for _ in range(3):
        fill(mmap.mmap(fd, SIZE))
    fill(mmap.mmap(fd, SIZE // 2, offset=SIZE // 2), SIZE // 2)


def reader() -> None:
    """Read files through mappings: their pages stay in the page cache."""
    import _ctypes

    for path in (sys.executable, _ctypes.__file__):
        with open(path, "rb") as file:
            area = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        kept.append((area, sum(area[at] for at in range(0, len(area), PAGE))))


def family() -> None:
    """Share memory with a child that has since written half of it."""
    area = fill(mmap.mmap(-1, SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    child(lambda: fill(area, SIZE // 2))


def named() -> None:
    """Hold a tmpfs file that has a name, and map half of it."""
    path = f"/dev/shm/pagewalk-{os.getpid()}"
    fd = filled(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    fill(mmap.mmap(fd, SIZE // 2), SIZE // 2)


def gone() -> None:
    """Hold a tmpfs file that was deleted, and map half of it."""
    path = f"/dev/shm/pagewalk-{os.getpid()}"
    fd = filled(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    os.unlink(path)
    fill(mmap.mmap(fd, SIZE // 2), SIZE // 2)


def unmapped() -> None:
    """Hold an unmapped memfd, by two descriptors of one open file and one of another."""
    fd = filled(os.memfd_create("unmapped"))
    os.dup(fd)
    os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)


def lent() -> None:
    """Hold a memfd that a child has open too."""
    fd = filled(os.memfd_create("lent"))
    fill(mmap.mmap(fd, SIZE // 2), SIZE // 2)
    child()


def mapped_by_child() -> None:
    """Hold shared anonymous memory that a child maps too but has not touched."""
    fill(mmap.mmap(-1, SIZE))
    child()


def shared_anonymous() -> None:
    """Hold shared anonymous memory that no other process has."""
    fill(mmap.mmap(-1, SIZE))


def segment() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    number: int = libc.shmget(0, SIZE, IPC_CREAT | 0o600)
    at = libc.shmat(number, None, 0)
    assert number >= 0 and at not in (None, ctypes.c_void_p(-1).value)
    ctypes.memset(at, 1, SIZE // 2)
    return number


def removed() -> None:
    """Hold a SysV segment that is already removed, half of it touched."""
    ctypes.CDLL(None).shmctl(segment(), IPC_RMID, None)


def left() -> None:
    """Hold a SysV segment that stays; the caller must remove it, by the id that this prints."""
    print(segment(), flush=True)


def attached_twice() -> None:
    """Hold a SysV segment that is already removed and that a child has attached too."""
    number = segment()
    child()
    ctypes.CDLL(None).shmctl(number, IPC_RMID, None)


def hugetlb() -> None:
    """Hold hugetlb pages: private, shared, and of a memfd with one page not mapped."""
    for flags in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):
        area = mmap.mmap(-1, HUGE, flags=flags | mmap.MAP_ANONYMOUS | MAP_HUGETLB)
        area[0] = 1
        kept.append(area)
    fd = os.memfd_create("huge", os.MFD_HUGETLB)
    os.truncate(fd, 2 * HUGE)
    whole = mmap.mmap(fd, 2 * HUGE)
    whole[0] = whole[HUGE] = 1
    whole.close()
    part = mmap.mmap(fd, HUGE)
    part[0] = 1
    kept.append(part)


KINDS = (thrice, reader, family, named, gone, unmapped, lent, mapped_by_child, shared_anonymous,
         removed, left, attached_twice, hugetlb)

if __name__ == "__main__":
    {kind.__name__: kind for kind in KINDS}[sys.argv[1]]()
    print("ready", flush=True)
    sys.stdin.read()
