"""A process with large folios, mapped in every way, small enough to check on paper.

In base pages, after the address a folio's first frame / how many pages it has:

=========  =====  =================================================================================
VMA        pages  contents
=========  =====  =================================================================================
heap        2048  400/512 by a PMD; 600/512: its first 100 pages and the last; 800/512 whole, by
                  single pages; 512 empty
libc          48  1000/16 whole, one page after a multiple of its size; a small page; 1020/16: four
                  pages from the second on; 1010/16 whole and aligned
libc again    16  1010/16: the first eight pages; 1020/16: its second and its last page
hugetlb      512  a00/512
=========  =====  =================================================================================

Of 600/512 the 300 pages from number 200 on are mapped by nobody, and the others by another process.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pagewalk.account.huge import Huge, Zeros, by_folio
from pagewalk.model.columns import READ, U64, WRITE, Backing, Bool, Flag, Pages, State, Withheld
from pagewalk.model.facts import Facts
from pagewalk.proc.frames import HEAD, TAIL
from pagewalk.system.huge import AMOUNTS, HugeOfEach, Row
from pagewalk.walking.walk import Walk
from tests import by_hand
from tests.by_hand import PAGE, THP
from tests.share_by_hand import family

HEAP, LIBC, AGAIN, POOL = 0x10_0000_0000, 0x20_0000_0000, 0x30_0000_0000, 0x40_0000_0000
FOLIOS = {0x400: 9, 0x600: 9, 0x800: 9, 0xA00: 9, 0x1000: 4, 0x1010: 4, 0x1020: 4}
NOBODY = range(0x600 + 200, 0x600 + 500)
VMAS = by_hand.vmas([
    (HEAP, 2048, READ | WRITE, 0, Backing.ANON, "[heap]"),
    (LIBC, 48, READ, 0, Backing.FILE, "/lib/libc.so"),
    (AGAIN, 16, READ, 0x11000, Backing.FILE, "/lib/libc.so"),
    (POOL, 512, READ | WRITE, 0, Backing.HUGETLB, "/anon_hugepage"),
])
ONE = Flag.PRESENT


def mapped(addr: int, pfn: int, count: int, state: State, *words: str) -> list[by_hand.Row]:
    """Return the rows of ``count`` pages from frame ``pfn`` on, mapped one by one."""
    head = max((first for first in FOLIOS if first <= pfn), default=0)
    large = head and pfn < head + (1 << FOLIOS[head])
    flag = Flag.PRESENT if state is State.ANON else Flag.PRESENT | Flag.FILE
    return [(addr + n * PAGE, PAGE, state, flag, pfn + n,
             (*words, *(("head" if pfn + n == head else "tail",) if large else ())), 2)
            for n in range(count)]


ANON, FILE = ("anon", "swapbacked"), ("lru", "mmap")
ROWS: list[by_hand.Row] = [
    (HEAP, THP, State.ANON, ONE | Flag.HUGE, 0x400, (*ANON, "head", "thp"), 1),
    *mapped(HEAP + THP, 0x600, 100, State.ANON, *ANON),
    *mapped(HEAP + THP + 511 * PAGE, 0x600 + 511, 1, State.ANON, *ANON),
    *mapped(HEAP + 2 * THP, 0x800, 512, State.ANON, *ANON),
    *mapped(LIBC + PAGE, 0x1000, 16, State.FILE, *FILE),
    *mapped(LIBC + 17 * PAGE, 0x3000, 1, State.FILE, *FILE),
    *mapped(LIBC + 20 * PAGE, 0x1021, 4, State.FILE, *FILE),
    *mapped(LIBC + 32 * PAGE, 0x1010, 16, State.FILE, *FILE),
    *mapped(AGAIN, 0x1010, 8, State.FILE, *FILE),
    *mapped(AGAIN + 8 * PAGE, 0x1021, 1, State.FILE, *FILE),
    *mapped(AGAIN + 9 * PAGE, 0x102F, 1, State.FILE, *FILE),
    (POOL, THP, State.HUGETLB, ONE | Flag.HUGE | Flag.EXCLUSIVE, 0xA00, ("head", "huge"), 1),
]

class Frames:
    """The frames of FOLIOS; see proc.frames.FrameReader."""

    young, ksm = False, True

    def __init__(self, folios: dict[int, int] = FOLIOS) -> None:
        self.folios = folios

    def read(self, pfns: U64, once: Bool) -> tuple[U64, U64]:
        """Return (marks, mapcount) of each frame."""
        del once
        return self.marks(pfns), self.mapcounts(pfns)

    def mapcounts(self, pfns: U64) -> U64:
        """Return 0 for the frames in NOBODY, 1 for all others."""
        return np.array([pfn not in NOBODY for pfn in pfns.tolist()], np.uint64)

    def marks(self, pfns: U64) -> U64:
        """Return the mark of each frame."""
        def mark(pfn: int) -> int:
            if pfn in self.folios:
                return int(HEAD)
            inside = any(head < pfn < head + (1 << order) for head, order in self.folios.items())
            return int(TAIL) if inside else 0

        return np.array([mark(pfn) for pfn in pfns.tolist()], np.uint64)


def walked(
    batches: Iterable[Pages] | None = None, *, frames: bool = True, huge: bool = True,
    facts: Facts = by_hand.FACTS, withheld: Iterable[Withheld] = (),
) -> Walk[Pages]:
    """Return a walk of ``batches``, by default of all ROWS; without ``huge`` no PMD is seen."""
    rows = [by_hand.pages(ROWS, VMAS, frames=frames)] if batches is None else batches
    walk = by_hand.page_walk(rows, VMAS, frames=frames, facts=facts, withheld=list(withheld))
    walk.tells = walk.tells._replace(huge=huge)
    return walk


def huge(*, frames: bool = True, zeros: bool = False, withheld: Iterable[Withheld] = ()) -> Huge:
    """Return how the large folios are mapped; with ``zeros`` half of the huge page is zero."""
    found = by_folio(walked(frames=frames, withheld=withheld), Frames() if frames else None)
    if not zeros:
        return found
    by_vma = np.array([256 * PAGE, 0, 0, 0])
    return found._replace(
        zeros=Zeros(by_vma, THP, 0, 256 * PAGE, 200), columns=found.columns | {"zeros": by_vma},
        totals=found.totals | {"zeros": 256 * PAGE})


def huge_of_each(*, frames: bool = True) -> HugeOfEach:
    """Return the members of the family of share_by_hand, which all map large folios alike."""
    looked, totals = family(frames=frames).looked, huge(frames=frames, zeros=True).totals
    rows = (Row(one.pids[0], one.name, {name: totals[name] for name in AMOUNTS})
            for one in looked.members)
    return HugeOfEach(tuple(rows), looked)
