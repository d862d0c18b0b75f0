"""A process with a region for each way in which smaps of 6.1 and of 6.18 differ, and for the rest.

Run by record.py, in a guest: it costs the guest pages of RAM. It prints the regions as JSON, forks
a child that shares what there is, and both stop.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import sys

PAGE = mmap.PAGESIZE
LENGTH = 16 * PAGE
# Where no kernel and no library puts anything: the same address in each recording.
BASE, STEP = 0x1000_0000_0000, 1 << 30
PRIVATE, SHARED, ANONYMOUS, FIXED = mmap.MAP_PRIVATE, mmap.MAP_SHARED, mmap.MAP_ANONYMOUS, 0x100000
MADV_HWPOISON = 100  # include/uapi/asm-generic/mman-common.h
MADV_NOHUGEPAGE, MADV_FREE = 15, 8
# arch/x86/entry/syscalls/syscall_64.tbl
MLOCK2, PKEY_MPROTECT, PKEY_ALLOC = 325, 329, 330

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
regions: dict[str, int] = {}


def call(function: str, *args: int) -> int:
    """Call a function of libc; raise OSError if it fails."""
    words = [ctypes.c_void_p(arg & (1 << 64) - 1) for arg in args]
    done: int | None = getattr(libc, function)(*words)
    if done in (-1, (1 << 64) - 1):
        raise OSError(ctypes.get_errno(), f"{function} {args}")
    return done or 0


def region(name: str, kind: int = PRIVATE | ANONYMOUS, fd: int = -1) -> int:
    """Map the next region and write to each of its pages."""
    start = map_next(name, mmap.PROT_READ | mmap.PROT_WRITE, kind, fd)
    for addr in range(start, start + LENGTH, PAGE):
        ctypes.memset(addr, 1, 1)
    return start


def read_only(name: str, fd: int) -> None:
    """Map the next region and read each of its pages."""
    kind = PRIVATE | (ANONYMOUS if fd < 0 else 0)
    start = map_next(name, mmap.PROT_READ, kind, fd)
    for addr in range(start, start + LENGTH, PAGE):
        ctypes.string_at(addr, 1)


def map_next(name: str, protection: int, kind: int, fd: int) -> int:
    start = BASE + len(regions) * STEP
    regions[name] = call("mmap", start, LENGTH, protection, kind | FIXED, fd, 0)
    call("madvise", start, LENGTH, MADV_NOHUGEPAGE)
    return start


def lose(start: int, page: int) -> None:
    """Lose one page to a memory error."""
    call("madvise", start + page * PAGE, PAGE, MADV_HWPOISON)


def memfd(length: int) -> int:
    """Make an object of shared memory."""
    os.ftruncate(fd := os.memfd_create("recorded"), length)
    return fd


def prepare(path: str) -> None:
    """Make the regions; one maps the file ``path``, of at least LENGTH bytes."""
    region("plain")
    read_only("zero", -1)
    read_only("file", os.open(path, os.O_RDONLY))
    region("memfd", SHARED, memfd(LENGTH))
    freed = region("lazyfree")
    for _ in range(2):  # the second call drains this CPU's batch, in which the first leaves them
        call("madvise", freed, LENGTH // 2, MADV_FREE)
    call("mlock", region("locked"), LENGTH)
    call("syscall", MLOCK2, region("locked_on_fault"), LENGTH, 1)
    key = call("syscall", PKEY_ALLOC, 0, 0)
    call("syscall", PKEY_MPROTECT, region("keyed"), LENGTH, mmap.PROT_READ | mmap.PROT_WRITE, key)
    for name in ("lost", "lost_locked", "lost_inherited"):
        region(name)
    call("mlock", regions["lost_locked"], LENGTH)
    lose(region("lost_memfd", SHARED, memfd(LENGTH)), 5)
    for name in ("lost", "lost_locked"):
        lose(regions[name], 3)


def main() -> None:
    """Stop, with a child that stopped before."""
    signal.signal(signal.SIGBUS, lambda *_: None)  # the kernel tells at once whose page it was
    prepare(sys.argv[1])
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitid(os.P_PID, child, os.WSTOPPED | os.WNOWAIT)
    lose(regions["lost_inherited"], 7)
    print(json.dumps({"child": child, "regions": regions}), flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)


if __name__ == "__main__":
    main()
