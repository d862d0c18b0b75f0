"""Trace one address: every level's table, slot and entry, down to the page or to its absence.

Pure, memory is read by a callback. The rules are those of ``scan``, for one entry at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.model.columns import Flag, Leaves
from pagewalk.model.errors import BadTable
from pagewalk.pagetables.decode import RIGHTS, ReadTables, Why
from pagewalk.pagetables.format import Arch, Level
from pagewalk.pagetables.walk import walk_tables

WORD = 8
ALL = Flag(int(RIGHTS))
NOTHING = Flag(0)


class Step(NamedTuple):
    """One level of a translation: the table, the slot that the address selects, and its entry.

    ``table`` is a physical address, of ``slots`` entries; ``entry`` is the raw word, and ``says``
    what it says: (name, value) pairs of Arch.describe. ``below`` is the physical address of the
    table that it names, None if the walk ends here. ``rights`` are WRITE, USER and EXEC as far as
    this entry and all above it allow; ``taken`` those that this one grants and one above takes
    away. Of a leaf or a software entry ``flags`` (see Flag) and ``pfn`` are those of Leaves.
    ``doubt`` is set where no kernel writes such an entry.
    """

    level: Level
    table: int
    slots: int
    slot: int
    entry: int
    says: tuple[tuple[str, int | str], ...]
    below: int | None = None
    rights: Flag = NOTHING
    taken: Flag = NOTHING
    flags: Flag = NOTHING
    pfn: int = 0
    doubt: Why | None = None

    @property
    def at(self) -> int:
        """Return the physical address of the entry itself."""
        return self.table + self.slot * WORD

    @property
    def kind(self) -> str:
        """Return what the entry is, in a word or two."""
        return str(self.says[0][1])

    @property
    def size(self) -> int:
        """Return the bytes that the entry maps, or would map."""
        return 1 << self.level.shift


class Trace(NamedTuple):
    """The path of one address through the tables: a Step per level, from the PGD to the end."""

    addr: int
    page_shift: int
    steps: tuple[Step, ...]

    @property
    def last(self) -> Step:
        """Return the step at which the translation ended."""
        return self.steps[-1]

    @property
    def none(self) -> bool:
        """Return whether it ended at an empty slot."""
        return self.last.kind == "none"

    @property
    def present(self) -> bool:
        """Return whether it ended at a page."""
        return Flag.PRESENT in self.last.flags and self.last.doubt is None

    @property
    def start(self) -> int:
        """Return the first address that the last entry maps, or would map."""
        return self.addr & -self.last.size

    @property
    def offset(self) -> int:
        """Return how far the address lies beyond ``start``, bytes."""
        return self.addr - self.start

    @property
    def pfn(self) -> int:
        """Return the frame of the base page at the address; 0 where the entry holds none."""
        return self.last.pfn and self.last.pfn + (self.offset >> self.page_shift)

    @property
    def phys(self) -> int | None:
        """Return the physical address, None without a page."""
        return (self.last.pfn << self.page_shift) + self.offset if self.present else None

    def leaf(self) -> Leaves:
        """Return the last entry as the one row of a walk."""
        last = self.last
        return Leaves(
            np.array([self.start], np.uint64),
            np.array([last.level.shift], np.uint8),
            np.array([last.entry], np.uint64),
            np.array([int(last.flags)], np.uint32),
            np.array([last.pfn], np.uint64),
        )


def trace(arch: Arch, root: int, read_tables: ReadTables, addr: int) -> Trace:
    """Follow ``addr`` from the table at physical address ``root`` (see walk_tables) to its end.

    Any canonical address will do: the kernel's half is under the same root. Raises BadTable when
    the root itself cannot be read.
    """
    steps: list[Step] = []
    table: int | None = root
    rights = ALL
    for level in arch.levels:
        if table is None:
            break
        entries, ok = read_tables(np.array([table], np.uint64))
        if not ok[0]:
            if not steps:
                raise BadTable(level.name, addr, root, Why.TABLE.label)
            steps[-1] = steps[-1]._replace(doubt=Why.TABLE, below=None)
            break
        slots = entries.shape[1]
        index = addr >> level.shift & slots - 1
        says = tuple(arch.describe(entry := int(entries[0, index]), level))
        step = make_step(arch, Step(level, table, slots, index, entry, says), rights, addr)
        if step.below in {root, *(above.table for above in steps), table}:
            step = step._replace(doubt=Why.CYCLE, below=None)
        steps.append(step)
        table, rights = step.below, step.rights
    return Trace(addr, arch.page_shift, tuple(steps))


def make_step(arch: Arch, step: Step, above: Flag, addr: int) -> Step:
    """Return ``step`` with what its entry means, where the levels above leave ``above``."""
    level, word = step.level, np.array([step.entry], np.uint64)
    if arch.none(word, level)[0]:
        return step
    if level.number > 1 and arch.table(word, level)[0]:
        own = Flag(int(arch.rights(word, level)[0]))
        below = int(arch.address(word)[0])
        if below >> arch.page_shift > arch.last_ram_frame:
            return step._replace(doubt=Why.TABLE)
        return step._replace(below=below, rights=own & above, taken=own & ~above)
    if arch.reserved(word, level)[0]:
        return step._replace(doubt=Why.RESERVED)
    flag_column, pfn_column = arch.decode(word, level)
    flags, pfn = Flag(int(flag_column[0])), int(pfn_column[0])
    kernel = addr >= arch.user_end
    if kernel and Flag.PRESENT not in flags:
        # the kernel keeps no software entries in its own half: a page taken out of its mapping
        return step._replace(says=(("kind", "not present"), ("bits", dict(step.says)["bits"])))
    elsewhere = kernel or Flag.SPECIAL in flags or Flag.DEVICE in flags
    limit = arch.last_frame if elsewhere else arch.last_page_frame
    return step._replace(
        rights=flags & above & ALL,
        taken=flags & ~above & ALL,
        flags=flags & (above | ~ALL),
        pfn=pfn,
        doubt=Why.FRAME if pfn > limit else None,
    )


def hole_around(
    arch: Arch, root: int, read_tables: ReadTables, addr: int, start: int, end: int
) -> tuple[int, int]:
    """Return the bounds of what is not populated around ``addr`` inside [start, end).

    ``addr`` is not populated itself. The cost is that of the tables met, never of the distance.
    """
    page = 1 << arch.page_shift
    here = addr & -page
    high = edges(arch, root, read_tables, here, end)[0]
    low, step = here, page
    while low > start:
        first = max(start, low - step)
        last = edges(arch, root, read_tables, first, low, whole=True)[1]
        if last > first:
            return last, high
        low, step = first, step * 2
    return start, high


def edges(
    arch: Arch, root: int, read_tables: ReadTables, start: int, end: int, *, whole: bool = False
) -> tuple[int, int]:
    # The first populated address of [start, end), or end; and with `whole` the end of the last
    # populated entry, or start. What is in doubt counts as populated: it is not known to be none.
    first, last = end, start
    span = np.array([[start, end]], np.uint64)
    for batch in walk_tables(arch, root, read_tables, span):
        for rows in (batch.leaves, batch.doubts):
            if len(rows):
                first = min(first, int(rows.addr[0]))
                last = max(last, int(rows.addr[-1]) + int(rows.size[-1]))
        if first < end and not whole:
            break
    return first, last
