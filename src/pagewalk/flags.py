"""Every bit pagewalk knows, as rows: pagemap words, /proc/kpageflags, VmFlags codes, x86 PTEs.

A bit nobody knows is kept and printed as ``bitN``: nothing is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bit:
    """One bit of a kernel word: its name, number, first release, and meaning."""

    name: str
    bit: int
    since: str
    doc: str


# Documentation/admin-guide/mm/pagemap.rst
PAGEMAP = (
    Bit("soft_dirty", 55, "3.11", "written since clear_refs (needs CONFIG_MEM_SOFT_DIRTY)"),
    Bit("exclusive", 56, "4.2", "mapped exactly once; of a PMD-mapped THP only the head is asked"),
    Bit("uffd_wp", 57, "5.13", "write-protected by userfaultfd"),
    Bit("guard", 58, "6.15", "a guard region (MADV_GUARD_INSTALL)"),
    Bit("file", 61, "3.5", "a normal page that is not anonymous: file or shmem"),
    Bit("swap", 62, "2.6.25", "not present, not empty: swap or another software entry"),
    Bit("present", 63, "2.6.25", "a page is mapped here (PROT_NONE included)"),
)

# include/uapi/linux/kernel-page-flags.h and include/linux/kernel-page-flags.h
KPAGEFLAGS = (
    Bit("locked", 0, "2.6.25", "page lock held"),
    Bit("error", 1, "2.6.25", "I/O error (gone by 6.12)"),
    Bit("referenced", 2, "2.6.25", "referenced since the last LRU scan"),
    Bit("uptodate", 3, "2.6.25", "holds current data"),
    Bit("dirty", 4, "2.6.25", "holds data its backing store does not have"),
    Bit("lru", 5, "2.6.25", "on an LRU list"),
    Bit("active", 6, "2.6.25", "on the active LRU list"),
    Bit("slab", 7, "2.6.25", "used by the slab allocator"),
    Bit("writeback", 8, "2.6.25", "being written back"),
    Bit("reclaim", 9, "2.6.25", "to be reclaimed as soon as it is clean"),
    Bit("buddy", 10, "2.6.25", "free, in the buddy allocator"),
    Bit("mmap", 11, "2.6.31", "mapped into an address space"),
    Bit("anon", 12, "2.6.31", "anonymous (KSM pages too)"),
    Bit("swapcache", 13, "2.6.31", "has a slot in a swap device"),
    Bit("swapbacked", 14, "2.6.31", "reclaimed to swap: anonymous or shmem"),
    Bit("head", 15, "2.6.31", "first page of a large folio"),
    Bit("tail", 16, "2.6.31", "later page of a large folio"),
    Bit("huge", 17, "2.6.31", "hugetlb"),
    Bit("unevictable", 18, "2.6.31", "on the unevictable list"),
    Bit("hwpoison", 19, "2.6.31", "hardware-poisoned"),
    Bit("nopage", 20, "2.6.31", "no page frame there (emitted to 6.14)"),
    Bit("ksm", 21, "2.6.32", "merged by KSM"),
    Bit("thp", 22, "3.4", "part of a large anonymous or file folio; not the same as PMD-mapped"),
    Bit("offline", 23, "3.18", "logically offline (a balloon before 5.x)"),
    Bit("zero_page", 24, "4.1", "the shared zero page or huge zero page"),
    Bit("idle", 25, "4.3", "idle page tracking's flag"),
    Bit("pgtable", 26, "4.18", "used as a page table"),
    Bit("reserved", 32, "2.6.31", "never given to the page allocator"),
    Bit("mlocked", 33, "2.6.31", "mlocked"),
    Bit("owner_2", 34, "2.6.31", "owner's flag (mappedtodisk; anon-exclusive on anonymous pages)"),
    Bit("private", 35, "2.6.31", "owner keeps private data"),
    Bit("private_2", 36, "2.6.31", "owner keeps more private data"),
    Bit("owner_private", 37, "2.6.31", "owner's private flag"),
    Bit("arch", 38, "2.6.31", "architecture's flag"),
    Bit("uncached", 39, "2.6.31", "mapped uncached (gone by 6.12)"),
    Bit("softdirty", 40, "3.11", "soft-dirty"),
    Bit("arch_2", 41, "4.16", "architecture's second flag"),
    Bit("arch_3", 42, "6.1", "architecture's third flag"),
)

# arch/x86/include/asm/pgtable_types.h: a present entry. Bit 7 is PSE in a huge leaf, whose PAT is
# bit 12; bit 8 is PROT_NONE when bit 0 is clear; bits 57 and 58 changed their meaning.
X86_PTE = (
    Bit("present", 0, "1.0", "the CPU may use it"),
    Bit("write", 1, "1.0", "writable"),
    Bit("user", 2, "1.0", "open to user mode"),
    Bit("pwt", 3, "1.0", "memory type: write-through"),
    Bit("pcd", 4, "1.0", "memory type: cache disabled"),
    Bit("accessed", 5, "1.0", "used since the bit was cleared; set by the CPU"),
    Bit("dirty", 6, "1.0", "written since the bit was cleared; set by the CPU"),
    Bit("pat", 7, "1.0", "memory type: third bit"),
    Bit("global", 8, "2.4", "kept in the TLB when the address space changes"),
    Bit("special", 9, "2.6.25", "no normal struct page behind it"),
    Bit("uffd_wp", 10, "5.7", "write-protected by userfaultfd"),
    Bit("soft_dirty", 11, "3.11", "written since clear_refs"),
    Bit("nx", 63, "2.6.11", "not executable"),
)

KPF = {row.name: row.bit for row in KPAGEFLAGS}


def names(word: int, bits: tuple[Bit, ...]) -> list[str]:
    """Return the names of the bits set in ``word``; an unknown one is ``bitN``."""
    known = {row.bit: row.name for row in bits}
    return [known.get(n, f"bit{n}") for n in range(64) if word >> n & 1]
