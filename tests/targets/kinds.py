"""Take memory of one kind and give it back: python -m tests.targets.kinds CASE [ARGUMENT ...].

It writes what it holds as a line of JSON, and waits for a line before it goes on: it holds nothing,
then what it took, then nothing, and so on.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from fcntl import fcntl
from typing import Any

from pagewalk.kernel.bpf.syscall import BPF_SYSCALL, create_array
from pagewalk.proc.kernel import architecture
from tests.targets.charges import (
    HUGE,
    MAP_HUGETLB,
    MAP_NORESERVE,
    PAGE,
    PRIVATE,
    fill,
    hard_limit,
    status,
    write,
)

Facts = dict[str, Any]
Case = AbstractContextManager[Facts]
libc = ctypes.CDLL(None, use_errno=True)
MADV_PAGEOUT, F_SETPIPE_SZ = 21, 1031
IPC_PRIVATE, IPC_RMID = 0, 0
BPF_MAP_TYPE_PERCPU_ARRAY = 6
PATIENCE = 30.0


@contextmanager
def anonymous(size: str, flags: int = PRIVATE) -> Iterator[mmap.mmap]:
    area = mmap.mmap(-1, int(size), flags=flags)
    try:
        yield area
    finally:
        area.close()


def address(area: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(area))


@contextmanager
def anon(size: str) -> Iterator[Facts]:
    """Touch anonymous memory, in small pages."""
    with anonymous(size) as area:
        area.madvise(mmap.MADV_NOHUGEPAGE)
        write(area)
        yield {"bytes": int(size)}


@contextmanager
def huge(size: str) -> Iterator[Facts]:
    """Touch anonymous memory in transparent huge pages."""
    with anonymous(str(int(size) + HUGE)) as area:
        first = -address(area) % HUGE
        area.madvise(mmap.MADV_HUGEPAGE, first, int(size))
        for at in range(first, first + int(size), PAGE):
            area[at] = 1
        yield {"bytes": int(size)}


@contextmanager
def locked(size: str) -> Iterator[Facts]:
    """Lock anonymous memory."""
    with anonymous(size) as area:
        area.madvise(mmap.MADV_NOHUGEPAGE)
        start, length = ctypes.c_void_p(address(area)), ctypes.c_size_t(int(size))
        checked(libc.mlock(start, length), "mlock")
        yield {"bytes": int(size)}
        checked(libc.munlock(start, length), "munlock")


def checked(result: int, what: str) -> int:
    if result == -1:
        raise OSError(ctypes.get_errno(), what)
    return result


@contextmanager
def swapped(size: str, device: str) -> Iterator[Facts]:
    """Have anonymous memory written to swap on zram; the device says what that takes."""
    before = stored(device)
    with anonymous(size) as area:
        area.madvise(mmap.MADV_NOHUGEPAGE)
        area[:] = os.urandom(len(area) // 2) * 2  # hardly to be compressed
        area.madvise(MADV_PAGEOUT)
        yield {"bytes": stored(device) - before, "swap": status("VmSwap")}


def stored(device: str) -> int:
    # mem_used_total (Documentation/admin-guide/blockdev/zram.rst)
    with open(f"/sys/block/{os.path.basename(device)}/mm_stat") as file:
        return int(file.read().split()[2])


@contextmanager
def hugetlb(pages: str) -> Iterator[Facts]:
    """Touch hugetlb pages."""
    with anonymous(str(int(pages) * HUGE), PRIVATE | MAP_HUGETLB) as area:
        for at in range(0, len(area), HUGE):
            area[at] = 1
        yield {"bytes": len(area)}


@contextmanager
def merged(size: str) -> Iterator[Facts]:
    """Have KSM merge pages, each with another one that is the same."""
    before = shared()
    with anonymous(str(2 * int(size))) as area:
        area.madvise(mmap.MADV_NOHUGEPAGE)
        area[:] = os.urandom(int(size)) * 2
        area.madvise(mmap.MADV_MERGEABLE)
        until = time.monotonic() + PATIENCE
        while shared() - before < int(size) and time.monotonic() < until:
            time.sleep(0.05)
        yield {"bytes": shared() - before}


def shared() -> int:
    with open("/sys/kernel/mm/ksm/pages_shared") as file:
        return int(file.read()) * PAGE


# ---- files and shared memory


@contextmanager
def cached(path: str, size: str) -> Iterator[Facts]:
    """Write a file and sync it: nobody maps it."""
    with open(path, "wb") as file:
        file.write(bytes(range(256)) * (int(size) >> 8))
        file.flush()
        os.fsync(file.fileno())
    yield {"bytes": int(size)}
    os.unlink(path)


@contextmanager
def mapped(path: str) -> Iterator[Facts]:
    """Map a file that is in cache, and touch each page."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as area:
        sum(area[at] for at in range(0, len(area), PAGE))
        yield {"bytes": len(area)}


@contextmanager
def blocks(device: str, size: str) -> Iterator[Facts]:
    """Read a block device, and keep it open: its cache lasts until the last descriptor."""
    with open(device, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # no more than was asked for
        file.read(int(size))
        yield {"bytes": int(size)}
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def deleted(path: str, size: str) -> Iterator[Facts]:
    """Keep a file of a tmpfs open that was deleted."""
    with open(path, "wb+", buffering=0) as file:
        os.unlink(path)
        file.write(bytes(range(256)) * (int(size) >> 8))
        yield {"bytes": int(size)}


@contextmanager
def memfd(size: str) -> Iterator[Facts]:
    """Map memory of a memfd."""
    fd = os.memfd_create("kinds")
    os.truncate(fd, int(size))
    with mmap.mmap(fd, int(size)) as area:
        write(area)
        yield {"bytes": int(size)}
    os.close(fd)


@contextmanager
def segment(size: str) -> Iterator[Facts]:
    """Fill a segment of SysV memory, and leave it there with nobody attached."""
    libc.shmat.restype = ctypes.c_void_p
    number = checked(libc.shmget(IPC_PRIVATE, ctypes.c_size_t(int(size)), 0o1600), "shmget")
    try:
        place = libc.shmat(number, None, 0)
        ctypes.memset(place, 1, int(size))
        checked(libc.shmdt(ctypes.c_void_p(place)), "shmdt")
        yield {"bytes": int(size)}
    finally:
        libc.shmctl(number, IPC_RMID, None)


# ---- the kernel's own


@contextmanager
def tables(count: str) -> Iterator[Facts]:
    """Write one page in each 2 MiB of a large reservation."""
    with anonymous(str((int(count) + 1) * HUGE), PRIVATE | MAP_NORESERVE) as area:
        area.madvise(mmap.MADV_NOHUGEPAGE)  # else one write may take all of the 2 MiB
        first, before = -address(area) % HUGE, status("VmPTE")
        for at in range(first, first + int(count) * HUGE, HUGE):
            area[at] = 1
        yield {"bytes": status("VmPTE") - before}


@contextmanager
def threads(count: str) -> Iterator[Facts]:
    """Run threads that wait."""
    threading.stack_size(64 << 10)
    end = threading.Event()
    running = [threading.Thread(target=end.wait) for _ in range(int(count))]
    for one in running:
        one.start()
    yield {"threads": len(os.listdir("/proc/self/task")) - 1}
    end.set()
    for one in running:
        one.join()


@contextmanager
def pipes(count: str, pages: str) -> Iterator[Facts]:
    """Fill pipes with room for so many pages each, a page at a time."""
    ends = [os.pipe() for _ in range(int(count))]
    for _, end in ends:
        fcntl(end, F_SETPIPE_SZ, int(pages) * PAGE)
        for _ in range(int(pages)):
            os.write(end, b"x" * PAGE)
    yield {"bytes": int(count) * int(pages) * PAGE, "rings": int(count)}
    for pair in ends:
        for end in pair:
            os.close(end)


@contextmanager
def array(size: str) -> Iterator[Facts]:
    """Make an array of BPF, which has its memory from vmalloc."""
    made = create_array(int(size), "kinds")
    with open(f"/proc/self/fdinfo/{made.fd}") as file:
        [memlock] = [line for line in file if line.startswith("memlock:")]
    # An area of more pages than fit a page of addresses keeps these in vmalloc memory too
    # (__vmalloc_area_node, mm/vmalloc.c).
    pages = int(memlock.split()[1]) // PAGE
    kept = -(-pages * 8 // PAGE)
    yield {"bytes": (pages + (kept if kept > 1 else 0)) * PAGE}
    os.close(made.fd)


@contextmanager
def percpu(count: str, size: str) -> Iterator[Facts]:
    """Make an array of BPF that has values of so many bytes on each CPU."""
    fields = (BPF_MAP_TYPE_PERCPU_ARRAY, 4, int(size), int(count), 0, 0, 0, b"kinds")
    attr = ctypes.create_string_buffer(struct.pack("<7I16s", *fields), 128)
    number = ctypes.c_long(BPF_SYSCALL[architecture()])
    fd = checked(libc.syscall(number, 0, attr, len(attr)), "bpf(BPF_MAP_CREATE)")
    yield {"bytes": int(count) * int(size) * (os.cpu_count() or 1)}
    os.close(fd)


@contextmanager
def descriptors(count: str) -> Iterator[Facts]:
    """Open a file of its own for each descriptor of /dev/null."""
    raise_limit(int(count))
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(int(count))]
    yield {"objects": int(count)}
    for fd in opened:
        os.close(fd)


def raise_limit(count: int) -> None:
    wanted = count + 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard_limit())))


@contextmanager
def sockets(pairs: str) -> Iterator[Facts]:
    """Fill the buffers of pairs of Unix sockets that nobody reads."""
    raise_limit(2 * int(pairs))
    ends = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(int(pairs))]
    yield {"sent": sum(fill(end) for end, _ in ends)}
    for pair in ends:
        for end in pair:
            end.close()


@contextmanager
def names(folder: str, count: str) -> Iterator[Facts]:
    """Make files without bytes, each with an inode and a name."""
    os.mkdir(folder)
    for number in range(int(count)):
        os.close(os.open(f"{folder}/{number}", os.O_CREAT | os.O_WRONLY))
    yield {"objects": int(count)}
    for number in range(int(count)):
        os.unlink(f"{folder}/{number}")
    os.rmdir(folder)


CASES: dict[str, Callable[..., Case]] = {
    case.__name__: case for case in (
        anon, huge, locked, swapped, hugetlb, cached, mapped, blocks, deleted, memfd, segment,
        tables, threads, pipes, array, percpu, descriptors, sockets, names, merged,
    )
}  # fmt: skip


def told(facts: Facts) -> bool:
    """Write what is taken now; return whether to go on."""
    print(json.dumps(facts), flush=True)
    return bool(sys.stdin.readline())


def main() -> None:
    """Do one case, step by step."""
    case, *arguments = sys.argv[1:]
    while told({}):
        with CASES[case](*arguments) as facts:
            if not told(facts):
                break


if __name__ == "__main__":
    main()
