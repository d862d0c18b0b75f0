"""Look again, a limited number of times, at what others change, and so compare a walk with smaps.

Even while a process is stopped, others map and unmap the same pages of libc. So the kernel is asked
before and after us: where both answers agree, ours must equal them, with tolerance 0; whatever
moved is looked at again. What never holds still counts as wrong, and so does what still differs in
the last look. A difference that others cause varies from look to look; one of ours stays the same.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Hashable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache, wraps
from itertools import groupby, islice
from typing import Generic, ParamSpec, TypeVar

import numpy as np

import pagewalk
from pagewalk.account.table import Table
from pagewalk.proc.kernel import release
from pagewalk.sources import SOURCES
from tests.kernel_says import (
    KPF_KSM,
    PAGE,
    PFN,
    PRESENT,
    VmaSays,
    parse_smaps,
    read_folio_flags,
    read_pagemap,
    read_rollup,
    read_smaps,
    read_status,
    smaps_text,
)

# How often, and for how many seconds, to look before what has not agreed counts as wrong.
LOOKS, PATIENCE = 300, 120.0
# The same difference in this many consecutive looks is not a change in progress (see
# kernel/verify).
FIRM = 20

P = ParamSpec("P")
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

# The name in smaps of each of our columns.
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


# What procfs withholds on kernels older than the interface that provides it: PAGEMAP_SCAN,
# cachestat(2), and bit 56 of pagemap for shared page tables of hugetlb memory.
TOLD_SINCE = {
    "AnonHugePages": (6, 7),
    "ShmemPmdMapped": (6, 7),
    "FilePmdMapped": (6, 7),
    "Swap": (6, 5),
    "Private_Hugetlb": (6, 12),
    "Shared_Hugetlb": (6, 12),
}


def looks() -> Iterator[int]:
    """Yield the number of each permitted look: LOOKS of them, or for PATIENCE seconds."""
    end = time.monotonic() + PATIENCE
    for look in range(LOOKS):
        if look and time.monotonic() > end:
            return
        yield look


def look_again(look: Callable[[], T], most: int = LOOKS) -> T:
    """Return the result of the first ``look`` that raises no AssertionError.

    Fails with what the looks said, after ``most`` of them or when FIRM in a row said the same.
    """
    said: list[str] = []
    for _ in islice(looks(), most):
        try:
            return look()
        except AssertionError as error:
            said.append(str(error))
        if said[-FIRM:] == said[-1:] * FIRM:
            break
    raise AssertionError(f"none of {len(said)} looks agreed:\n{told(said)}")


def looking_again(test: Callable[P, None]) -> Callable[P, None]:
    """Run a whole test up to FIRM times, for things that the kernel may move at any moment."""

    @wraps(test)
    def looked(*args: P.args, **kwargs: P.kwargs) -> None:
        look_again(lambda: test(*args, **kwargs), FIRM)

    return looked


def told(said: list[str]) -> str:
    """Return the last of what the looks said, with repetitions merged."""
    runs = [(len(list(same)), text) for text, same in groupby(said)]
    return "\n".join(f"{times} x {text}" for times, text in runs[-8:])


@dataclass(frozen=True)
class Seen(Generic[K]):
    """One look: fields that held still and differ, with the difference, and those that moved."""

    differ: dict[K, object]
    moved: AbstractSet[K]


def settle(look: Callable[[], Seen[K]]) -> dict[K, object]:
    """Look until every field has agreed; return those that did not, each with its difference.

    A field is settled by a look in which it holds still and agrees, unless a later one shows that
    it differs. Prints the looks if any field is left: pytest shows the output of a failed test.
    """
    left: dict[K, object] = {}
    times: dict[K, int] = {}
    said: list[str] = []
    for turn in looks():
        seen = look()
        moved = seen.moved & left.keys() if turn else seen.moved
        times = {
            key: times.get(key, 0) * (left.get(key) == how) + 1 for key, how in seen.differ.items()
        }
        left = {key: left.get(key, "never held still") for key in moved} | seen.differ
        said.append(f"{len(moved)} moved, {len(seen.differ)} differ: "
                    f"{list(seen.differ.items())[:3]}")
        if all(times.get(key, 0) >= FIRM for key in left):  # none is left, or all differ for good
            break
    if left:
        print(f"{len(said)} looks:", told(said), sep="\n")
    return left


@dataclass(frozen=True)
class Wrong:
    """A field of a VMA in which smaps and the walk differ, in KiB; ours is None if withheld."""

    field: str
    vma: str
    ours: int | None
    theirs: int


@dataclass(frozen=True)
class Comparison:
    """How many fields were compared, which of them differ, and the walk's table."""

    compared: int
    wrong: list[Wrong]
    table: Table


def compare(pid: int, source: str) -> Comparison:
    """Compare a walk of ``pid`` by ``source`` with smaps, field by field, and with smaps_rollup."""
    said = living_thread(pid)
    compared, tables = 0, list[Table]()

    def look() -> Seen[tuple[int, str]]:
        nonlocal compared
        # Parsed later: the faster all three are read, the less moves.
        text, rolled = smaps_text(said), read_rollup(said)
        table = pagewalk.table(pid, source=source)
        again, after = read_rollup(said), read_smaps(said)
        before = parse_smaps(text)
        tables[:] = [table]
        assert [v.start for v in before] == [v.start for v in after] == table.vmas.start.tolist()
        differ: dict[tuple[int, str], object] = {}
        moved = set()
        for row, (first, last) in enumerate(zip(before, after, strict=True)):
            for name, theirs, ours in fields(table, row, first):
                if theirs != last_value(last, name):
                    moved.add((row, name))
                    continue
                compared += 1
                if ours != theirs and not within(table, row, name, ours, theirs):
                    differ[row, name] = Wrong(name, f"{first.start:x} {first.name}", ours, theirs)
        for name, ours in sums(table).items():
            if rightly_withheld(table, name) or (name == "Pss" and table.totals["untold"]):
                continue
            if rolled[name] != again[name]:
                moved.add((-1, name))
            elif ours != rolled[name]:
                differ[-1, name] = Wrong(f"rollup {name}", "all", ours, rolled[name])
        return Seen(differ, moved)

    wrong = [
        how if isinstance(how, Wrong) else Wrong(f"{name} {how}", f"VMA {row}", None, 0)
        for (row, name), how in settle(look).items()
    ]
    return Comparison(compared, wrong, tables[-1])


def smaller(name: str, *sources: str) -> tuple[int, ...]:
    """Return other arguments for a target that these sources cannot walk in reasonable time.

    Before PAGEMAP_SCAN (6.7) procfs has to read 32 GiB of pagemap for 16 TiB.
    """
    slow = name == "reservation" and "procfs" in sources and release() < (6, 7)
    return (1,) if slow else ()


def living_thread(pid: int) -> int:
    """Return the id of a thread that has not exited: only its files show the process's memory."""
    for tid in sorted(int(entry) for entry in os.listdir(f"/proc/{pid}/task")):
        if read_status(tid)["State"][0] not in "ZX":
            return tid
    return pid


def fields(table: Table, row: int, says: VmaSays) -> list[tuple[str, int, int | None]]:
    """Return (field, KiB in smaps, our KiB) for one VMA; private pages are USS."""
    rows = [
        (field, says.fields[field], kib(table.columns[name], row))
        for field, name in FIELDS.items()
        if field in says.fields and not rightly_withheld(table, field)
    ]
    private = last_value(says, "Private")
    return [*rows, ("Private", private, kib(table.columns["uss"], row))]


def within(table: Table, row: int, field: str, ours: int | None, theirs: int) -> bool:
    """Return whether a field is within the bound that the walk gives for it.

    /proc/kpagecount reads as 0 for some frames in use (RAM that the kernel initialises late). We
    count them as mapped once; they are mapped at least once, so we can be above smaps by their size
    at most. No other field, and no other page, has any slack.
    """
    untold = kib(table.columns["untold"], row)
    return field in ("Pss", "Private", "Locked") and bool(untold) and ours is not None and (
        0 <= ours - theirs <= untold
    )


def rightly_withheld(table: Table, field: str) -> bool:
    """Return whether a source that withholds a field could not know it on this kernel."""
    old = release() < TOLD_SINCE.get(field, (0, 0)) or (field == "KSM" and all_is_ksm())
    return old and table.walk.source == "procfs" and table.columns[FIELDS[field]] is None


@cache
def all_is_ksm() -> bool:
    """Return whether this kernel calls freshly written pages KSM (6.12 does)."""
    # Several: one may be migrated just now.
    own = np.frombuffer(mmap.mmap(-1, 16 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint64)
    own += 1
    entries = read_pagemap(os.getpid(), own.ctypes.data, own.ctypes.data + own.nbytes)
    frames = entries[entries & PRESENT != 0] & PFN
    return bool((read_folio_flags(frames) & KPF_KSM).any())


def last_value(says: VmaSays, field: str) -> int:
    if field == "Private":
        return says.fields["Private_Clean"] + says.fields["Private_Dirty"]
    return says.fields[field]


def kib(column: np.ndarray | None, row: int) -> int | None:
    return None if column is None else int(column[row]) >> 10


def sums(table: Table) -> dict[str, int | None]:
    """Return our totals by their names in smaps_rollup, in whole KiB as it prints them."""
    names = {"Rss": "rss", "Pss": "pss", "Anonymous": "anon", "Swap": "swap"}
    return {
        field: None if (total := table.totals[name]) is None else total >> 10
        for field, name in names.items()
    }


@cache
def working_sources() -> list[str]:
    """Return the sources that work here, tried on this process."""
    working = []
    for name in SOURCES:
        try:
            pagewalk.close(pagewalk.open_process(os.getpid(), name))
        except pagewalk.PagewalkError:
            continue
        working.append(name)
    return working
