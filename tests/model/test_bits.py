"""Every bit that we know, against the kernel's own numbers."""

from __future__ import annotations

from pagewalk.model import bits as flags
from pagewalk.model.bits import KPAGEFLAGS, VMFLAGS, names

# include/uapi/linux/kernel-page-flags.h, KPF_*, and include/linux/kernel-page-flags.h.
KERNEL_PAGE_FLAGS = (
    "locked", "error", "referenced", "uptodate", "dirty", "lru", "active", "slab", "writeback",
    "reclaim", "buddy", "mmap", "anon", "swapcache", "swapbacked", "head", "tail", "huge",
    "unevictable", "hwpoison", "nopage", "ksm", "thp", "offline", "zero_page", "idle",
    "pgtable",
)


def test_kpageflags_are_numbered_as_in_the_header() -> None:
    user = {row.name: row.bit for row in KPAGEFLAGS if row.bit < 32}
    assert user == {name: bit for bit, name in enumerate(KERNEL_PAGE_FLAGS)}


def test_no_bit_and_no_name_occurs_twice() -> None:
    assert len({row.bit for row in KPAGEFLAGS}) == len(KPAGEFLAGS)
    assert len({row.name for row in KPAGEFLAGS}) == len(KPAGEFLAGS)
    assert all(row.doc and row.since for row in KPAGEFLAGS)


# fs/proc/task_mmu.c, show_smap_vma_flags
LETTERS = {
    "READ": "rd", "WRITE": "wr", "EXEC": "ex", "SHARED": "sh", "MAYSHARE": "ms",
    "GROWSDOWN": "gd", "PFNMAP": "pf", "LOCKED": "lo", "IO": "io", "SEQ_READ": "sr",
    "RAND_READ": "rr", "DONTEXPAND": "de", "HUGETLB": "ht", "MIXEDMAP": "mm", "HUGEPAGE": "hg",
    "NOHUGEPAGE": "nh", "MERGEABLE": "mg",
}


def test_a_flag_of_a_vma_is_the_bit_of_its_letters() -> None:
    named = {name: bit for name, bit in vars(flags).items() if name.startswith("VM_")}
    assert named == {
        f"VM_{name}": 1 << bit
        for name, letters in LETTERS.items()
        for bit, code in VMFLAGS.items()
        if code == letters
    }


def test_names_keep_unknown_bits() -> None:
    assert names(1 << 0 | 1 << 12 | 1 << 55, KPAGEFLAGS) == ["locked", "anon", "bit55"]
    assert names(0, KPAGEFLAGS) == []
