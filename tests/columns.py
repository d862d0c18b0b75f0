"""A process that is only columns in memory: no kernel, no descriptors, nothing running.

The result of walking it is known beforehand: its rows are Pages, including those without a page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from pagewalk.model.columns import (
    U64,
    Bool,
    Flag,
    Holes,
    Leaves,
    Pages,
    State,
    Tells,
    VMAs,
    Withheld,
    take,
)
from pagewalk.model.facts import Facts
from pagewalk.model.ranges import holder, inside
from pagewalk.model.states import hwpoison
from pagewalk.pagetables.decode import NO_DOUBTS, NO_HOLES, NO_LEAVES, Entries
from pagewalk.proc.counters import Theirs
from pagewalk.proc.frames import LARGE, TAIL
from pagewalk.proc.smaps import LastSmaps
from pagewalk.sources.amounts import sum_leaves
from pagewalk.sources.outcome import Outcome, Who
from pagewalk.sources.space import Part

WHO = Who(4711, "pro gram\x1b[1m", "/usr/bin/program")


@dataclass(eq=False)
class FrameColumns:
    """The frames of ``pages``, one mapcount per row; see proc.frames.FrameReader."""

    pages: Pages
    young: bool = False
    ksm: bool = True
    page_size: int = 4096

    def __post_init__(self) -> None:
        assert self.pages.pfn is not None
        order = np.argsort(self.pages.pfn, kind="stable")
        self.pages = take(self.pages, order)

    def find(self, pfns: U64) -> Pages:
        """Return the rows that contain ``pfns``."""
        assert self.pages.pfn is not None
        return take(self.pages, np.searchsorted(self.pages.pfn, pfns, side="right") - 1)

    def read(self, pfns: U64, once: Bool) -> tuple[U64, U64]:
        """Return (flags, mapcount) of each frame."""
        del once
        rows = self.find(pfns)
        assert rows.kflags is not None and rows.mapcount is not None
        return rows.kflags, rows.mapcount

    def mapcounts(self, pfns: U64) -> U64:
        """Return the mapcount of each frame."""
        return self.read(pfns, pfns != 0)[1]

    def marks(self, pfns: U64) -> U64:
        """Return the marks of large folios: a huge leaf is a row of its own."""
        rows = self.find(pfns)
        assert rows.pfn is not None and rows.kflags is not None
        large, page = rows.kflags & LARGE, pfns - rows.pfn
        inside = page < rows.size // np.uint64(self.page_size)
        return np.where(inside, np.where((large != 0) & (page > 0), TAIL, large), np.uint64(0))

    def close(self) -> None:
        """Do nothing."""


@dataclass(eq=False)
class Columns:
    """A process of ``rows``, by address; see sources.Source and space.Space."""

    known: VMAs
    rows: Pages
    facts: Facts
    before: Outcome
    numbers: Theirs | None = None
    tables: bool = False
    young: bool = False
    who: Who = WHO
    name: str = "columns"
    notes: tuple[Withheld, ...] = ()
    live: None = None
    pagemap: None = None
    page_tables: None = None
    recorded: None = None
    closed: int = field(default=0, init=False)

    @property
    def space(self) -> Columns:
        """Return the address space, which is all that there is."""
        return self

    @property
    def frames(self) -> FrameColumns | None:
        """Return the frames, None if the rows have none."""
        framed = (self.rows.flags & np.uint32(Flag.PRESENT) != 0) | hwpoison(self.rows.flags)
        return None if self.rows.kflags is None else FrameColumns(take(self.rows, framed))

    @property
    def tells(self) -> Tells:
        """Return what can be known from the rows."""
        frames, young = self.rows.kflags is not None, self.young
        return Tells(self.tables, huge=True, zeros=True, frames=frames, young=young, ksm=frames)

    def vmas(self) -> VMAs:
        """Return the VMAs."""
        return self.known

    def outcome(self) -> Outcome:
        """Return what is known about the process."""
        return replace(self.before, withheld=list(self.before.withheld), hwpoison=set())

    def entries(self, vmas: VMAs, ranges: U64, *, frames: bool = True) -> Iterator[Entries]:
        """Yield the rows in ``ranges``, in one piece."""
        del vmas, frames
        rows = take(self.rows, inside(self.rows.addr, ranges))
        here = rows.flags & np.uint32(Flag.PRESENT | Flag.SOFT) != 0
        leaves = take(rows, here)
        shift = np.log2(leaves.size.astype(np.float64)).astype(np.uint8)
        free = take(rows, ~here & (rows.state != State.ABSENT.value))
        yield Entries(
            Leaves(leaves.addr, shift, leaves.entry, leaves.flags.copy(), leaves.pfn),
            Holes(free.addr, free.size, free.level) if self.tables else NO_HOLES,
            NO_DOUBTS,
        )

    def sums(self, vmas: VMAs, ranges: U64, *, frames: bool = True) -> Iterator[Part]:
        """Yield the same as sums."""
        for entries in self.entries(vmas, ranges):
            if frames:
                yield Part(entries)
                continue
            leaves = entries.leaves
            sums = sum_leaves(vmas, holder(leaves.addr, vmas.ranges), leaves)
            yield Part(replace(entries, leaves=NO_LEAVES), sums)

    def theirs(self, *files: str, last: LastSmaps | None = None) -> Theirs:
        """Return the kernel's numbers, with smaps only if it is in ``files``."""
        del last
        assert self.numbers is not None
        return self.numbers if files else self.numbers._replace(smaps=None, rollup=None, pmap=None)

    def close(self) -> None:
        """Count that it was closed."""
        self.closed += 1
