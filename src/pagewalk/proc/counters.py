"""The kernel's own totals: status, statm, stat, smaps, smaps_rollup; the numbers we explain.

The kernel's "kB" is KiB; it is turned into bytes here, and nowhere else.
Source: Documentation/filesystems/proc.rst, fs/proc/task_mmu.c.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass

import numpy as np

from pagewalk.pages import I64, U64
from pagewalk.proc.refusals import reading
from pagewalk.proc.stall import Stall
from pagewalk.proc.target import Target, fields, parse_stat

PAGE = mmap.PAGESIZE


@dataclass(frozen=True, slots=True)
class Smaps:
    """Every VMA's block of a smaps file.

    ``start``, ``end`` u64 bytes; ``columns`` the amounts by the kernel's name (``Rss``), i64
    bytes, 0 where a block lacks the line; ``vmflags`` the two-letter codes of each VMA.
    """

    start: U64
    end: U64
    columns: dict[str, I64]
    vmflags: tuple[frozenset[str], ...]

    def has(self, code: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Return a mask of the VMAs whose VmFlags hold ``code``."""
        return np.array([code in flags for flags in self.vmflags], bool)


def parse_smaps(text: bytes) -> Smaps:
    """Return the blocks of a smaps or smaps_rollup file."""
    edges: list[tuple[int, int]] = []
    columns: dict[str, dict[int, int]] = {}
    vmflags: list[frozenset[str]] = []
    for line in text.split(b"\n"):
        key, colon, value = line.partition(b":")
        if not colon or b" " in key:
            if line:
                low, _, high = line.split(None, 1)[0].partition(b"-")
                edges.append((int(low, 16), int(high, 16)))
                vmflags.append(frozenset())
        elif key == b"VmFlags":
            vmflags[-1] = frozenset(value.decode().split())
        elif value.endswith(b" kB"):
            columns.setdefault(key.decode(), {})[len(edges) - 1] = int(value[:-3]) << 10
    table = np.array(edges, np.uint64).reshape(len(edges), 2)
    return Smaps(
        table[:, 0],
        table[:, 1],
        {name: spread(rows, len(edges)) for name, rows in columns.items()},
        tuple(vmflags),
    )


def spread(rows: dict[int, int], count: int) -> I64:
    out = np.zeros(count, np.int64)
    out[list(rows)] = list(rows.values())
    return out


def read_smaps(target: Target, stall: Stall, name: str = "smaps") -> Smaps:
    """Return a fresh reading of ``smaps`` or ``smaps_rollup``; each read is timed on ``stall``.

    The kernel holds the target's lock for a whole VMA, and for smaps_rollup (5.15 and later yield
    to a waiter) for the whole walk. Raises NotPermitted, ProcessGone.
    """
    fd = target.open(name)
    parts = []
    try:
        with reading(target.pid, name, target.dirfd):
            while True:
                with stall.timed(name):
                    part = os.read(fd, 1 << 16)
                if not part:
                    return parse_smaps(b"".join(parts))
                parts.append(part)
    finally:
        os.close(fd)


def read_status(target: Target) -> dict[str, int]:
    """Return the ``kB`` lines of /proc/PID/status, in bytes, by the kernel's name (``VmRSS``)."""
    rows = fields(target.read("status"))
    return {
        key.decode(): int(value[:-3]) << 10 for key, value in rows.items() if value.endswith(b" kB")
    }


def read_statm(target: Target) -> dict[str, int]:
    """Return the fields of /proc/PID/statm, in bytes."""
    names = ("size", "resident", "shared", "text", "lib", "data", "dt")
    values = (int(word) * PAGE for word in target.read("statm").split())
    return dict(zip(names, values, strict=True))


def read_stat(target: Target) -> dict[str, int]:
    """Return ``rss`` and ``vsize`` of /proc/PID/stat, in bytes."""
    stat = parse_stat(target.read("stat"))
    return {"rss": stat.rss * PAGE, "vsize": stat.vsize}
