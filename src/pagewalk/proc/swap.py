"""Swap: the device behind a swap entry's type number, and the swapped pages of shmem objects."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeAlias

from pagewalk.model.columns import I64, SHARED, U64, WRITE, VMAs
from pagewalk.model.ranges import gaps
from pagewalk.proc.files import decode_name, read_bytes, rows
from pagewalk.proc.page_cache import cachestat
from pagewalk.proc.target import Target

# (offset, size) in bytes of a part of a shmem object -> how many of its bytes are in swap.
Evicted: TypeAlias = Callable[[int, int], int]

# The heading or a line of swap_show, mm/swapfile.c. Blanks in a path are escaped.
LINE = re.compile(
    rb"(?m)^(?:Filename\t[^\n]*|([^ \t\n]+)[ \t]+(?:file|partition)[ \t]+(\d{1,20})"
    rb"[ \t]+(\d{1,20})[ \t]+-?\d+)\n"
)


def swap_in_use() -> bool:
    """Return whether any swap device may hold a page now (/proc/swaps); raises BadText."""
    devices = read_swaps()
    return devices is None or any(used for _, _, used in devices)


def device_of(number: int, devices: Sequence[SwapDevice]) -> str | None:
    """Return the path of active swap device ``number`` if ``devices`` leave no doubt, else None.

    /proc/swaps lists the active devices in order of their numbers, but shows neither the numbers
    nor the gaps that removed devices left (swap_start, mm/swapfile.c), so the first may have any
    number. Only device 0 is certain: while it is active, it is the first.
    """
    return devices[0].path if number == 0 and devices else None


class SwapDevice(NamedTuple):
    """One line of /proc/swaps; ``size`` and ``used`` in bytes."""

    path: str
    size: int
    used: int


def read_swaps() -> list[SwapDevice] | None:
    """Return the lines of /proc/swaps, or None if there is no such file (subset=pid).

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


def evicted(fd: int, offset: int, size: int) -> int:
    """Return how many bytes of [``offset``, +``size``) of a shmem file are in swap.

    cachestat(2) counts them as evicted pages. Raises OSError (ENOSYS before 6.5).
    """
    with rewording():
        told = cachestat(fd, offset, size).evicted
        assert told is not None
        return told


SAYS = {
    errno.ENOENT: "a mapping changed before its object was read; --freeze prevents that",
    errno.ENOSYS: "only cachestat(2) tells, which came with Linux 6.5; use --source ebpf",
}


@contextmanager
def rewording() -> Iterator[None]:
    # Rewords an OSError to say what is needed, or that the mapping has gone.
    try:
        yield
    except OSError as err:
        says = SAYS.get(
            err.errno or 0,
            f"/proc/PID/map_files and cachestat(2) cannot be used ({err.strerror}); needs"
            " CAP_SYS_ADMIN and Linux 6.5, or --source ebpf",
        )
        raise OSError(err.errno, says) from err


def ask_cachestat(target: Target, vmas: VMAs, rows: I64) -> Iterator[Evicted]:
    """Yield, for each of ``rows``, a function that returns the mapped object's swapped bytes.

    It is valid until the next one is asked for. Raises OSError.
    """
    for start, end in vmas.ranges[rows].tolist():
        with rewording():
            # needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE (proc_map_files_get_link)
            link = f"map_files/{start:x}-{end:x}"
            fd = os.open(link, os.O_RDONLY | os.O_CLOEXEC, dir_fd=target.dirfd)
        try:
            yield partial(evicted, fd)
        finally:
            os.close(fd)


def shmem_swap(
    vmas: VMAs, row: int, swapped: Evicted, populated: Callable[[VMAs, int], U64]
) -> int:
    """Return what smaps adds to a VMA's Swap for the shmem object it maps, in bytes.

    For a shared or read-only VMA, smaps looks at the whole mapped part of the object
    (shmem_swap_usage and shmem_partial_swap_usage, mm/shmem.c). For a private writable one it looks
    only at pages that this process has no entry for; ``populated(vmas, row)`` returns the address
    ranges that do have one, u64[n, 2]. There the kernel's own smaps may report more: it adds a
    whole large swap entry for each of its pages (6.18). Raises OSError.
    """
    start, end, offset = int(vmas.start[row]), int(vmas.end[row]), int(vmas.offset[row])
    found = swapped(offset, end - start)
    if not found or vmas.perms[row] & SHARED or not vmas.perms[row] & WRITE:
        return found
    free = gaps(populated(vmas, row), start, end)
    return sum(swapped(offset + low - start, high - low) for low, high in free.tolist())
