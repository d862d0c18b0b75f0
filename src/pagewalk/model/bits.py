"""Every bit pagewalk knows of a page frame and of a VMA: /proc/kpageflags and VmFlags codes.

An unknown bit is kept and printed as ``bitN``: nothing is dropped.
"""

from typing import NamedTuple

import numpy as np


class Bit(NamedTuple):
    """One bit of a kernel word: its name, number, first release, and meaning."""

    name: str
    bit: int
    since: str
    doc: str


# include/uapi/linux/kernel-page-flags.h and include/linux/kernel-page-flags.h
KPAGEFLAGS = (
    Bit("locked", 0, "2.6.25", "page lock held"),
    Bit("error", 1, "2.6.25", "I/O error (gone by 6.12)"),
    Bit("referenced", 2, "2.6.25", "referenced since the last LRU scan"),
    Bit("uptodate", 3, "2.6.25", "holds current data"),
    Bit("dirty", 4, "2.6.25", "holds data not yet written to its backing store"),
    Bit("lru", 5, "2.6.25", "on an LRU list"),
    Bit("active", 6, "2.6.25", "on the active LRU list"),
    Bit("slab", 7, "2.6.25", "used by the slab allocator"),
    Bit("writeback", 8, "2.6.25", "being written back"),
    Bit("reclaim", 9, "2.6.25", "to be reclaimed once it is clean"),
    Bit("buddy", 10, "2.6.25", "free, in the buddy allocator"),
    Bit("mmap", 11, "2.6.31", "mapped into an address space"),
    Bit("anon", 12, "2.6.31", "anonymous (including KSM pages)"),
    Bit("swapcache", 13, "2.6.31", "in the swap cache, with a slot on a swap device"),
    Bit("swapbacked", 14, "2.6.31", "reclaimed to swap: anonymous or shmem"),
    Bit("head", 15, "2.6.31", "first page of a large folio"),
    Bit("tail", 16, "2.6.31", "later page of a large folio"),
    Bit("huge", 17, "2.6.31", "hugetlb"),
    Bit("unevictable", 18, "2.6.31", "on the unevictable list"),
    Bit("hwpoison", 19, "2.6.31", "hardware-poisoned"),
    Bit("nopage", 20, "2.6.31", "no page frame exists here (reported up to 6.14)"),
    Bit("ksm", 21, "2.6.32", "merged by KSM"),
    Bit("thp", 22, "3.4", "part of a large anonymous or file folio; not the same as PMD-mapped"),
    Bit("offline", 23, "3.18", "logically offline (a balloon before 5.x)"),
    Bit("zero_page", 24, "4.1", "the shared zero page or huge zero page"),
    Bit("idle", 25, "4.3", "marked idle by idle page tracking"),
    Bit("pgtable", 26, "4.18", "used as a page table"),
    Bit("reserved", 32, "2.6.31", "reserved, not managed by the page allocator"),
    Bit("mlocked", 33, "2.6.31", "mlocked"),
    Bit("owner_2", 34, "2.6.31", "owner-defined (mappedtodisk; anon-exclusive on anonymous pages)"),
    Bit("private", 35, "2.6.31", "has private data"),
    Bit("private_2", 36, "2.6.31", "has more private data"),
    Bit("owner_private", 37, "2.6.31", "owner-defined private flag"),
    Bit("arch", 38, "2.6.31", "architecture-defined flag"),
    Bit("uncached", 39, "2.6.31", "mapped uncached (gone by 6.12)"),
    Bit("softdirty", 40, "3.11", "soft-dirty"),
    Bit("arch_2", 41, "4.16", "second architecture-defined flag"),
    Bit("arch_3", 42, "6.1", "third architecture-defined flag"),
    # Set in place of ksm where kpageflags marks every anonymous page as KSM.
    Bit("maybe_ksm", 62, "6.12", "mapped several times, and whether KSM merged it is not known"),
    # kpageflags does not export PG_young: readers of struct page set this bit.
    Bit("young", 63, "4.3", "accessed, as noted by idle page tracking or DAMON; from struct page"
        " only"),
)

KPF = {row.name: row.bit for row in KPAGEFLAGS}


def kpf(*names: str) -> np.uint64:
    """Return the mask of the bits that /proc/kpageflags calls ``names``."""
    return np.uint64(sum(1 << KPF[name] for name in names))


YOUNG, MAYBE_KSM = kpf("young"), kpf("maybe_ksm")

# vm_flags (include/linux/mm.h)
VM_READ, VM_WRITE, VM_EXEC, VM_SHARED, VM_MAYSHARE = 0x1, 0x2, 0x4, 0x8, 0x80
VM_GROWSDOWN, VM_PFNMAP, VM_LOCKED, VM_IO, VM_SEQ_READ = 0x100, 0x400, 0x2000, 0x4000, 0x8000
VM_RAND_READ, VM_DONTEXPAND, VM_HUGETLB, VM_MIXEDMAP = 0x1_0000, 0x4_0000, 0x40_0000, 0x1000_0000
VM_HUGEPAGE, VM_NOHUGEPAGE, VM_MERGEABLE = 0x2000_0000, 0x4000_0000, 0x8000_0000

# The two letters that smaps prints for each bit of vm_flags (fs/proc/task_mmu.c,
# show_smap_vma_flags). For what moved or was added later see vmflag_codes, for what is an
# architecture's own Arch.vm_flag_codes.
VMFLAGS = {
    0: "rd", 1: "wr", 2: "ex", 3: "sh", 4: "mr", 5: "mw", 6: "me", 7: "ms", 8: "gd", 9: "um",
    10: "pf", 11: "gu", 12: "uw", 13: "lo", 14: "io", 15: "sr", 16: "rr", 17: "dc", 18: "de",
    19: "lf", 20: "ac", 21: "nr", 22: "ht", 23: "sf", 24: "ar", 25: "wf", 26: "dd", 27: "sd",
    28: "mm", 29: "hg", 30: "nh", 31: "mg", 38: "ui", 40: "dp", 41: "ui", 42: "sl",
}  # fmt: skip


def vmflag_codes(release: tuple[int, int]) -> dict[int, str]:
    """Return the two-letter code of each vm_flags bit that all architectures have alike."""
    codes = dict(VMFLAGS)
    if release < (6, 6):
        codes[37] = "ui"  # 6.6 gave bit 37 to the shadow stack
    if release < (6, 8):
        del codes[19]  # VM_LOCKONFAULT had no letters
    if (6, 10) <= release < (6, 17):
        codes[63] = "sl"  # VM_SEALED was the last bit
    return codes


def names(word: int, bits: tuple[Bit, ...]) -> list[str]:
    """Return the names of the bits set in ``word``; an unknown one is ``bitN``."""
    known = {row.bit: row.name for row in bits}
    return [known.get(n, f"bit{n}") for n in range(64) if word >> n & 1]
