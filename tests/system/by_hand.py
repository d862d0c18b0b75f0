"""Frames and results written by hand, for tests of what is added up from them, and written."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from pagewalk.account.ledger import Cause, Line
from pagewalk.kernel.structs.memcgs import Memcgs
from pagewalk.kernel.structs.open_files import Holder
from pagewalk.model.bits import kpf
from pagewalk.model.columns import Withheld
from pagewalk.model.frames import ORDER_SHIFT, Frames, Kind
from pagewalk.proc.cgroup_numbers import GroupNumbers
from pagewalk.proc.places import Place
from pagewalk.proc.totals import Totals
from pagewalk.proc.zones import Zone
from pagewalk.system.census import Count
from pagewalk.system.charge import Charge
from pagewalk.system.files import Amounts as FileAmounts
from pagewalk.system.files import CachedFile, FilesReport, FilesTotal, Sort
from pagewalk.system.group import Dying, Group, Objects, with_objects
from pagewalk.system.group_ledger import group_ledger
from pagewalk.system.group_table import Amounts, GroupTable, Keeper
from pagewalk.system.headroom import Headroom, headroom
from pagewalk.system.look import Ram
from pagewalk.system.mapped import ByProcess
from pagewalk.system.ram import NO_LABELS


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
    return Totals(meminfo, vmstat or {}, [ZONE], not_read=())


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


def memcgs(*rows: tuple[str, int, bool, int, int]) -> Memcgs:
    """Return groups, each (path, row of its parent, whether it was removed, usage, limit)."""
    paths, parents, removed, usage, limit = zip(*rows, strict=True)
    count = len(rows)
    return Memcgs(
        memcg=np.arange(1, count + 1, dtype=np.uint64) << np.uint64(12),
        inode=np.arange(100, 100 + count, dtype=np.uint64),
        parent=np.array(parents, np.int64), dying=np.array(removed), removed=np.array(removed),
        usage=np.array(usage, np.int64), limit=np.array(limit, np.int64),
        minimum=np.zeros(count, np.int64), swap=None, kmem=None,
        path=paths,
    )


def charge(*runs: Run, reclaimable: int = 0, unreclaimable: int = 0) -> Charge:
    """Return a group that is charged for ``runs`` and for bytes of kernel objects."""
    count = Count(9)
    count.add(frames(*runs))
    return Charge(count.census, reclaimable, unreclaimable, 4096, 2)


APP = (
    Run(Kind.ANON, 512, ("lru", "swapbacked"), 1), Run(Kind.FILE, 1024, ("lru",)),
    Run(Kind.FILE, 256, ("lru",), 1), Run(Kind.SHMEM, 768, ("lru", "swapbacked")),
    Run(Kind.PAGE_TABLE, 16), Run(Kind.KERNEL, 16),
)  # fmt: skip


def file(sort: Sort, inside: str, cached: int, mapped: int = 0, **changed: Any) -> CachedFile:
    """Return a file in the page cache with ``cached`` bytes."""
    made = CachedFile(sort, FileAmounts(cached, mapped, 0, 0, 0), "ext4", 8 << 32, 12, 1, inside,
                      False, Place(os.fsencode(inside), (), None), (), None)
    return made._replace(**changed)


def group(**changed: Any) -> Group:
    """Return a group of version 2 that is charged 11 MiB, with one process."""
    counted = charge(*APP, reclaimable=1 << 18, unreclaimable=1 << 17)
    numbers = GroupNumbers(current=11 * MIB, peak=15 * MIB, limit=16 * MIB, high=14 * MIB, low=0,
                           min=4 * MIB, events={"low": 0, "max": 3, "oom_kill": 1},
                           pressure={"some": 2_500_000, "full": 1_000_000}, stat={
        "anon": 2 * MIB, "inactive_file": 4 * MIB, "percpu": 1 << 16, "sock": 0})
    told = totals({})
    holder = Holder(812, "java", opened=True, mapped=False)
    files = (
        file(Sort.DELETED, "/var/log/app.log", 3 * MIB, nlink=0, kept_by=(holder,)),
        file(Sort.FILE, "/usr/lib/libjvm.so", 2 * MIB, MIB),
        file(Sort.UNNAMED, "memfd:cache", 3 * MIB, file_system="tmpfs", place=None),
    )
    none = FilesTotal(0, FileAmounts(0, 0, 0, 0, 0))
    made = Group(
        path="/system.slice/app.service", version=2, charge=counted,
        parts={"anon": 2 * MIB, "file_mapped": MIB, "file_unmapped": 4 * MIB,
               "shmem_unmapped": 3 * MIB, "page_tables": 16 << 12, "kernel_other": 16 << 12},
        objects=(Objects("dentry", 1000, 1 << 18, reclaimable=True),
                 Objects("filp", 500, 1 << 17, reclaimable=False)),
        mapped={"anon": 2 * MIB, "file": MIB, "shmem": 0, "kernel": 0},
        elsewhere={"/usr/lib/libc.so.6": MIB, "": 4096}, uncharged={},
        by_others={"anon": 0, "file": 0, "shmem": 0, "kernel": 0},
        processes=(ByProcess(
            812, (), "java", {"anon": 512, "file": 256, "shmem": 0, "kernel": 0}, 257),),
        not_looked=(), files=FilesReport(files, dict.fromkeys(Sort, none), {}, True),
        numbers=(numbers, numbers),
        lines=group_ledger(counted, 2, (numbers, numbers), (told, told)),
        headroom=with_objects(headroom(counted.census, NO_LABELS), counted), swap_room=0, above=(),
        below=(), dying=Dying(0, 0, 0), withheld=(),
    )
    return made._replace(**changed)


def group_table() -> GroupTable:
    """Return four groups, one of them removed and kept by a file."""
    groups = memcgs(
        ("/", -1, False, 20 * MIB, -1), ("/app", 0, False, 11 * MIB, 16 * MIB),
        ("/db", 0, False, 5 * MIB, -1), ("/app/old", 1, True, 3 * MIB, -1),
    )
    amounts = Amounts(*(np.array(column, np.int64) * MIB for column in (
        (20, 11, 5, 3), (6, 2, 4, 0), (9, 6, 0, 3), (3, 3, 0, 0), (2, 0, 1, 0), (7, 6, 0, 3),
        (8, 5, 0, 3))))
    none = FilesTotal(0, FileAmounts(0, 0, 0, 0, 0))
    report = FilesReport((file(Sort.FILE, "/var/cache/x", 3 * MIB),),
                         dict.fromkeys(Sort, none), {}, True)
    return GroupTable(groups, amounts, (Keeper(3, report, (("dentry", 192),)),))
