"""Charge a memory cgroup in a known way: python -m tests.targets.charges PROCS CASE [ARGUMENT ...].

The process first moves into the group whose cgroup.procs is PROCS. A case goes step by step: after
each it writes what it did, as a line of JSON, and waits for a line before the next one.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

PAGE, HUGE = mmap.PAGESIZE, 2 << 20
MADV_FREE, MADV_HUGEPAGE, MADV_PAGEOUT = 8, 14, 21
MAP_HUGETLB, MAP_NORESERVE = 0x40000, 0x4000
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS

Facts = dict[str, Any]
libc = ctypes.CDLL(None, use_errno=True)
held: list[object] = []  # what must not be collected


def touched(size: int, flags: int = PRIVATE) -> mmap.mmap:
    """Return anonymous memory of which each page was written."""
    area = mmap.mmap(-1, size, flags=flags)
    held.append(area)
    write(area)
    return area


def write(area: mmap.mmap) -> None:
    for at in range(0, len(area), PAGE):
        area[at] = 1 + at % 251


def status(name: str) -> int:
    """Return a line of our own status, in bytes."""
    with open("/proc/self/status") as file:
        [line] = [line for line in file if line.startswith(f"{name}:")]
    return int(line.split()[1]) << 10


def anon(size: str) -> Iterator[Facts]:
    """Touch anonymous memory."""
    touched(int(size))
    yield {"bytes": int(size)}


def grows(size: str, step: str) -> Iterator[Facts]:
    """Touch anonymous memory, and more of it at each step."""
    touched(int(size))
    while True:
        yield {"bytes": sum(len(area) for area in held if isinstance(area, mmap.mmap))}
        touched(int(step))


def written(path: str, size: str) -> Iterator[Facts]:
    """Write a file, and sync it."""
    with open(path, "wb") as file:
        file.write(bytes(range(256)) * (int(size) >> 8))
        file.flush()
        os.fsync(file.fileno())
    yield {"bytes": int(size)}


def deleted(path: str, size: str) -> Iterator[Facts]:
    """Keep a file open that was deleted."""
    file = open(path, "wb+", buffering=0)  # noqa: SIM115  held open on purpose
    held.append(file)
    os.unlink(path)
    file.write(bytes(range(256)) * (int(size) >> 8))
    yield {"bytes": int(size)}


def maps(path: str) -> Iterator[Facts]:
    """Map a file, and touch each page of it."""
    with open(path, "rb") as file:
        area = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    held.append(area)
    sum(area[at] for at in range(0, len(area), PAGE))
    yield {"bytes": len(area)}


def threads(count: str) -> Iterator[Facts]:
    """Start threads that wait for ever."""
    yield {"threads": 0}
    threading.stack_size(64 << 10)
    for _ in range(int(count)):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    yield {"threads": len(os.listdir("/proc/self/task")) - 1}


def descriptors(count: str) -> Iterator[Facts]:
    """Open descriptors of their own of /dev/null."""
    wanted = int(count) + 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard_limit())))
    yield {"files": 0}
    held.extend([os.open("/dev/null", os.O_RDONLY) for _ in range(int(count))])
    yield {"files": int(count)}


def bpf_map(size: str) -> Iterator[Facts]:
    """Make a BPF array that can be mapped: its struct has a page, and its values have others."""
    from pagewalk.kernel.bpf.syscall import create_array

    yield {"bytes": 0}
    held.append(create_array(int(size), "of_a_test"))
    yield {"bytes": PAGE + int(size)}


def hard_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def tables(count: str) -> Iterator[Facts]:
    """Write one page in each 2 MiB of a large reservation."""
    area = mmap.mmap(-1, (int(count) + 1) * HUGE, flags=PRIVATE | MAP_NORESERVE)
    area.madvise(mmap.MADV_NOHUGEPAGE)  # else one write may take all of the 2 MiB
    held.append(area)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    first = -address % HUGE
    yield {"tables": status("VmPTE")}
    for at in range(first, first + int(count) * HUGE, HUGE):
        area[at] = 1
    yield {"tables": status("VmPTE")}


def unix_sockets(pairs: str) -> Iterator[Facts]:
    """Fill the buffers of pairs of Unix sockets that nobody reads."""
    yield {"bytes": 0}
    sent = 0
    for _ in range(int(pairs)):
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        held.append(ends)
        sent += fill(ends[0])
    yield {"bytes": sent}


def tcp_sockets() -> Iterator[Facts]:
    """Fill the buffers of a TCP connection that nobody reads."""
    yield {"bytes": 0}
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    held.extend([one, other])
    yield {"bytes": fill(one)}


def fill(end: socket.socket) -> int:
    end.setblocking(False)
    sent, data = 0, b"x" * 4000
    while True:
        try:
            sent += end.send(data)
        except BlockingIOError:
            return sent


def rings(entries: str) -> Iterator[Facts]:
    """Map the rings of an io_uring, populated: pages of the kernel, which are in the RSS."""
    yield {"bytes": 0}
    parameters = (ctypes.c_uint32 * 30)()  # struct io_uring_params
    fd = libc.syscall(425, int(entries), parameters)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")
    many, array = parameters[0], parameters[16]  # sq_entries, sq_off.array
    areas = {0: array + 4 * many, 0x10000000: 64 * many}  # IORING_OFF_SQ_RING, IORING_OFF_SQES
    for offset, size in areas.items():
        held.append(mmap.mmap(fd, size, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=offset))
    with open("/proc/self/smaps") as smaps:
        parts = smaps.read().split("anon_inode:[io_uring]")[1:]
    rss = [int(part.partition("\nRss:")[2].split(maxsplit=1)[0]) << 10 for part in parts]
    yield {"bytes": sum(rss), "mapped": sum(-(-size // PAGE) * PAGE for size in areas.values())}


def swapped(size: str) -> Iterator[Facts]:
    """Touch anonymous memory, and have it written to swap."""
    area = mmap.mmap(-1, int(size), flags=PRIVATE)
    held.append(area)
    area.madvise(mmap.MADV_NOHUGEPAGE)  # zswap does not take huge pages
    write(area)
    yield {"swap": status("VmSwap")}
    area.madvise(MADV_PAGEOUT)
    yield {"swap": status("VmSwap")}


def huge(size: str) -> Iterator[Facts]:
    """Touch anonymous memory in transparent huge pages."""
    area = mmap.mmap(-1, int(size) + HUGE, flags=PRIVATE)
    held.append(area)
    first = -ctypes.addressof(ctypes.c_char.from_buffer(area)) % HUGE
    area.madvise(MADV_HUGEPAGE, first, int(size))
    for at in range(first, first + int(size), PAGE):
        area[at] = 1
    yield {"bytes": int(size)}


def hugetlb(pages: str) -> Iterator[Facts]:
    """Touch hugetlb pages."""
    area = mmap.mmap(-1, int(pages) * HUGE, flags=PRIVATE | MAP_HUGETLB)
    held.append(area)
    for at in range(0, len(area), HUGE):
        area[at] = 1
    yield {"bytes": len(area)}


def locked(size: str) -> Iterator[Facts]:
    """Lock anonymous memory."""
    area = touched(int(size))
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    if libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(int(size))):
        raise OSError(ctypes.get_errno(), "mlock")
    yield {"locked": status("VmLck")}


def lazyfree(size: str) -> Iterator[Facts]:
    """Give anonymous memory back with MADV_FREE, from one CPU."""
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    area = touched(int(size))
    area.madvise(MADV_FREE)
    yield {"bytes": int(size)}


def memfd(name: str, size: str) -> Iterator[Facts]:
    """Fill a memfd through a mapping."""
    file = os.memfd_create(name)
    os.ftruncate(file, int(size))
    area = mmap.mmap(file, int(size))
    area[:] = b"x" * int(size)
    yield {"bytes": int(size)}


def names(folder: str, count: str) -> Iterator[Facts]:
    """Look up names that do not exist: each leaves a dentry."""
    yield {"names": 0}
    for number in range(int(count)):
        os.access(f"{folder}/no-such-file-{number}", os.F_OK)
    yield {"names": int(count)}


def moved(procs: str, size: str) -> Iterator[Facts]:
    """Touch anonymous memory, and move to another group with it."""
    touched(int(size))
    yield {"bytes": int(size)}
    join(procs)
    yield {"bytes": int(size)}


def join(procs: str) -> None:
    with open(procs, "w") as file:
        file.write(str(os.getpid()))


CASES: dict[str, Callable[..., Iterator[Facts]]] = {
    case.__name__: case for case in (
        anon, grows, written, deleted, maps, threads, descriptors, tables, bpf_map, unix_sockets,
        tcp_sockets, rings, swapped, huge, hugetlb, locked, lazyfree, names, moved,
        memfd,
    )
}  # fmt: skip


def main() -> None:
    """Join the group, and do one case step by step."""
    procs, case, *arguments = sys.argv[1:]
    join(procs)
    for facts in CASES[case](*arguments):
        print(json.dumps(facts), flush=True)
        if not sys.stdin.readline():
            break


if __name__ == "__main__":
    main()
    os._exit(0)  # threads wait for ever
