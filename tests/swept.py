"""The result of a sweep of page tables: bytes by range and kind, and how kinds are numbered."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from pagewalk.model.columns import U64, Flag
from pagewalk.pagetables.count import Memo, sweep
from pagewalk.pagetables.decode import Doubts, Entries, ReadTables, Root, in_order
from pagewalk.pagetables.format import Arch

# What distinguishes entries. A hole's kind is the number of its level, below 0.
TOLD = Flag.PRESENT | Flag.SOFT | Flag.SPECIAL | Flag.SWAP | Flag.MIGRATION | Flag.DEVICE
TOLD |= Flag.HWPOISON | Flag.MARKER | Flag.GUARD
PAGE, HUGE = Flag.PRESENT, Flag.PRESENT | Flag.HUGE
SPECIAL, HUGE_SPECIAL = PAGE | Flag.SPECIAL, HUGE | Flag.SPECIAL
SOFT = Flag.SOFT
MARKER, POISON, GUARD = (SOFT | Flag.MARKER | what for what in (Flag(0), Flag.HWPOISON, Flag.GUARD))
EMPTY, PMD_NONE, PUD_NONE, PGD_NONE = -1, -2, -3, -5
DOUBT = -6

Kinds = Counter[tuple[int, int]]  # bytes by (row of the range, kind)


class Sweep(NamedTuple):
    """Bytes by range and kind, the tables read by level number, and the remaining doubts."""

    size: Kinds
    tables: list[int]
    doubts: Doubts

    def of(self, row: int) -> dict[int, int]:
        """Return the bytes by kind of one range."""
        return {kind: size for (owner, kind), size in self.size.items() if owner == row and size}


def kind_of(flags: int) -> Flag:
    """Return the kind of a leaf."""
    kind = Flag(flags) & TOLD
    return kind | Flag(flags) & Flag.HUGE if Flag.PRESENT in kind else kind


def add(size: Kinds, entries: Entries, ranges: U64) -> None:
    """Add ``entries`` to ``size``, one at a time."""
    leaves, holes, doubts = entries.leaves, entries.holes, entries.doubts
    kinds = [
        *((addr, 1 << shift, kind_of(flags)) for addr, shift, flags in rows(
            leaves.addr, leaves.shift, leaves.flags)),
        *((addr, length, -level) for addr, length, level in rows(
            holes.addr, holes.size, holes.level)),
        *((addr, length, DOUBT) for addr, length in rows(doubts.addr, doubts.size)),
    ]
    for addr, length, kind in kinds:
        size[int(np.searchsorted(ranges[:, 0], addr, side="right")) - 1, int(kind)] += length


def rows(*columns: np.ndarray) -> list[tuple[int, ...]]:
    """Return the rows of ``columns`` as Python numbers."""
    return list(zip(*(column.tolist() for column in columns), strict=True))


def swept(
    arch: Arch,
    root: Root,
    read_tables: ReadTables,
    ranges: U64,
    *,
    retries: int = 0,
    memo: Memo | None = None,
) -> Sweep:
    """Return what ``sweep`` finds in ``ranges``."""
    size, tables, doubts = Kinds(), np.zeros((6, np.size(root)), np.int64), []
    ranges = np.asarray(ranges, np.uint64).reshape(-1, 2)
    for part in sweep(
        arch, root, read_tables, ranges, retries=retries, tables=tables, memo=memo
    ):
        add(size, part.entries, ranges)
        doubts.append(part.entries.doubts)
        for owner, pages in rows(part.plain.owner, part.plain.pages):
            size[owner, int(PAGE)] += pages << arch.page_shift
        for level, row in np.argwhere(part.gaps).tolist():
            size[row, -level] += int(part.gaps[level, row])
    return Sweep(size, tables.sum(axis=1).tolist(), in_order(doubts))
