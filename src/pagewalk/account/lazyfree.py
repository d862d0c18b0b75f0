"""How much memory a process gave up with MADV_FREE, found quickly enough for the first screen.

Such a page is anonymous, and neither its entry nor its folio is dirty (LazyFree of smaps, which
smaps.py counts from all pages). Most anonymous memory has dirty entries, so we look only at the
frames of the rest.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pagewalk.account.table import Table
from pagewalk.model.columns import I64, Backing, Flag, VMAs
from pagewalk.model.ranges import holder
from pagewalk.model.rules import IS_PRESENT, LAZYFREE
from pagewalk.model.states import holds
from pagewalk.proc.counters import lazily_freed
from pagewalk.sources import Source
from pagewalk.sources.space import Joined, Space

_CLEAN = np.uint32((Flag.PRESENT | Flag.DIRTY | Flag.SPECIAL).value)


def with_lazyfree(table: Table, source: Source) -> Table:
    """Return ``table``, from a walk of ``source``, with the column lazyfree (i64 bytes).

    It is returned unchanged if the source reads no page tables or no frames. Raises whatever a walk
    raises.
    """
    tells = table.walk.tells
    if not tells.tables or not tells.frames:
        return table
    # It is 0 if no process has called MADV_FREE since boot.
    count = len(table.vmas)
    known = source.recorded
    any_freed = known.lazyfree if known is not None else source.live is None or lazily_freed()
    column = by_vma(source.space, table.vmas) if any_freed else np.zeros(count, np.int64)
    return replace(
        table,
        columns={**table.columns, "lazyfree": column},
        totals={**table.totals, "lazyfree": int(column.sum())},
    )


def by_vma(space: Space, vmas: VMAs) -> I64:
    """Return the bytes of lazyfree pages (i64) in each VMA."""
    column = np.zeros(len(vmas), np.int64)
    if isinstance(space, Joined):
        for runs in space.runs():
            lazy = (vmas.backing[runs.vma] == Backing.ANON.value) & IS_PRESENT[runs.state]
            lazy &= holds(LAZYFREE, runs.flags, runs.kflags)
            np.add.at(column, runs.vma[lazy], runs.size[lazy].astype(np.int64))
        return column
    frames = space.frames
    assert frames is not None
    # madvise_free_single_vma: anonymous memory only
    ranges = vmas.ranges[vmas.backing == Backing.ANON.value]
    for batch in space.entries(vmas, ranges):
        leaves = batch.leaves
        rows = np.flatnonzero(leaves.flags & _CLEAN == np.uint32(Flag.PRESENT.value))
        if len(rows) == 0 or leaves.pfn is None:
            continue
        kflags, _ = frames.read(leaves.pfn[rows], np.ones(len(rows), bool))
        lazy = rows[holds(LAZYFREE, leaves.flags[rows], kflags)]
        owner = holder(leaves.addr[lazy], vmas.ranges)
        np.add.at(column, owner, leaves.size[lazy].astype(np.int64))
    return column
