"""Decide what stands behind a page: from its entry's flags, its frame's flags, and its VMA.

Pure. The rules are those of fs/proc/task_mmu.c (smaps_pte_entry, vm_normal_page).
"""

from __future__ import annotations

import numpy as np

from pagewalk.flags import KPF
from pagewalk.pages import U8, U32, U64, Backing, Bool, Counts, Flag, Keeper, Pages, State

LARGE = np.uint64(1 << KPF["head"] | 1 << KPF["tail"] | 1 << KPF["thp"])
NO_FRAME = np.uint64(1 << KPF["nopage"])

# Whether the pages of a VMA are what their frames say, by Backing.
ORDINARY = np.zeros(len(Backing), np.bool_)
ORDINARY[[Backing.ANON, Backing.FILE, Backing.SHMEM]] = True

# RAM that a process holds, by State (not the zero pages, lost pages or device memory), and what
# keeps such a page. An anonymous hugetlb page is an exception: its mappings keep it.
HELD = np.zeros(len(State), np.bool_)
HELD[[State.ANON, State.FILE, State.SHMEM, State.HUGETLB, State.MIGRATING]] = True
KEEPERS = np.full(len(State), Keeper.MAPPINGS.value, np.uint8)
KEEPERS[State.FILE.value] = Keeper.CACHE.value
KEEPERS[[State.SHMEM.value, State.HUGETLB.value]] = Keeper.OBJECT.value

# What a hole is, by Holes.level.
HOLE_STATES = np.full(6, State.NOT_MAPPED.value, np.uint8)
HOLE_STATES[:2] = State.ABSENT, State.EMPTY

# States whose pages smaps counts in Rss: the page of a migrating entry is in RAM. See hwpoison too.
RSS_STATES = (
    State.ANON, State.FILE, State.SHMEM, State.DEVICE, State.PRESENT, State.MIGRATING,
)

SOFT_KINDS = (  # the last match wins
    (Flag.SWAP, State.SWAPPED),
    (Flag.MIGRATION, State.MIGRATING),
    (Flag.DEVICE, State.DEVICE),
    (Flag.MARKER, State.MARKER),
    (Flag.HWPOISON, State.POISONED),
    (Flag.GUARD, State.GUARD),
)


def classify(flags: U32, backing: U8, kflags: U64 | None) -> U8:
    """Return the State (u8) of each leaf.

    ``flags`` u32 (Flag), ``backing`` u8 the VMA's (Backing), ``kflags`` u64 the folio head's
    /proc/kpageflags word, or None where frames are withheld: the kind then comes from bit 61 and
    the VMA, and a page of a driver's VMA that may be special stays PRESENT.
    """
    present = flags & Flag.PRESENT.value != 0
    kind = (
        kind_by_vma(flags, backing)
        if kflags is None
        else kind_by_frame(flags, backing, kflags)
    )
    state = np.where(present, kind, np.uint8(State.SOFT))
    if not present.all():
        for flag, soft in SOFT_KINDS:
            state[~present & (flags & flag.value != 0)] = soft
    return state


def hwpoison(flags: U32) -> Bool:
    """Return a mask of the entries for pages lost to a memory error.

    smaps counts such an entry as its page did in some kernels, and not in others.
    """
    mask: Bool = flags & np.uint32(Flag.HWPOISON | Flag.MARKER) == np.uint32(Flag.HWPOISON)
    return mask


def has(kflags: U64, name: str) -> Bool:
    """Return a mask of the words with the kpageflags bit ``name``."""
    mask: Bool = kflags & np.uint64(1 << KPF[name]) != 0
    return mask


def lazyfree(kflags: U64) -> Bool:
    """Return a mask of the frames given up with MADV_FREE, unless their entry is dirty.

    Anonymous, not swap-backed and not dirty, as smaps counts LazyFree (smaps_account,
    fs/proc/task_mmu.c).
    """
    kept = np.uint64(1 << KPF["swapbacked"] | 1 << KPF["dirty"])
    mask: Bool = has(kflags, "anon") & (kflags & kept == 0)
    return mask


def untold(kflags: U64) -> Bool:
    """Return a mask of the frames that the frame database says nothing of."""
    mask: Bool = (kflags & ~NO_FRAME) == 0
    return mask


def kind_by_frame(flags: U32, backing: U8, kflags: U64) -> U8:
    # Up to 6.14 entries of files and devices that are memory are special, and kpageflags knows no
    # such frames. (Bit 61 is wrong there: pagemap sets it for a PMD.) Anonymous memory that was
    # migrated to a device has ordinary entries.
    special = flags & Flag.SPECIAL.value != 0
    nowhere = (kflags & NO_FRAME != 0) & (flags & Flag.NORMAL.value == 0)
    special |= nowhere & (backing != Backing.ANON.value)
    # A normal page is anonymous, or has bit 61; up to 6.8 bit 61 is missing on PMD-mapped file
    # THPs, which the large-folio bits give away. A real page table says it by its special bit.
    normal_file = (flags & (Flag.FILE | Flag.NORMAL).value != 0) | (kflags & LARGE != 0)
    normal_file &= ~special
    kind = np.full(len(flags), State.SPECIAL.value, np.uint8)
    # No driver maps into anonymous memory or a file: such a page was moved to another frame before
    # the old one's flags were read, or the frame database leaves its frame out, as some kernels do
    # with RAM that they initialise late. It is the entry that is right.
    kind[ORDINARY[backing] & ~special] = State.ANON
    kind[normal_file] = State.FILE
    kind[normal_file & has(kflags, "swapbacked")] = State.SHMEM
    silent = normal_file & untold(kflags)
    kind[silent] = State.DEVICE
    kind[silent & (backing == Backing.FILE.value)] = State.FILE
    kind[silent & (backing == Backing.SHMEM.value)] = State.SHMEM
    kind[has(kflags, "anon")] = State.ANON
    kind[has(kflags, "huge")] = State.HUGETLB
    kind[has(kflags, "zero_page") | (flags & Flag.ZERO.value != 0)] = State.ZERO
    return kind


def kind_by_vma(flags: U32, backing: U8) -> U8:
    normal_file = flags & Flag.FILE.value != 0
    kind = np.full(len(flags), State.ANON.value, np.uint8)
    kind[backing == Backing.DRIVER.value] = State.PRESENT
    kind[normal_file] = State.FILE
    kind[normal_file & (backing == Backing.SHMEM.value)] = State.SHMEM
    # A huge leaf with bit 61 in anonymous memory is the huge zero page (from 6.12 on). A small one
    # belongs to a file: one that is called /dev/zero is taken for anonymous memory.
    huge_file = normal_file & (flags & Flag.HUGE.value != 0)
    kind[huge_file & (backing == Backing.ANON.value)] = State.ZERO
    kind[backing == Backing.HUGETLB.value] = State.HUGETLB
    kind[flags & Flag.MAYBE_ZERO.value != 0] = State.PRESENT
    kind[flags & Flag.ZERO.value != 0] = State.ZERO
    return kind


def once(pages: Counts | Pages) -> Bool:
    # Mapped once, by a page table that belongs to this process alone.
    assert pages.mapcount is not None
    foreign = pages.state == State.HUGETLB.value
    foreign &= pages.flags & np.uint32(Flag.EXCLUSIVE.value) == 0
    mask: Bool = (pages.mapcount == 1) & ~foreign
    return mask


def inherited(pages: Counts | Pages) -> Bool:
    # Anonymous and mapped by others too, yet by this process once: such a page has one address in
    # each address space (vma_address, mm/rmap.c, computes it from the index), unless KSM merged it.
    assert pages.mapcount is not None and pages.kflags is not None
    mask: Bool = (pages.state == State.ANON.value) & (pages.mapcount > 1)
    return mask & ~has(pages.kflags, "ksm")


def maybe_repeated(pages: Counts | Pages) -> Bool:
    """Return a mask of the pages in RAM that this process may map more than once."""
    mask: Bool = HELD[pages.state] & ~once(pages) & ~inherited(pages)
    return mask
