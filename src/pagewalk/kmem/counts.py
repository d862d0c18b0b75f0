"""Rows of Counts from what page tables add up to, whole tables or ranges at a time. Pure."""

from __future__ import annotations

import numpy as np

from pagewalk.flags import KPF
from pagewalk.kmem.direct import TABLES
from pagewalk.kmem.frames import Runs
from pagewalk.pages import (
    I64,
    LEVEL_SHIFT,
    U64,
    Backing,
    Bool,
    Counts,
    Flag,
    Shared,
    State,
    VMAs,
    take,
)
from pagewalk.paging import Arch
from pagewalk.proc.pagemap import PAGE
from pagewalk.rules import HOLE_STATES, KEEPERS
from pagewalk.scan import ReadTables
from pagewalk.states import classify, maybe_repeated
from pagewalk.tally import Gaps, Kind

VM_PFNMAP = 0x400  # include/linux/mm.h
PRESENT = np.uint32(Flag.PRESENT)


def gap_counts(vma: I64, gaps: Gaps) -> Counts:
    """Return ``gaps`` of ranges in the VMAs ``vma`` (i64[k]) as Counts."""
    level, owner = np.nonzero(gaps.size)
    flags = level.astype(np.uint32) << np.uint32(LEVEL_SHIFT)
    return Counts(vma[owner], HOLE_STATES[level], flags, gaps.size[level, owner])


def run_counts(vmas: VMAs, vma: I64, runs: Runs) -> Counts:
    """Return ``runs`` of the VMAs ``vma`` (i64[n]) as Counts."""
    flags = np.full(len(vma), PRESENT | np.uint32(Flag.NORMAL))
    state = classify(flags, vmas.backing[vma], runs.flags)
    size = runs.pages.astype(np.uint64) * np.uint64(PAGE)
    return Counts(vma, state, flags, size, runs.flags, runs.mapcount)


def run_frames(counts: Counts, pfns: U64) -> Shared:
    """Return the pages of ``counts``, which are runs of base pages, that may be mapped repeatedly.

    ``pfns`` u64 are the frames of all pages of the runs, in order.
    """
    assert counts.mapcount is not None
    wanted = maybe_repeated(counts)
    times = (counts.size // np.uint64(PAGE)).astype(np.int64)
    pages, times = np.repeat(wanted, times), times[wanted]
    size = np.full(int(times.sum()), PAGE, np.uint64)
    return Shared(
        np.repeat(counts.vma[wanted], times),
        pfns[pages],
        size,
        np.repeat(counts.mapcount[wanted], times),
        np.repeat(KEEPERS[counts.state[wanted]], times),
    )


def shared_frames(
    arch: Arch, read_tables: ReadTables, vmas: VMAs, vma: I64, phys: U64, runs: Runs
) -> tuple[list[Counts | Shared], I64]:
    """Return ``runs`` of the tables at ``phys`` (u64), in the VMAs ``vma`` (i64), as Counts.

    Their pages that may be mapped more than once come as Shared, too. The second value is the
    numbers (i64) of the tables that changed in the meantime, which are left out.
    """
    counts = run_counts(vmas, vma[runs.table], runs)
    tables = np.unique(runs.table[maybe_repeated(counts)])
    found, torn = list[Counts | Shared](), [tables[:0]]
    for first in range(0, len(tables), TABLES):
        some = tables[first : first + TABLES]
        entries, ok = read_tables(phys[some])
        pages = np.bincount(runs.table, runs.pages, len(phys))[some]
        same = ok & ((entries != 0).sum(axis=1) == pages)
        torn.append(some[~same])
        entries = entries[same]
        pfns = arch.address(arch, entries[entries != 0]) >> np.uint64(arch.page_shift)
        found.append(run_frames(take(counts, np.isin(runs.table, some[same])), pfns))
    changed = np.concatenate(torn)
    if len(changed):
        counts = take(counts, ~np.isin(runs.table, changed))
    return [counts, *found], changed


def alone_counts(vma: I64, pages: I64) -> Counts:
    """Return tables of ``pages`` (i64[n]) that are anonymous and mapped once as Counts."""
    many = len(vma)
    return Counts(
        vma,
        np.full(many, State.ANON.value, np.uint8),
        np.full(many, PRESENT | np.uint32(Flag.NORMAL)),
        pages.astype(np.uint64) * np.uint64(PAGE),
        np.full(many, 1 << KPF["anon"], np.uint64),
        np.ones(many, np.uint64),
    )


KINDS = (State.ANON, State.FILE, State.SHMEM)
HOLE_LEVELS = {Kind.PMD_NONE: 2, Kind.PUD_NONE: 3, Kind.P4D_NONE: 4, Kind.PGD_NONE: 5}
KIND_STATES = np.array([State.DOUBT if k.state is None else k.state for k in Kind], np.uint8)
HUGE_KINDS = (Kind.HUGE.value, Kind.HUGE_SPECIAL.value)
KIND_FLAGS = np.zeros(len(Kind), np.uint32)
KIND_FLAGS[list(HUGE_KINDS)] = Flag.HUGE
KIND_FLAGS[Kind.HWPOISON] = Flag.HWPOISON
KIND_FLAGS[Kind.POISON] = Flag.HWPOISON | Flag.MARKER
KIND_LEVELS = np.array([HOLE_LEVELS.get(k, 0) for k in Kind], np.uint32)


def tallied(vmas: VMAs, rows: I64, size: U64, keep: Bool) -> Counts:
    """Return a Tally's ``size`` u64[k, Kind] of the VMAs ``rows`` as Counts, where ``keep``."""
    which, kind = np.nonzero(size * keep[:, None])
    state, row = KIND_STATES[kind], rows[which]
    backing = vmas.backing[row]
    state[(state == State.SPECIAL.value) & (backing == Backing.ANON.value)] = State.ZERO
    state[(state == State.PRESENT.value) & (backing == Backing.HUGETLB.value)] = State.HUGETLB
    if vmas.flags is not None:
        mapped = vmas.flags[row] & np.uint64(VM_PFNMAP) != 0
        state[(state == State.PRESENT.value) & mapped] = State.SPECIAL
    flags = KIND_LEVELS[kind] << np.uint32(LEVEL_SHIFT) | KIND_FLAGS[kind]
    return Counts(row, state, flags, size[which, kind])
