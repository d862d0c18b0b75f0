"""Sums of page tables: whole tables of ordinary pages, gaps, entries without frames."""

from __future__ import annotations

import numpy as np

from pagewalk.kernel.frames import Runs
from pagewalk.kernel.programs.loops import TABLES
from pagewalk.model.bits import kpf
from pagewalk.model.columns import (
    I64,
    NO_AMOUNTS,
    U64,
    Amounts,
    Leaves,
    Shared,
    State,
    Sums,
    VMAs,
    alike,
    take,
)
from pagewalk.model.rules import HOLE_STATES, KEEPERS, ORDINARY_ENTRY, SIZES
from pagewalk.model.states import classify, maybe_repeated
from pagewalk.pagetables.decode import ReadTables
from pagewalk.pagetables.format import Arch
from pagewalk.proc.pagemap import PAGE


def sizes(pages: I64) -> U64:
    return pages.astype(np.uint64) * np.uint64(PAGE)


def sum_leaves(vmas: VMAs, row: I64, leaves: Leaves) -> Sums:
    """Return ``leaves``, whose zero pages are marked, as Sums without kinds.

    ``row`` (i64) is the VMA of each; equal neighbours become one row.
    """
    first = alike(row, leaves.flags) if len(row) else row
    vma, flags = row[first], leaves.flags[first]
    state = SIZES[classify(flags, vmas.backing[vma], None)]
    size = np.add.reduceat(leaves.size, first)
    return Sums(Amounts(vma, state, np.zeros_like(state), flags, size))


def gap_amounts(vma: I64, gaps: U64) -> Sums:
    """Return the gaps (see Swept) in ranges of the VMAs ``vma`` (i64[k]) as Sums."""
    level, owner = np.nonzero(gaps)
    flags = np.zeros(len(level), np.uint32)
    return Sums(
        Amounts(vma[owner], HOLE_STATES[level], level.astype(np.uint8), flags, gaps[level, owner])
    )


def run_amounts(vmas: VMAs, vma: I64, runs: Runs) -> Amounts:
    """Return ``runs`` of the VMAs ``vma`` (i64[n]) as Amounts."""
    flags = np.full(len(vma), ORDINARY_ENTRY)
    state = classify(flags, vmas.backing[vma], runs.flags)
    level = np.zeros(len(vma), np.uint8)
    return Amounts(vma, state, level, flags, sizes(runs.pages), runs.flags, runs.mapcount)


def run_frames(amounts: Amounts, pfns: U64) -> Shared:
    """Return the pages of ``amounts``, runs of base pages, that may be mapped more than once.

    ``pfns`` u64 are the frames of all pages of the runs, in order.
    """
    assert amounts.mapcount is not None
    wanted = maybe_repeated(amounts)
    times = (amounts.size // np.uint64(PAGE)).astype(np.int64)
    pages, times = np.repeat(wanted, times), times[wanted]
    size = np.full(int(times.sum()), PAGE, np.uint64)
    return Shared(
        np.repeat(amounts.vma[wanted], times),
        pfns[pages],
        size,
        np.repeat(amounts.mapcount[wanted], times),
        np.repeat(KEEPERS[amounts.state[wanted]], times),
    )


def shared_frames(
    arch: Arch, read_tables: ReadTables, vmas: VMAs, vma: I64, phys: U64, runs: Runs
) -> tuple[list[Sums], I64]:
    """Return ``runs`` of the tables at ``phys`` (u64), in the VMAs ``vma`` (i64), as Sums.

    The second value is the numbers (i64) of the tables that changed in the meantime, which are left
    out.
    """
    amounts = run_amounts(vmas, vma[runs.table], runs)
    tables = np.flatnonzero(np.bincount(runs.table[maybe_repeated(amounts)]))
    found, torn = list[Sums](), [tables[:0]]
    for first in range(0, len(tables), TABLES):
        some = tables[first : first + TABLES]
        entries, ok = read_tables(phys[some])
        pages = np.bincount(runs.table, runs.pages, len(phys))[some]
        same = ok & ((entries != 0).sum(axis=1) == pages)
        torn.append(some[~same])
        entries = entries[same]
        pfns = arch.address(entries[entries != 0]) >> np.uint64(arch.page_shift)
        here = take(amounts, np.isin(runs.table, some[same]))
        found.append(Sums(NO_AMOUNTS, run_frames(here, pfns)))
    changed = np.concatenate(torn)
    if len(changed):
        amounts = take(amounts, ~np.isin(runs.table, changed))
    return [Sums(amounts), *found], changed


def alone_amounts(vma: I64, pages: I64) -> Sums:
    """Return tables of ``pages`` (i64[n]) that are anonymous and mapped once as Sums."""
    many = len(vma)
    return Sums(
        Amounts(
            vma,
            np.full(many, State.ANON.value, np.uint8),
            np.zeros(many, np.uint8),
            np.full(many, ORDINARY_ENTRY),
            sizes(pages),
            np.full(many, kpf("anon")),
            np.ones(many, np.uint64),
        )
    )
