"""The fields of smaps that are not amounts and cannot be summed: page sizes, THPeligible."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.kernel.structs.mappings import Mappings, read_mappings
from pagewalk.kernel.thp_eligible import UNKNOWN, eligible
from pagewalk.model.columns import I64, Backing, VMAs, Withheld
from pagewalk.model.errors import PagewalkError
from pagewalk.proc.hugepages import read_policy
from pagewalk.sources import Source
from pagewalk.sources.vma_names import agreeing

# These VMAs have base pages only; a driver's may have other sizes (vm_operations_struct.pagesize).
BASE_PAGES = (Backing.ANON, Backing.FILE, Backing.SHMEM, Backing.KERNEL, Backing.HIDDEN,
              Backing.GATE)

NOT_TOLD = Withheld(
    "thp_eligible, and kernel_page_size of hugetlb memory and drivers",
    "they are in the kernel's structs, which this source does not read; use --source ebpf",
)


# Why a column of Particulars may be withheld for some VMAs.
LIMITS = (
    Withheld("kernel_page_size", "for some VMAs only the driver knows it"),
    Withheld(
        "thp_eligible", "for some VMAs it depends on rules of this kernel unknown to pagewalk"
    ),
)


class Particulars(NamedTuple):
    """One row per VMA.

    ``page_size`` (i64 bytes) is KernelPageSize of smaps (and, on this architecture, MMUPageSize);
    ``thp_eligible`` (i64) is 1 or 0. Both are UNKNOWN where withheld.
    """

    page_size: I64
    thp_eligible: I64

    def of(self, row: int) -> tuple[int | None, int | None]:
        """Return the page size in bytes and THPeligible of a VMA, None where withheld."""
        size, eligible = (int(column[row]) for column in self)
        return None if size == UNKNOWN else size, None if eligible == UNKNOWN else eligible


def read_particulars(source: Source, vmas: VMAs) -> tuple[Particulars, list[Withheld]]:
    """Return the particulars of ``vmas`` as read by ``source``, and why some are withheld."""
    page_size, known = source.space.facts.page_size, source.recorded
    if known is not None and known.page_size is not None and known.thp_eligible is not None:
        return Particulars(known.page_size, known.thp_eligible), limits(
            Particulars(known.page_size, known.thp_eligible))
    size = np.where(np.isin(vmas.backing, [kind.value for kind in BASE_PAGES]), page_size, UNKNOWN)
    nothing = Particulars(size.astype(np.int64), np.full(len(vmas), UNKNOWN, np.int64))
    tables = source.page_tables
    if tables is None:
        return nothing, [NOT_TOLD]
    try:
        of = read_mappings(tables.running.kernel, tables.mm)
        policy = read_policy()
    except (PagewalkError, OSError) as err:
        return nothing, [Withheld("thp_eligible, kernel_page_size", str(err))]
    same = agreeing(vmas, of.vma)
    at = np.searchsorted(of.vma.start, vmas.start[same])
    found = eligible(of, policy, source.space.facts)
    nothing.page_size[same] = page_sizes(of, page_size)[at]
    nothing.thp_eligible[same] = found[at]
    nothing.thp_eligible[vmas.gate] = 0  # it has no mm
    return nothing, limits(nothing)


def limits(found: Particulars) -> list[Withheld]:
    """Return why some of ``found`` are withheld."""
    return [row for row, column in zip(LIMITS, found, strict=True) if (column == UNKNOWN).any()]


def page_sizes(of: Mappings, page_size: int) -> I64:
    # vma_kernel_pagesize: a mapping whose page size may differ has an operation that returns it.
    # For hugetlb that is the mount's size; SysV memory calls that of the object underneath
    # (hugetlb, or shmem, which has none); any other size is known only to its driver.
    size = np.where(of.sized & ~of.shmem, UNKNOWN, page_size)
    return np.where(of.sized & (of.block != 0), of.block.astype(np.int64), size).astype(np.int64)
