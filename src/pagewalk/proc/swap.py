"""Swap: the devices behind an entry's type number, and the swapped pages of shmem objects."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeAlias

from pagewalk.pages import I64, SHARED, U64, WRITE, VMAs
from pagewalk.proc.files import decode_name, read_bytes, rows
from pagewalk.proc.pagemap import PAGE
from pagewalk.proc.target import Target
from pagewalk.ranges import gaps

# (offset, size) of a part of a shmem object, bytes -> the bytes of it that are in swap.
Evicted: TypeAlias = Callable[[int, int], int]

# swap_show, mm/swapfile.c, below its heading. Blanks in a path are escaped.
LINE = re.compile(
    rb"(?m)^(?:Filename\t[^\n]*|([^ \t\n]+)[ \t]+(?:file|partition)[ \t]+(\d{1,20})"
    rb"[ \t]+(\d{1,20})[ \t]+-?\d+)\n"
)

NR_CACHESTAT = 451  # every architecture, since 6.5


def swap_in_use() -> bool:
    """Return whether any swap device may hold a page now (/proc/swaps); raises BadText."""
    devices = read_swaps()
    return devices is None or any(used for _, _, used in devices)


def device_of(number: int, devices: Sequence[SwapDevice]) -> str | None:
    """Return the path of swap device ``number``, in use, if ``devices`` prove it, else None.

    /proc/swaps lists the devices in use in order of their numbers, but shows neither the numbers
    nor the gaps of removed devices (swap_start, mm/swapfile.c), so the first may have any number.
    But no number is below 0: while device 0 is in use, it is the first.
    """
    return devices[0].path if number == 0 and devices else None


class SwapDevice(NamedTuple):
    """One line of /proc/swaps; ``size`` and ``used`` in bytes."""

    path: str
    size: int
    used: int


def read_swaps() -> list[SwapDevice] | None:
    """Return the lines of /proc/swaps, None where there is no such file (subset=pid).

    Raises BadText.
    """
    try:
        return parse_swaps(read_bytes("/proc/swaps"))
    except OSError:
        return None


def parse_swaps(text: bytes) -> list[SwapDevice]:
    """Return the lines of a swaps file; raises BadText."""
    return [
        SwapDevice(decode_name(path), int(size) << 10, int(used) << 10)
        for path, size, used in rows(LINE, text, "/proc/swaps") if path
    ]


def open_mapped_file(target: Target, start: int, end: int) -> int:
    """Return a descriptor of the file mapped at [``start``, ``end``); raises OSError.

    Needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE (proc_map_files_get_link).
    """
    return os.open(
        f"map_files/{start:x}-{end:x}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=target.dirfd
    )


def evicted(fd: int, offset: int, size: int) -> int:
    """Return the bytes of [``offset``, +``size``) of a shmem file that are in swap.

    cachestat(2) counts them as evicted pages. Raises OSError (ENOSYS before 6.5).
    """
    with refusing():
        if os.uname().machine == "alpha":
            raise OSError(errno.ENOSYS, "cachestat has another number there")
        libc = ctypes.CDLL(None, use_errno=True)
        span = (ctypes.c_uint64 * 2)(offset, size)
        result = (ctypes.c_uint64 * 5)()
        if libc.syscall(NR_CACHESTAT, fd, span, result, 0) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return int(result[3]) * PAGE


@contextmanager
def refusing() -> Iterator[None]:
    # Rewords an OSError: what is needed, or that the mapping has gone.
    try:
        yield
    except OSError as err:
        says = (
            "a mapping changed before its object was read; --freeze prevents that"
            if err.errno == errno.ENOENT
            else f"/proc/PID/map_files and cachestat(2) cannot be used ({err.strerror}); needs"
            " CAP_SYS_ADMIN and Linux 6.5, or --source ebpf"
        )
        raise OSError(err.errno, says) from err


def ask_cachestat(target: Target, vmas: VMAs, rows: I64) -> Iterator[Evicted]:
    """Yield for each of ``rows`` what tells the swapped bytes of the object mapped there.

    It holds until the next one is asked for. Raises OSError.
    """
    for row in rows.tolist():
        with refusing():
            fd = open_mapped_file(target, int(vmas.start[row]), int(vmas.end[row]))
        try:
            yield partial(evicted, fd)
        finally:
            os.close(fd)


def shmem_swap(vmas: VMAs, row: int, swapped: Evicted, populated: Callable[[int], U64]) -> int:
    """Return what smaps adds to Swap for the shmem object under a VMA, bytes; raises OSError.

    Of a shared or read-only VMA that is all of the object that it maps (shmem_swap_usage and
    shmem_partial_swap_usage, mm/shmem.c). Of a private writable one smaps looks only at what this
    process has no entry for: ``populated(row)`` are the address ranges with one, u64[n, 2]. There
    the kernel's own smaps may say more: it adds a whole large swap entry for each page of it
    (6.18).
    """
    start, end, offset = int(vmas.start[row]), int(vmas.end[row]), int(vmas.offset[row])
    found = swapped(offset, end - start)
    if not found or vmas.perms[row] & SHARED or not vmas.perms[row] & WRITE:
        return found
    free = gaps(populated(row), start, end)
    return sum(swapped(offset + low - start, high - low) for low, high in free.tolist())
