"""VMAs, pages, a Table and the kernel's numbers, small enough to check on paper.

The address space, in base pages:

=========  =====  ======  ====================================================================
VMA        pages  perms   contents
=========  =====  ======  ====================================================================
program        4  r-xp    two file pages, mapped once and by 3 processes; two absent
[heap]         6  rw-p    anonymous: mapped once, by 2, a KSM page mapped by 4; swapped; absent 2
memfd          3  rw-s    a shmem page mapped by 2; the zero page; a userfaultfd marker
big         1024  rw-p    a THP mapped by a PMD, mapped once; 512 absent
=========  =====  ======  ====================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from pagewalk.account.check import NO_PAGES
from pagewalk.account.table import Table, by_vma
from pagewalk.model.bits import kpf
from pagewalk.model.columns import (
    EXEC,
    I64,
    READ,
    SHARED,
    WRITE,
    Amounts,
    Backing,
    Flag,
    Pages,
    State,
    Sums,
    Tells,
    VMAs,
    Withheld,
    take,
)
from pagewalk.model.facts import Facts
from pagewalk.proc.counters import Theirs
from pagewalk.proc.smaps import parse_smaps
from pagewalk.proc.stall import Stall
from pagewalk.sources.outcome import Outcome
from pagewalk.walking.sums import add_up
from pagewalk.walking.walk import Walk
from tests.columns import Columns

PAGE, KIB = 4096, 1024
THP = 512 * PAGE
PROGRAM, HEAP, MEMFD, BIG = 0x40_0000, 0x60_0000, 0x7F00_0000_0000, 0x7F00_0020_0000
# A file's name may hold any byte but NUL; maps escapes newlines.
EVIL = "/tmp/a b\x1b[31m\\012c (deleted)"

FACTS = Facts("x86_64", (6, 18), PAGE, 2, frozenset, lambda: False)
Asked = TypeVar("Asked", Pages, Sums)
Row = tuple[int, int, State, Flag, int, tuple[str, ...], int]


def vmas(rows: Sequence[tuple[int, int, int, int, Backing, str]]) -> VMAs:
    """Return VMAs of (start, pages, perms, offset, backing, name)."""
    start, pages, perms, offset, backing, name = zip(*rows, strict=True)
    low = np.array(start, np.uint64)
    none = np.zeros(len(rows), np.uint64)
    return VMAs(
        low, low + np.array(pages, np.uint64) * np.uint64(PAGE), np.array(perms, np.uint8),
        np.array(offset, np.uint64), none, none, np.array(backing, np.uint8), name,
    )


VMAS = vmas(
    [
        (PROGRAM, 4, READ | EXEC, 0x1000, Backing.FILE, "/usr/bin/program"),
        (HEAP, 6, READ | WRITE, 0, Backing.ANON, "[heap]"),
        (MEMFD, 3, READ | WRITE | SHARED, 0, Backing.SHMEM, EVIL),
        (BIG, 1024, READ | WRITE, 0, Backing.ANON, ""),
    ]
)

HERE, ONCE, SOFT = Flag.PRESENT, Flag.PRESENT | Flag.EXCLUSIVE, Flag.SOFT
# A swap entry's payload: type | offset << 5. Device 1, page 5.
SWAP_PLACE = 1 | 5 << 5

# (address, size, state, flags, pfn, kpageflags, mapcount)
ROWS: list[Row] = [
    (PROGRAM, PAGE, State.FILE, ONCE | Flag.FILE, 0x100, ("uptodate", "lru", "mmap"), 1),
    (PROGRAM + PAGE, PAGE, State.FILE, HERE | Flag.FILE, 0x101, ("uptodate", "mmap"), 3),
    (PROGRAM + 2 * PAGE, 2 * PAGE, State.ABSENT, Flag(0), 0, (), 0),
    (HEAP, PAGE, State.ANON, ONCE, 0x200, ("anon", "swapbacked"), 1),
    (HEAP + PAGE, PAGE, State.ANON, HERE, 0x201, ("anon", "swapbacked"), 2),
    (HEAP + 2 * PAGE, PAGE, State.ANON, HERE, 0x202, ("anon", "swapbacked", "ksm"), 4),
    (HEAP + 3 * PAGE, PAGE, State.SWAPPED, SOFT | Flag.SWAP, SWAP_PLACE, (), 0),
    (HEAP + 4 * PAGE, 2 * PAGE, State.ABSENT, Flag(0), 0, (), 0),
    (MEMFD, PAGE, State.SHMEM, HERE | Flag.FILE, 0x300, ("swapbacked",), 2),
    (MEMFD + PAGE, PAGE, State.ZERO, HERE | Flag.ZERO, 0x10, ("zero_page",), 0),
    (MEMFD + 2 * PAGE, PAGE, State.MARKER, SOFT | Flag.MARKER | Flag.UFFD_WP, 0x3F, (), 0),
    (BIG, THP, State.ANON, ONCE | Flag.HUGE, 0x400, ("anon", "swapbacked", "head", "thp"), 1),
    (BIG + THP, THP, State.ABSENT, Flag(0), 0, (), 0),
]

# What the kernel prints for these: RSS without the zero page (2072 KiB), and the PSS of
# each VMA, 5461 + 7168 + 2048 + 2097152 bytes, truncated to 5 + 7 + 2 + 2048 KiB.
SMAPS = parse_smaps(
    b"""\
00400000-00404000 r-xp 00001000 08:01 77   /usr/bin/program
Size: 16 kB
Rss: 8 kB
Pss: 5 kB
Private_Clean: 4 kB
VmFlags: rd ex mr
00600000-00606000 rw-p 00000000 00:00 0    [heap]
Size: 24 kB
Rss: 12 kB
Pss: 7 kB
Private_Dirty: 4 kB
Anonymous: 12 kB
Swap: 4 kB
VmFlags: rd wr mr
7f0000000000-7f0000003000 rw-s 00000000 00:01 9   /memfd:x (deleted)
Size: 12 kB
Rss: 4 kB
Pss: 2 kB
VmFlags: rd wr sh mr
7f0000200000-7f0000600000 rw-p 00000000 00:00 0
Size: 4096 kB
Rss: 2048 kB
Pss: 2048 kB
Private_Dirty: 2048 kB
Anonymous: 2048 kB
VmFlags: rd wr mr gd
"""
)
ROLLUP = parse_smaps(
    b"00400000-7f0000600000 ---p 00000000 00:00 0   [rollup]\n"
    b"Rss: 2072 kB\nPss: 2062 kB\nSwap: 4 kB\n"
)
PAGE_TABLES = 28 * KIB
SIZE, RSS, ANON = 4148 * KIB, 2072 * KIB, 2060 * KIB
THEIRS = Theirs(
    status={
        "VmSize": SIZE, "VmRSS": RSS, "RssAnon": ANON, "RssFile": 8 * KIB, "RssShmem": 4 * KIB,
        "VmSwap": 4 * KIB, "VmData": 24 * KIB, "VmStk": 4096 * KIB, "VmExe": 12 * KIB,
        "VmLib": 4 * KIB, "VmLck": 0, "HugetlbPages": 0,
        # Seven tables in the tree, and one deposited for the THP.
        "VmPTE": PAGE_TABLES + 4 * KIB,
    },
    statm={"size": SIZE, "resident": RSS, "shared": 12 * KIB, "data": 4120 * KIB},
    stat={"rss": RSS, "vsize": SIZE},
    smaps=SMAPS, rollup=ROLLUP, pmap=SIZE, threads=1,
)


def pages(rows: Sequence[Row], of: VMAs = VMAS, *, frames: bool = True) -> Pages:
    """Return Pages of (address, size, state, flags, pfn, kpageflags names, mapcount)."""
    addr, size, state, flags, pfn, kflags, mapcount = zip(*rows, strict=True)
    at = np.array(addr, np.uint64)
    words = np.array([kpf(*names) for names in kflags], np.uint64)
    return Pages(
        at, np.array(size, np.uint64), np.searchsorted(of.start, at, side="right") - 1,
        np.array(state, np.uint8), np.zeros(len(rows), np.uint8), np.array(flags, np.uint32),
        np.zeros(len(rows), np.uint64),
        np.array(pfn, np.uint64) if frames else None,
        words if frames else None,
        np.array(mapcount, np.uint64) if frames else None,
    )


def source(
    rows: Sequence[Row] = ROWS,
    of: VMAs = VMAS,
    *,
    tables: bool = False,
    frames: bool = True,
    **outcome: object,
) -> Columns:
    """Return a process that consists of ``rows`` only; ``outcome`` sets fields of its Outcome."""
    made = pages(rows, of, frames=frames) if rows else NO_PAGES
    return Columns(of, made, FACTS, known_outcome(of, **outcome), THEIRS, tables)


def known_outcome(
    of: VMAs, withheld: Sequence[Withheld] = (), **outcome: object
) -> Outcome:
    """Return the Outcome of a process with VMAs ``of``."""
    stall = Stall(longest_ns=1_234_567, where="pagemap scan", reads=3)
    none = np.zeros(len(of), np.int64)
    known = {"shmem_swap": none, "locked": none.astype(bool), "vm_swap": PAGE, "all_objects": True}
    return Outcome(stall, list(withheld), **{**known, **outcome})  # type: ignore[arg-type]


def walk(
    batches: Iterable[Pages | Amounts],
    of: VMAs = VMAS,
    *,
    frames: bool = True,
    tables: bool = False,
    facts: Facts = FACTS,
    covered: I64 | None = None,
    **outcome: object,
) -> Walk[Sums]:
    """Return a Walk that yields ``batches`` as Sums; ``outcome`` sets fields of its Outcome."""
    rows = (
        sums for batch in batches
        for sums in (add_up(batch, PAGE) if isinstance(batch, Pages) else [Sums(batch)])
    )
    return made(Sums, rows, of, frames=frames, tables=tables, facts=facts, covered=covered,
                **outcome)


def page_walk(batches: Iterable[Pages], of: VMAs = VMAS, **options: object) -> Walk[Pages]:
    """Return a Walk that yields ``batches``; the options are those of walk."""
    return made(Pages, iter(batches), of, **options)  # type: ignore[arg-type]


def made(
    want: type[Asked],
    rows: Iterator[Asked],
    of: VMAs,
    *,
    frames: bool = True,
    tables: bool = False,
    facts: Facts = FACTS,
    covered: I64 | None = None,
    young: bool = False,
    **outcome: object,
) -> Walk[Asked]:
    """Return a Walk that yields ``rows``."""
    whole = of.size.astype(np.int64) if covered is None else covered
    return Walk(
        Columns(of, NO_PAGES, facts, Outcome(Stall()), name="procfs"), want,
        (row for row in rows),
        vmas=of, covered=whole,
        tells=Tells(tables=tables, huge=True, zeros=True, frames=frames, young=young, ksm=True),
        outcome=known_outcome(of, **outcome),  # type: ignore[arg-type]
    )


def table(rows: Sequence[Row] = ROWS, *, frames: bool = True, **outcome: object) -> Table:
    """Return the Table of a walk that yields ``rows`` as one batch."""
    return by_vma(walk([pages(rows, frames=frames)], frames=frames, **outcome))


def cut(columns: Pages, at: int) -> Iterator[Pages]:
    """Yield ``columns`` as batches of at most ``at`` rows."""
    for first in range(0, len(columns), at):
        yield take(columns, slice(first, first + at))
