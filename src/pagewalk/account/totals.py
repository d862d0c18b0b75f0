"""The running sums of a walk: what it yields is added part by part. No I/O.

The rules are smaps' own (fs/proc/task_mmu.c); docs/counting.md tells them to users.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pagewalk.model.columns import F64, I64, Amounts, Bool, Flag, State, Sums
from pagewalk.model.facts import Facts
from pagewalk.model.rules import IN_PSS, KSM
from pagewalk.model.states import holds, hwpoison, shared, untold
from pagewalk.walking.held import Held, empty

STATES = len(State)
LEVELS = 6  # Holes.level, 1 PTE to 5 PGD
PSS_SHIFT = 12  # fs/proc/task_mmu.c: sums are kept in 1/4096 bytes


@dataclass(eq=False)
class Totals:
    """Bytes by VMA, i64; ``state``, ``huge`` by State too, ``level`` by that of a hole.

    ``pss`` and ``hwpoison_pss`` are in 1/4096 bytes.
    """

    state: I64
    huge: I64
    level: I64
    pss: I64
    uss: I64
    ksm: I64
    private_hugetlb: I64
    pmd_shared: I64
    untold: I64
    maybe_zero: I64
    hwpoison: I64
    hwpoison_pss: I64
    hwpoison_uss: I64
    held: Held = field(kw_only=True)


def no_totals(count: int) -> Totals:
    """Return the running sums of ``count`` VMAs before the first page."""
    return Totals(
        np.zeros((count, STATES), np.int64),
        np.zeros((count, STATES), np.int64),
        np.zeros((count, LEVELS), np.int64),
        *(np.zeros(count, np.int64) for _ in range(10)),
        held=empty(count),
    )


def add(so_far: Totals, sums: Sums, facts: Facts) -> None:
    """Add a part of a walk to ``so_far``."""
    if len(sums.shared):
        so_far.held.add_shared(sums.shared)
    batch = sums.amounts
    if not len(batch):
        return
    here = slice(int(batch.vma.min()), int(batch.vma.max()) + 1)
    row = batch.vma - here.start
    key = row * STATES + batch.state
    size = batch.size.astype(np.float64)  # exact below 2**53 bytes, more than a batch can hold
    add_where(so_far.state[here], None, key, size)
    add_where(so_far.huge[here], batch.flags & np.uint32(Flag.HUGE) != 0, key, size)
    add_where(so_far.maybe_zero[here], batch.flags & np.uint32(Flag.MAYBE_ZERO) != 0, row, size)
    holes = batch.state == State.NOT_MAPPED.value
    add_where(so_far.level[here], holes, row * LEVELS + batch.level, size)
    add_frames(so_far, batch, row, size, here, facts)


def add_where(sums: I64, mask: Bool | None, key: I64, size: F64) -> None:
    """Add ``size`` to the elements ``key`` of ``sums``, only where ``mask`` is set (None: all)."""
    if mask is not None:
        if not mask.any():
            return
        key, size = key[mask], size[mask]
    sums += np.bincount(key, size, sums.size)[: sums.size].astype(np.int64).reshape(sums.shape)


def add_frames(
    so_far: Totals, pages: Amounts, row: I64, size: F64, here: slice, facts: Facts
) -> None:
    poison = hwpoison(pages.flags)
    add_where(so_far.hwpoison[here], poison, row, size)
    hugetlb = pages.state == State.HUGETLB.value
    exclusive = hugetlb & (pages.flags & np.uint32(Flag.EXCLUSIVE) != 0)
    add_where(so_far.private_hugetlb[here], exclusive, row, size)
    if pages.kflags is None or pages.mapcount is None:
        return
    so_far.held.add(pages)
    once = hugetlb & ~exclusive & (pages.mapcount == 1)
    add_where(so_far.pmd_shared[here], once, row, size)
    counted = IN_PSS[pages.state]
    # Of a page on its way to another frame no frame was looked at: it has a column of its own.
    silent = counted & (pages.state != State.MIGRATING.value)
    silent &= untold(pages.kflags) & (pages.mapcount == 0)
    add_where(so_far.untold[here], silent, row, size)
    page = np.uint64(facts.page_size)
    share = (page << np.uint64(PSS_SHIFT)) // np.maximum(pages.mapcount, np.uint64(1))
    pss = (share * (pages.size // page)).astype(np.float64)
    add_where(so_far.pss[here], None, row, np.where(counted, pss, 0.0))
    alone = ~shared(pages, entries=facts.entries_shared)
    add_where(so_far.uss[here], None, row, np.where(counted & alone, size, 0.0))
    add_where(so_far.hwpoison_pss[here], poison, row, pss)
    add_where(so_far.hwpoison_uss[here], poison & alone, row, size)
    ksm = holds(KSM, pages.flags, pages.kflags) & (pages.state == State.ANON.value)
    add_where(so_far.ksm[here], ksm, row, size)
