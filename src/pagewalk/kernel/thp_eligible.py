"""Which VMAs may get huge pages: THPeligible of smaps, computed by the kernel's own rule. No I/O.

The rule is thp_vma_allowable_orders() (mm/huge_memory.c, up to 6.7 hugepage_vma_check). It is
policy: what the machine's settings, the process and the VMA's flags, size and address allow. It
changes with most releases, so for those outside KNOWN we claim nothing. The order of a size is its
base-2 logarithm in base pages; a mask has bit n set for order n.
"""

from __future__ import annotations

import numpy as np

from pagewalk.kernel.structs.mappings import Mappings
from pagewalk.model import bits
from pagewalk.model.columns import I64, U64, Bool
from pagewalk.model.facts import Facts
from pagewalk.proc.hugepages import Policy

KNOWN = ((6, 1), (6, 18))
BY_SIZE = (6, 8)  # there are settings for each size
MASKED = (6, 17)  # shmem's orders are limited to those that fit
EXCEPT_ADVISED = (6, 18)  # a process may have huge pages disabled except with MADV_HUGEPAGE
UNKNOWN = -1
_SPECIAL = bits.VM_PFNMAP | bits.VM_MIXEDMAP
VM_NO_KHUGEPAGED = bits.VM_IO | bits.VM_DONTEXPAND | bits.VM_HUGETLB | _SPECIAL
INCOMPLETE_STACK = bits.VM_RAND_READ | bits.VM_SEQ_READ
# include/linux/mm_types.h, MMF_DISABLE_THP_COMPLETELY and _EXCEPT_ADVISED
MMF_DISABLED, MMF_UNLESS_ADVISED = 1 << 24, 1 << 23
# mm/shmem.c, SHMEM_HUGE_ALWAYS, _WITHIN_SIZE, _ADVISE
MOUNT_ALWAYS, MOUNT_WITHIN_SIZE, MOUNT_ADVISE = 1, 2, 3


def eligible(of: Mappings, policy: Policy | None, facts: Facts) -> I64:
    """Return 1 for each VMA that may get huge pages, 0 if it may not, UNKNOWN if we cannot tell.

    ``policy`` is None on a kernel without huge pages. Returns i64[n].
    """
    count, release = len(of.vma.start), facts.release
    if policy is None:
        return np.zeros(count, np.int64)
    if not KNOWN[0] <= release <= KNOWN[1]:
        return np.full(count, UNKNOWN, np.int64)
    flags = of.vma.flags
    anon = of.vma.ops == 0
    advised = flags & np.uint64(bits.VM_HUGEPAGE) != 0
    barred = of.dax | (flags & np.uint64(bits.VM_NOHUGEPAGE) != 0)
    barred |= bool(of.mm_flags & MMF_DISABLED)
    if release >= EXCEPT_ADVISED and of.mm_flags & MMF_UNLESS_ADVISED:
        barred |= ~advised
    if release < BY_SIZE:
        barred |= flags & np.uint64(VM_NO_KHUGEPAGED) != 0
    fits = fitting(of, anon, facts)
    wanted = np.full(count, policy.anon == "always") | (advised & (policy.anon == "madvise"))
    file = np.where(of.huge_fault & (release >= BY_SIZE), 1, 0)
    if facts.file_huge_pages is not False:
        file[of.regular & (file == 0)] = UNKNOWN
    found = np.where(wanted & (fits != 0), file, 0)
    found[anon] = anonymous(flags, fits, wanted, advised, policy, facts)[anon]
    shared = shmem(of, fits, advised, policy, facts)
    found[of.shmem] = shared[of.shmem]
    found[barred] = 0
    return found.astype(np.int64)


def fitting(of: Mappings, anon: Bool, facts: Facts) -> U64:
    """Return the mask (u64) of all orders up to the largest that fits in each VMA."""
    start, end = of.vma.start, of.vma.end
    special = ~anon & (of.vma.file != 0)
    special &= of.vma.flags & np.uint64(_SPECIAL) != 0
    fits = np.zeros(len(start), np.uint64)
    pmd, pud = facts.pmd_order, 2 * facts.pmd_order
    for order in (*range(1, pmd + 1), pud):
        size = np.uint64(facts.page_size << order)
        # thp_vma_suitable_order: the last aligned block, which must be aligned in the file too
        block = np.where(end >= size, end - size, np.uint64(0)) & ~(size - np.uint64(1))
        suits = (block >= start) & (block + size <= end) & (end - start >= size)
        suits &= anon | ((start - of.vma.offset) & (size - np.uint64(1)) == 0)
        # include/linux/huge_mm.h: THP_ORDERS_ALL_SPECIAL, _FILE_DEFAULT, _ANON
        meant = np.where(special, order in (pmd, pud), order <= pmd)
        meant &= ~anon | (2 <= order <= pmd)
        if facts.release < BY_SIZE:
            meant &= order == pmd
        fits[suits & meant] |= np.uint64(1 << order)
    return fits


def anonymous(
    flags: U64, fits: U64, wanted: Bool, advised: Bool, policy: Policy, facts: Facts
) -> I64:
    """Return 0 or 1 for each VMA, as if it were anonymous memory."""
    if facts.release < BY_SIZE:
        mask = np.where(wanted, np.uint64(1 << facts.pmd_order), np.uint64(0))
    else:
        by_word = policy.anon_orders
        mask = np.full(len(flags), by_word.get("always", 0), np.uint64)
        mask[advised] |= np.uint64(by_word.get("madvise", 0))
        mask[wanted] |= np.uint64(by_word.get("inherit", 0))
    # A stack that exec is about to move (vma_is_temporary_stack).
    moving = (flags & np.uint64(bits.VM_GROWSDOWN) != 0) & (
        flags & np.uint64(INCOMPLETE_STACK) == np.uint64(INCOMPLETE_STACK)
    )
    return np.where((mask & fits != 0) & ~moving, 1, 0)


def shmem(of: Mappings, fits: U64, advised: Bool, policy: Policy, facts: Facts) -> I64:
    """Return 0, 1 or UNKNOWN for each VMA, as if it were shared memory (mm/shmem.c)."""
    if policy.shmem == "deny":
        return np.zeros(len(fits), np.int64)
    force = policy.shmem == "force"
    top = (of.mount == MOUNT_ALWAYS) | force
    top |= ((of.mount == MOUNT_ADVISE) | (of.mount == MOUNT_WITHIN_SIZE)) & advised
    # Whether the page is within the object's size is not checked here.
    unknown = (of.mount == MOUNT_WITHIN_SIZE) & ~top
    mask = np.where(top, np.uint64(1 << facts.pmd_order), np.uint64(0))
    if policy.shmem_orders:
        by_word = policy.shmem_orders
        own = np.full(len(fits), 0 if force else by_word.get("always", 0), np.uint64)
        own[advised & (not force)] |= np.uint64(by_word.get("advise", 0))
        own[top] |= np.uint64(by_word.get("inherit", 0))
        mask = np.where(of.anon_shmem, own, mask)
        within = not force and "within_size" in by_word
        unknown = np.where(of.anon_shmem, within | (unknown & ("inherit" in by_word)), unknown)
    allowed = mask & fits if facts.release >= MASKED else np.where(fits != 0, mask, np.uint64(0))
    yes = allowed != 0
    return np.where(yes, 1, np.where(unknown & (fits != 0), UNKNOWN, 0))
