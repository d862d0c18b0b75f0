"""Compare a walk with smaps on a stopped process: tolerance 0, at smaps' own KiB.

Even while a process is stopped others map and unmap its pages, so smaps is read before and after
the walk. A field that both readings agree on must equal ours; one that moved is walked again, and
counts as wrong if it never holds still.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

import numpy as np

import pagewalk
from pagewalk.account import Table
from pagewalk.proc.kernel import release
from pagewalk.sources import SOURCES
from tests.kernel_says import (
    KPF_KSM,
    PAGE,
    PFN,
    VmaSays,
    read_folio_flags,
    read_pagemap,
    read_rollup,
    read_smaps,
    read_status,
)

ROUNDS = 25
# The same differences in so many rounds in a row are no change under way.
FIRM = 5

# smaps' name of each of our columns.
FIELDS = {
    "Size": "size",
    "Rss": "rss",
    "Pss": "pss",
    "Swap": "swap",
    "Anonymous": "anon",
    "KSM": "ksm",
    "Locked": "locked",
    "AnonHugePages": "anon_huge",
    "ShmemPmdMapped": "shmem_huge",
    "FilePmdMapped": "file_huge",
    "Private_Hugetlb": "private_hugetlb",
    "Shared_Hugetlb": "shared_hugetlb",
}


# What procfs withholds on kernels older than the interface that tells it: PAGEMAP_SCAN,
# cachestat(2), and bit 56 of pagemap for page tables of hugetlb memory that are shared.
TOLD_SINCE = {
    "AnonHugePages": (6, 7),
    "ShmemPmdMapped": (6, 7),
    "FilePmdMapped": (6, 7),
    "Swap": (6, 5),
    "Private_Hugetlb": (6, 12),
    "Shared_Hugetlb": (6, 12),
}


@dataclass(frozen=True)
class Wrong:
    """A field of a VMA on which smaps and the walk differ, in KiB; ours None if withheld."""

    field: str
    vma: str
    ours: int | None
    theirs: int


@dataclass(frozen=True)
class Comparison:
    """How many fields were compared, those that differ, and the walk's table."""

    compared: int
    wrong: list[Wrong]
    table: Table


def compare(pid: int, source: str) -> Comparison:
    """Compare ``pid``, as ``source`` walks it, with smaps field by field and with its rollup."""
    said = living_thread(pid)
    known: set[tuple[int, str]] = set()
    compared, history = 0, list[list[Wrong]]()
    for _ in range(ROUNDS):
        before, rolled = read_smaps(said), read_rollup(said)
        table = pagewalk.by_vma(pagewalk.walk(pid, source=source))
        again, after = read_rollup(said), read_smaps(said)
        assert [v.start for v in before] == [v.start for v in after] == table.vmas.start.tolist()
        wrong, moved = [], 0
        for row, (first, last) in enumerate(zip(before, after, strict=True)):
            for field, theirs, ours in fields(table, row, first):
                if theirs != last_value(last, field):
                    moved += (row, field) not in known
                    continue
                compared += 1
                known.add((row, field))
                if ours != theirs and not within(table, row, field, ours, theirs):
                    wrong.append(Wrong(field, f"{first.start:x} {first.name}", ours, theirs))
        wrong += [
            Wrong(f"rollup {field}", "all", ours, rolled[field])
            for field, ours in sums(table).items()
            if rolled[field] == again[field] and ours != rolled[field]
            and not rightly_withheld(table, field)
            and not (field == "Pss" and table.totals["untold"])
        ]
        if not wrong and not moved:
            return Comparison(compared, [], table)
        history.append(wrong)
        if wrong and history[-FIRM:] == [wrong] * FIRM:
            break
    still = [Wrong(f"{moved} fields", "never held still", None, 0)] if moved and not wrong else []
    return Comparison(compared, wrong + still, table)


def smaller(name: str, *sources: str) -> tuple[int, ...]:
    """Return other arguments for a target that these sources cannot walk in reasonable time.

    Before PAGEMAP_SCAN (6.7) procfs has to read 32 GiB of pagemap for 16 TiB.
    """
    slow = name == "reservation" and "procfs" in sources and release() < (6, 7)
    return (1,) if slow else ()


def living_thread(pid: int) -> int:
    """Return the id of a thread that has not exited: the kernel shows memory by its files only."""
    for tid in sorted(int(entry) for entry in os.listdir(f"/proc/{pid}/task")):
        if read_status(tid)["State"][0] not in "ZX":
            return tid
    return pid


def fields(table: Table, row: int, says: VmaSays) -> list[tuple[str, int, int | None]]:
    """Return (field, smaps' KiB, our KiB) of one VMA; private pages are USS."""
    rows = [
        (field, says.fields[field], kib(table.columns[name], row))
        for field, name in FIELDS.items()
        if field in says.fields and not rightly_withheld(table, field)
    ]
    private = last_value(says, "Private")
    return [*rows, ("Private", private, kib(table.columns["uss"], row))]


def within(table: Table, row: int, field: str, ours: int | None, theirs: int) -> bool:
    """Return whether a field lies within the bound that the walk gives for it.

    /proc/kpagecount reads 0 for some frames in use (RAM that the kernel initialises late). They
    count as mapped once; in truth each is mapped at least once, so the most we can be above smaps
    is their size. No other field, and no other page, has any slack.
    """
    untold = kib(table.columns["untold"], row)
    return field in ("Pss", "Private", "Locked") and bool(untold) and ours is not None and (
        0 <= ours - theirs <= untold
    )


def rightly_withheld(table: Table, field: str) -> bool:
    """Return whether a source that says nothing of a field could not know on this kernel."""
    old = release() < TOLD_SINCE.get(field, (0, 0)) or (field == "KSM" and all_is_ksm())
    return old and table.walk.source == "procfs" and table.columns[FIELDS[field]] is None


@cache
def all_is_ksm() -> bool:
    """Return whether this kernel calls a page KSM that was written a moment ago (6.12 does)."""
    own = np.ones(PAGE // 8, np.uint64)
    addr = own.ctypes.data // PAGE * PAGE
    pfn = read_pagemap(os.getpid(), addr, addr + PAGE) & PFN
    return bool(read_folio_flags(pfn)[0] & KPF_KSM)


def last_value(says: VmaSays, field: str) -> int:
    if field == "Private":
        return says.fields["Private_Clean"] + says.fields["Private_Dirty"]
    return says.fields[field]


def kib(column: np.ndarray | None, row: int) -> int | None:
    return None if column is None else int(column[row]) >> 10


def sums(table: Table) -> dict[str, int | None]:
    """Return our totals by smaps_rollup's name, in whole KiB as it prints them."""
    names = {"Rss": "rss", "Pss": "pss", "Anonymous": "anon", "Swap": "swap"}
    return {
        field: None if (total := table.totals[name]) is None else total >> 10
        for field, name in names.items()
    }


@cache
def working_sources() -> list[str]:
    """Return the sources that work here, asked of this very process."""
    working = []
    for name in SOURCES:
        try:
            pagewalk.close(pagewalk.open_process(os.getpid(), name))
        except pagewalk.PagewalkError:
            continue
        working.append(name)
    return working
