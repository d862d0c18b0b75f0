"""Frames and results written by hand, for tests of what is added up from them, and written."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.account.ledger import Cause, Line
from pagewalk.model.bits import kpf
from pagewalk.model.columns import Withheld
from pagewalk.model.frames import ORDER_SHIFT, Frames, Kind
from pagewalk.proc.totals import Totals
from pagewalk.proc.zones import Zone
from pagewalk.system.headroom import Headroom
from pagewalk.system.look import Ram


class Run(NamedTuple):
    """A run of frames; it begins where the one before it ends."""

    kind: Kind
    pages: int
    flags: tuple[str, ...] = ()
    mapcount: int = 0
    facts: int = 0
    order: int = 0
    owner: int = 0
    object: int = 0


def frames(*runs: Run, first: int = 0) -> Frames:
    """Return ``runs`` as columns, from frame ``first`` on."""
    pages = np.array([run.pages for run in runs], np.int64)
    return Frames(
        pfn=first + np.cumsum(pages) - pages,
        pages=pages,
        kind=np.array([run.kind.value for run in runs], np.uint8),
        flags=np.array([kpf(*run.flags) for run in runs], np.uint64),
        facts=np.array([run.facts | run.order << ORDER_SHIFT for run in runs], np.uint8),
        mapcount=np.array([run.mapcount for run in runs], np.int32),
        owner=np.array([run.owner for run in runs], np.uint64),
        object=np.array([run.object for run in runs], np.uint64),
        counts=np.zeros(len(runs), np.uint64),
    )


MIB = 1 << 20
ZONE = Zone(0, "Normal", 0, 6144, 6144, 6000, 512, 8, 16, 32, 0, (0, 0), 128, 4, 2)


def totals(meminfo: dict[str, int], vmstat: dict[str, int] | None = None) -> Totals:
    """Return the kernel's totals with ``meminfo`` in bytes."""
    return Totals(meminfo, vmstat or {}, [ZONE], None, refreshed=True, not_read=())


def ram(*, frames: bool = True) -> Ram:
    """Return what 24 MiB of RAM are used for, as seen through frames or through counters."""
    kernel = totals({"MemTotal": 22 * MIB, "MemFree": 2 * MIB, "MemAvailable": 9 * MIB,
                     "SwapFree": MIB, "AnonPages": 5 * MIB, "DirectMap4k": 24 * MIB})
    if not frames:
        parts = {"anon": 5 * MIB, "file": 6 * MIB, "kernel_other": 9 * MIB, "buddy": 2 * MIB,
                 "boot": 2 * MIB}
        hidden = Withheld("what each frame is used for", "hidden\nrun as root", partial=True)
        return Ram("counters", 24 * MIB, parts, {}, [], None, kernel, (hidden,))
    parts = {"anon": 4 * MIB, "anon_huge": 2 * MIB, "hugetlb_idle": 4 * MIB, "file_mapped": MIB,
             "file_unmapped": 5 * MIB, "shmem_unmapped": 2 * MIB, "slab_reclaimable": MIB,
             "kernel_other": MIB, "buddy": 2 * MIB, "boot": 2 * MIB}
    lines = [
        Line("meminfo MemFree", "free blocks", 2 * MIB, 2 * MIB, (), 0),
        Line("meminfo AnonPages", "anonymous and mapped", 6 * MIB, 5 * MIB,
             (Cause("frames_changed", 4096, False, 8192),), MIB - 4096),
        Line("meminfo KernelStack", "kernel stacks", None, 4096, (), None),
    ]
    room = Headroom(2 * MIB, 4 * MIB, MIB, 0, MIB, MIB, 7 * MIB, MIB, 4 * MIB, 3 * MIB, 0)
    return Ram("ebpf", 24 * MIB, parts, {"ext4": (MIB, 5 * MIB), "tmpfs": (0, 2 * MIB)}, lines,
               room, kernel, ())
