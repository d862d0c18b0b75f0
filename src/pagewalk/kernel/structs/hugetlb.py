"""Which hugetlb pages are mapped by a page table that processes share (hugetlb_pmd_shared).

The mapcount of such a page may be 1 although several processes map it.
"""

from __future__ import annotations

import numpy as np

from pagewalk.kernel.readers.memory import PAGE, read_structs, read_words
from pagewalk.kernel.structs.direct_map import DirectMap, MemMap
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.model.columns import U64, Bool
from pagewalk.pagetables.format import PMD, Arch


def in_shared_table(
    kernel: Kernel, direct_map: DirectMap, mem_map: MemMap, arch: Arch, root: int, addr: U64
) -> Bool:
    """Return which of ``addr`` (u64[n], mapped by PMD leaves) are in a PMD table that is shared.

    ``root`` is the physical address of the PGD. Raises OSError when a table cannot be read.
    """
    table = np.full(len(addr), root, np.uint64)
    for level in arch.levels:
        if level.number == PMD:
            break
        index = addr >> np.uint64(level.shift) & np.uint64((1 << level.bits) - 1)
        place = direct_map.addresses(table) + index * np.uint64(8)
        entry, errno = read_words(kernel.memory, place)
        if errno.any():
            raise OSError(int(errno.max()), "a page table cannot be read")
        table = arch.address(entry)
    return _is_shared(kernel, mem_map, table // np.uint64(PAGE))


def _is_shared(kernel: Kernel, mem_map: MemMap, pfn: U64) -> Bool:
    pages = np.uint64(mem_map.base) + pfn * np.uint64(mem_map.size)
    rows, errno = read_structs(kernel.memory, pages, mem_map.size)
    if errno.any():
        raise OSError(int(errno.max()), "a struct page cannot be read")
    for struct in ("ptdesc", "page"):
        # 6.13 and backports: "mm: hugetlb: independent PMD page table shared count"
        if kernel.btf.has(struct, "pt_share_count"):
            return kernel.column(rows, struct, "pt_share_count") > 0
    # Before that, each process that uses the table held a reference to its page.
    return kernel.column(rows, "page", "_refcount") > 1
