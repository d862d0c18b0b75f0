"""What of anonymous huge pages was never written, or is zero again: the memory itself is read.

Only what is in RAM and mapped by a PMD is read, one huge page at a time, and each is looked up
before and after: what was mapped otherwise by then is not counted.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pagewalk.account.huge import Huge, Zeros
from pagewalk.model.columns import U64, Flag, VMAs, Withheld
from pagewalk.model.ranges import holder
from pagewalk.proc.hugepages import read_underused
from pagewalk.proc.stall import HEAR
from pagewalk.sources import Source

# Huge pages that are looked up, read, and looked up again, within a millisecond or so. What the
# process gives back in between is read as zeros, and the kernel maps its zero page for that.
TOGETHER = 1
ENTRY = np.uint32(Flag.PRESENT | Flag.HUGE)
# Fills a buffer from an address on, and returns how many bytes it read.
Read = Callable[[memoryview, int], int]


def with_zeros(found: Huge, source: Source, read: Read) -> Huge:
    """Return ``found`` with what of its anonymous huge pages contains only zeros.

    ``read`` reads the memory of ``source``'s process; raises what it raises.
    """
    facts, vmas = source.space.facts, found.table.vmas
    page, pages = facts.page_size, 1 << facts.pmd_order
    buffer = np.empty((pages, page // 8), np.uint64)
    by_vma, looked, moved, underused = np.zeros(len(vmas), np.int64), 0, 0, 0
    most, hear = read_underused(pages), HEAR.get()
    for at in range(0, len(found.anon), TOGETHER):
        addr = found.anon[at : at + TOGETHER]
        before = mapped(source, vmas, addr, facts.huge_size)
        here = np.flatnonzero(before)
        zero = np.array([zero_pages(read, buffer, start) for start in addr[here].tolist()],
                        np.int64)
        same = mapped(source, vmas, addr[here], facts.huge_size) == before[here]
        looked += len(here) * facts.huge_size
        if hear:
            hear("reading its huge pages:", looked, len(found.anon) * facts.huge_size)
        moved += (len(addr) - int(same.sum())) * facts.huge_size
        np.add.at(by_vma, holder(addr[here][same], vmas.ranges), zero[same] * page)
        if most is not None:
            underused += int(zero[same & (zero > most)].sum()) * page
    zeros = Zeros(by_vma, looked, moved, None if most is None else underused, most)
    if moved:
        found.table.outcome.withheld.append(Withheld(
            f"zeros of {moved} bytes", "huge pages were split or went while they were read",
            partial=True))
    return found._replace(
        zeros=zeros, columns=found.columns | {"zeros": by_vma},
        totals=found.totals | {"zeros": int(by_vma.sum())})


def mapped(source: Source, vmas: VMAs, addr: U64, size: int) -> U64:
    """Return which frame (u64, plus one) a PMD maps at each of ``addr`` (ascending); 0: none does.

    Where frames are hidden all are alike.
    """
    out = np.zeros(len(addr), np.uint64)
    if len(addr) == 0:
        return out
    ranges = np.stack([addr, addr + np.uint64(size)], axis=1)
    for entries in source.space.entries(vmas, ranges, frames=False):
        leaves = entries.leaves
        rows = np.flatnonzero((leaves.flags & ENTRY == ENTRY) & np.isin(leaves.addr, addr))
        pfn = np.uint64(0) if leaves.pfn is None else leaves.pfn[rows]
        out[np.searchsorted(addr, leaves.addr[rows])] = pfn + np.uint64(1)
    return out


def zero_pages(read: Read, buffer: U64, start: int) -> int:
    """Return how many of the pages from ``start`` on, one for each row of ``buffer``, are zero."""
    raw, at = buffer.data.cast("B"), 0
    while at < len(raw):
        at += read(raw[at:], start + at)
    return int((~buffer.any(axis=1)).sum())
