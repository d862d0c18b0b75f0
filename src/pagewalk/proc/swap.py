"""Swap: the devices behind an entry's type number, and the swapped pages of shmem objects."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import numpy as np

from pagewalk.pages import I64, SHARED, U64, WRITE, Backing, VMAs
from pagewalk.proc.pagemap import PAGE
from pagewalk.proc.target import Target
from pagewalk.ranges import gaps

NR_CACHESTAT = 451  # every architecture, since 6.5


def swap_in_use() -> bool:
    """Return whether any swap device holds a page now (/proc/swaps)."""
    return any(row[3] != "0" for row in swap_rows())


def swap_devices() -> dict[int, str]:
    """Return the path of each swap device by its type number.

    /proc/swaps lists the devices in the order of their type; a device removed before the last
    one leaves a gap that is not shown, so the numbers are sure only while none was removed.
    """
    return {number: row[0] for number, row in enumerate(swap_rows())}


def swap_rows() -> list[list[str]]:
    try:
        lines = Path("/proc/swaps").read_text().splitlines()[1:]
    except OSError:
        return []
    return [line.split() for line in lines]


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
    if os.uname().machine == "alpha":
        raise OSError("cachestat has another number there")
    libc = ctypes.CDLL(None, use_errno=True)
    span = (ctypes.c_uint64 * 2)(offset, size)
    result = (ctypes.c_uint64 * 5)()
    if libc.syscall(NR_CACHESTAT, fd, span, result, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result[3]) * PAGE


def shmem_swap(target: Target, vmas: VMAs) -> I64:
    """Return the swapped bytes (i64) of the shmem object under each VMA; raises OSError.

    Of a shared or read-only VMA this is what smaps adds to Swap (shmem_swap_usage and
    shmem_partial_swap_usage, mm/shmem.c). Of a private writable one smaps looks only at pages
    that this process has not copied; see private_shmem.
    """
    out = np.zeros(len(vmas), np.int64)
    for row in np.flatnonzero(vmas.backing == Backing.SHMEM).tolist():
        start, end = int(vmas.start[row]), int(vmas.end[row])
        fd = open_mapped_file(target, start, end)
        try:
            out[row] = evicted(fd, int(vmas.offset[row]), end - start)
        finally:
            os.close(fd)
    return out


def private_shmem(vmas: VMAs, rows: I64) -> I64:
    """Return those of ``rows`` that are private writable maps of shmem."""
    perms = vmas.perms[rows]
    private: I64 = rows[(perms & SHARED == 0) & (perms & WRITE != 0)]
    return private


def hole_swap(target: Target, vmas: VMAs, row: int, populated: U64) -> int:
    """Return the swapped bytes of the shmem object under what ``populated`` leaves free of a VMA.

    ``populated`` u64[n, 2] are the address ranges with an entry of this process. The kernel's own
    smaps may say more: it adds a whole large swap entry for each page of it (6.18).
    """
    start, end = int(vmas.start[row]), int(vmas.end[row])
    fd = open_mapped_file(target, start, end)
    try:
        return sum(
            evicted(fd, int(vmas.offset[row]) + low - start, high - low)
            for low, high in gaps(populated, start, end).tolist()
        )
    finally:
        os.close(fd)
