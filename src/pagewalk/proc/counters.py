"""The kernel's own totals: status, statm, stat, smaps, smaps_rollup; the numbers we explain.

The kernel's "kB" is KiB; it is turned into bytes here, and nowhere else.
Source: Documentation/filesystems/proc.rst, fs/proc/task_mmu.c.
"""

from __future__ import annotations

import mmap
import os
import re
from typing import NamedTuple

import numpy as np

from pagewalk.errors import PagewalkError
from pagewalk.pages import I64, U64, Bool
from pagewalk.proc.kernel import release
from pagewalk.proc.refusals import reading
from pagewalk.proc.stall import Stall
from pagewalk.proc.target import Target, fields, parse_stat

PAGE = mmap.PAGESIZE
AMOUNT = re.compile(rb"^(\w+):\s*(\d+) kB$", re.MULTILINE)


class Smaps(NamedTuple):
    """Every VMA's block of a smaps file.

    ``start``, ``end`` u64 bytes; ``columns`` the amounts by the kernel's name (``Rss``), i64
    bytes, 0 where a block lacks the line; ``vmflags`` the two-letter codes of each VMA.
    """

    start: U64
    end: U64
    columns: dict[str, I64]
    vmflags: tuple[frozenset[str], ...]

    def has(self, code: str) -> Bool:
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
    parts: list[bytes] = []
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
    return in_bytes(target.read("status"))


def in_bytes(text: bytes) -> dict[str, int]:
    return {key.decode(): int(value) << 10 for key, value in AMOUNT.findall(text)}


def read_statm(target: Target) -> dict[str, int]:
    """Return the fields of /proc/PID/statm, in bytes."""
    names = ("size", "resident", "shared", "text", "lib", "data", "dt")
    values = (int(word) * PAGE for word in target.read("statm").split())
    return dict(zip(names, values, strict=True))


def read_stat(target: Target) -> dict[str, int]:
    """Return ``rss`` and ``vsize`` of /proc/PID/stat, in bytes."""
    stat = parse_stat(target.read("stat"))
    return {"rss": stat.rss * PAGE, "vsize": stat.vsize}


class Theirs(NamedTuple):
    """The kernel's own numbers, in bytes; ``None`` where a file was not read or not readable.

    ``pmap`` is the total that pmap(1) prints. ``cpus`` and ``threads`` bound what the kernel's
    counters may lag behind; ``summed`` says that status and statm are exact sums (6.18), not
    approximate reads. ``not_read`` says which files were not, and why.
    """

    status: dict[str, int]
    statm: dict[str, int]
    stat: dict[str, int]
    smaps: Smaps | None = None
    rollup: Smaps | None = None
    pmap: int | None = None
    cpus: int = 1
    threads: int = 1
    release: tuple[int, int] = (6, 18)
    not_read: tuple[str, ...] = ()

    @property
    def summed(self) -> bool:
        """Return whether status and statm are exact sums of the per-CPU counters."""
        return self.release >= (6, 18) or self.stat["rss"] != self.statm["resident"]


def read_theirs(target: Target, stall: Stall, *, smaps: bool) -> Theirs:
    """Return the kernel's own numbers of ``target``; with ``smaps`` those that hold its lock too.

    A file that cannot be read is left out and named in ``not_read``. Raises ProcessGone.
    """
    tables: dict[str, Smaps] = {}
    not_read = []
    for name in ("smaps", "smaps_rollup") if smaps else ():
        try:
            tables[name] = read_smaps(target, stall, name)
        except PagewalkError as err:
            if target.state() in "ZX":
                raise
            not_read.append(f"{name}: {err}")
    # pmap goes by the number; that the process is still there afterwards shows it was ours.
    pmap = read_pmap(target.pid) if smaps else None
    status = target.read("status")
    return Theirs(
        status=in_bytes(status),
        statm=read_statm(target),
        stat=read_stat(target),
        smaps=tables.get("smaps"),
        rollup=tables.get("smaps_rollup"),
        pmap=pmap,
        cpus=os.cpu_count() or 1,
        threads=int(fields(status).get(b"Threads", b"1")),
        release=release(),
        not_read=tuple(not_read),
    )


def read_pmap(pid: int) -> int | None:
    """Return the total that pmap(1) prints for ``pid``, in bytes.

    None where it is not installed, and where it finds nothing: of a process whose main thread has
    exited, /proc/PID/maps is empty, and pmap knows no other.

    The program itself is asked: the ledger is about what people see.
    """
    import shutil  # these two cost 8 ms to import, and only explain asks
    import subprocess

    program = shutil.which("pmap")
    if program is None:
        return None
    ran = subprocess.run([program, str(pid)], capture_output=True, check=False)
    words = ran.stdout.rsplit(b"\n", 2)[-2:-1]
    last = words[0].split() if words else []
    if len(last) != 2 or last[0] != b"total" or not last[1].endswith(b"K"):
        return None
    return int(last[1][:-1]) << 10 or None
