"""The x86-64 paging format: 4 and 5 levels of 512 entries, 4 KiB pages.

Source: arch/x86/include/asm/pgtable.h, pgtable_64.h, pgtable_types.h and pgtable-invert.h.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from pagewalk import soft
from pagewalk.flags import X86_PTE, Bit, names
from pagewalk.pages import U32, U64, Bool, Flag
from pagewalk.paging import Arch, Era, Level

PRESENT, WRITE, USER, ACCESSED, DIRTY, PSE = 1 << 0, 1 << 1, 1 << 2, 1 << 5, 1 << 6, 1 << 7
PROT_NONE, SPECIAL, UFFD_WP, SOFT_DIRTY, NX = 1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 63
SWAP_SOFT_DIRTY, SWAP_UFFD_WP, SWAP_EXCLUSIVE = 1 << 1, 1 << 2, 1 << 3
FRAME = 0x000F_FFFF_FFFF_F000
PKEY = 0xF << 59

# Era.saved_dirty from 6.6 on. Bit 58 was DEVMAP before, 57 up to 6.14, and then none.
SAVED_DIRTY = 1 << 58
DEVMAP_TO_6_5 = 1 << 58
DEVMAP_TO_6_14 = 1 << 57

# An erratum may set these two in an empty slot (_PAGE_KNL_ERRATUM_MASK).
_ERRATUM = ACCESSED | DIRTY

# The low bits of a present leaf that mean the same at every level, with or without bit 0.
_LOW = {
    Flag.ACCESSED: ACCESSED,
    Flag.DIRTY: DIRTY,
    Flag.SPECIAL: SPECIAL,
    Flag.UFFD_WP: UFFD_WP,
    Flag.SOFT_DIRTY: SOFT_DIRTY,
}


# The flags of a leaf by its low 12 bits: one look-up in place of a dozen passes.
def _low_flags(present: int, always: Flag) -> U32:
    words = np.arange(1 << 12)
    flags = np.full(len(words), Flag.PRESENT.value | always.value)
    for flag, bit in _LOW.items():
        flags |= np.where(words & bit, flag.value, 0)
    # without bit 0 nobody has access, whatever the other bits say
    mapped = np.where(words & WRITE, Flag.WRITE.value, 0)
    mapped |= np.where(words & USER, Flag.USER.value, 0)
    hidden = np.where(words & PROT_NONE, Flag.PROT_NONE.value, 0)
    flags |= np.where(words & PRESENT, mapped, hidden)
    return np.where(words & present, flags, 0).astype(np.uint32)


_PTE_FLAGS = _low_flags(PRESENT | PROT_NONE, Flag(0))
# A THP being split keeps only PSE: pmd_present() counts it as present.
_HUGE_FLAGS = _low_flags(PRESENT | PROT_NONE | PSE, Flag.HUGE)


def _none(arch: Arch, entry: U64, level: Level) -> Bool:
    none: Bool = (entry & np.uint64(~_ERRATUM & (1 << 64) - 1)) == 0
    return none


def _table(arch: Arch, entry: U64, level: Level) -> Bool:
    table: Bool = (entry & np.uint64(PRESENT | PSE)) == PRESENT
    return table


def _reserved(arch: Arch, entry: U64, level: Level) -> Bool:
    if level.number > 3:
        # no pages and no software entries above the PUD
        return np.ones(len(entry), np.bool_)
    state = entry & np.uint64(PRESENT | PSE | PROT_NONE)
    if level.number == 1:
        small: Bool = state == PSE
        return small
    # Below the frame of a huge leaf only PAT (bit 12) may be set. Where the frame is inverted,
    # pmd_modify() leaves these bits zero, and pte_modify(), for hugetlb, inverts them too.
    mask = np.uint64((1 << level.shift) - (1 << 13))
    low = entry & mask
    sound = (low == 0) | ((low == mask) & ((entry & np.uint64(PRESENT)) == 0))
    huge: Bool = np.where(state & np.uint64(PSE), ~sound, state == PROT_NONE)
    return huge


# WRITE and USER are neighbours, and so are their Flags.
_WRITE_UP = np.uint64(int(Flag.WRITE).bit_length() - WRITE.bit_length())
_NX_DOWN = np.uint64(NX.bit_length() - int(Flag.EXEC).bit_length())


# The PGD is left out: to make it useless for the user, page-table isolation sets NX in the
# kernel's copy of it (__pti_set_user_pgtbl in arch/x86/mm/pti.c), and Linux never does otherwise.
def _rights(arch: Arch, entry: U64, level: Level) -> U32:
    top = level == arch.levels[0]
    stay = ~entry & np.uint64(NX) | np.uint64(NX if top else 0)
    rights: U32 = (
        (entry & np.uint64(WRITE | USER)) << _WRITE_UP | stay >> _NX_DOWN
    ).astype(np.uint32)
    return rights


# The flags of a leaf by its high 12 bits, on one kernel.
@cache
def _high_flags(era: Era) -> U32:
    words = np.arange(1 << 12, dtype=np.uint64) << np.uint64(52)
    flags = np.where(words & np.uint64(NX), 0, Flag.EXEC.value)
    flags |= np.where(words & np.uint64(era.saved_dirty), Flag.DIRTY.value, 0)
    # up to 6.14 a device page had no normal struct page
    flags |= np.where(words & np.uint64(era.devmap), (Flag.DEVICE | Flag.SPECIAL).value, 0)
    return flags.astype(np.uint32)


def _address(arch: Arch, entry: U64) -> U64:
    return entry & np.uint64(FRAME & ~arch.era.encryption)


def _decode(arch: Arch, entry: U64, level: Level) -> tuple[U32, U64]:
    low = _PTE_FLAGS if level.number == 1 else _HUGE_FLAGS
    flags = low[(entry & np.uint64(0xFFF)).view(np.int64)]
    flags |= _high_flags(arch.era)[(entry >> np.uint64(52)).view(np.int64)]
    frame = np.uint64(FRAME & ~arch.era.encryption & -1 << level.shift)
    pfn = (entry & frame) >> np.uint64(arch.page_shift)
    odd = np.flatnonzero((entry & np.uint64(PRESENT)) == 0)
    if len(odd):
        # Against L1TF the frame of every entry without bit 0 is stored inverted.
        pfn[odd] = (~entry[odd] & frame) >> np.uint64(arch.page_shift)
        flags[odd] &= ~np.uint32(Flag.EXEC)
        rows = odd[(flags[odd] & np.uint32(Flag.PRESENT)) == 0]
        flags[rows], pfn[rows] = _decode_soft(arch, entry[rows], level)
    return flags, pfn


def _decode_soft(arch: Arch, entry: U64, level: Level) -> tuple[U32, U64]:
    flags, pfn = soft.decode(arch.era.swap, *_soft(arch, entry))
    flags[entry & np.uint64(SWAP_SOFT_DIRTY) != 0] |= np.uint32(Flag.SOFT_DIRTY)
    flags[entry & np.uint64(SWAP_UFFD_WP) != 0] |= np.uint32(Flag.UFFD_WP)
    if level.number > 1:
        flags |= np.uint32(Flag.HUGE)
    return flags, pfn & np.uint64(_soft_frame(arch))


# A software entry's frame: above it migration keeps young and dirty (SWP_PFN_BITS in
# include/linux/swapops.h: MAX_PHYSMEM_BITS is 46 with 4 levels and 52 with 5).
def _soft_frame(arch: Arch) -> int:
    return (1 << ((52 if len(arch.levels) == 5 else 46) - arch.page_shift)) - 1


def _soft(arch: Arch, entry: U64) -> tuple[U64, U64]:
    offset = (~entry >> np.uint64(9)) & np.uint64((1 << 50) - 1)
    return entry >> np.uint64(59), offset


def _plain(arch: Arch) -> tuple[int, int]:
    return PRESENT, SPECIAL | arch.era.devmap


def _describe(arch: Arch, entry: int, level: Level) -> list[tuple[str, int | str]]:
    word = np.array([entry], np.uint64)
    if _none(arch, word, level)[0]:
        return [("kind", "none"), *_bits(arch, entry, level)]
    if level.number > 1 and _table(arch, word, level)[0]:
        table = int(_address(arch, word)[0])
        return [("kind", "table"), ("table", table), *_bits(arch, entry & ~FRAME, level)]
    if _reserved(arch, word, level)[0]:
        return [("kind", "reserved"), *_bits(arch, entry, level)]
    flags, pfn = _decode(arch, word, level)
    tell = _describe_page if flags[0] & np.uint32(Flag.PRESENT) else _describe_soft
    return tell(arch, entry, level, Flag(int(flags[0])), int(pfn[0]))


def _describe_page(
    arch: Arch, entry: int, level: Level, flags: Flag, pfn: int
) -> list[tuple[str, int | str]]:
    size = {1: "4 KiB", 2: "2 MiB", 3: "1 GiB"}[level.number]
    rights = [f.name.lower() for f in (Flag.WRITE, Flag.USER, Flag.EXEC) if f in flags and f.name]
    # the PFN ends where PAT and zeros begin
    bits = entry & ~FRAME | (entry & 1 << 12 if level.number > 1 else 0)
    return [
        ("kind", f"{size} page"),
        ("pfn", pfn),
        ("phys", pfn << arch.page_shift),
        ("rights", " ".join(rights) if entry & PRESENT else "none: PROT_NONE or a NUMA hint"),
        ("dirty", "yes" if Flag.DIRTY in flags else "no"),
        ("accessed", "yes" if Flag.ACCESSED in flags else "no"),
        ("pkey", entry >> 59 & 0xF),
        *_bits(arch, bits & ~PKEY, level),
        *([] if entry & PRESENT else [("stored", "the frame is inverted, against L1TF")]),
    ]


def _describe_soft(
    arch: Arch, entry: int, level: Level, flags: Flag, pfn: int
) -> list[tuple[str, int | str]]:
    kind, offset = (int(column[0]) for column in _soft(arch, np.array([entry], np.uint64)))
    low = {SWAP_SOFT_DIRTY: "soft_dirty", SWAP_UFFD_WP: "uffd_wp", SWAP_EXCLUSIVE: "exclusive"}
    rest = [low.get(1 << n, f"bit{n}") for n in range(9) if entry >> n & 1]
    return [
        ("kind", soft.kind_name(flags)),
        ("type", kind),
        ("offset", offset),
        *([("pfn", pfn)] if pfn else []),
        *([("marks", " ".join(soft.mark_names(offset)))] if Flag.MARKER in flags else []),
        ("bits", " ".join(rest)),
    ]


# The bits outside the frame by name, as this level, this entry and this kernel use them.
def _bits(arch: Arch, bits: int, level: Level) -> list[tuple[str, int | str]]:
    here = {Bit("saved_dirty", n, "6.6", "") for n in _numbers(arch.era.saved_dirty)}
    here |= {Bit("devmap", n, "4.5", "") for n in _numbers(arch.era.devmap)}
    here |= {Bit("encrypted", n, "4.14", "") for n in _numbers(arch.era.encryption)}
    if level.number > 1 and bits & PSE:
        here |= {Bit("pse", 7, "1.0", ""), Bit("pat", 12, "2.6.26", "")}
    if not bits & PRESENT:
        here.add(Bit("prot_none", 8, "2.4", ""))
    return [("bits", " ".join(names(bits, (*X86_PTE, *here))))]


def _numbers(mask: int) -> list[int]:
    return [n for n in range(64) if mask >> n & 1]


X86_64 = Arch(
    name="x86_64",
    page_shift=12,
    depths={
        4: (Level(5, 39, 8), Level(3, 30, 9), Level(2, 21, 9), Level(1, 12, 9)),
        5: (Level(5, 48, 8), Level(4, 39, 9), Level(3, 30, 9), Level(2, 21, 9), Level(1, 12, 9)),
    },
    levels=(Level(5, 39, 8), Level(3, 30, 9), Level(2, 21, 9), Level(1, 12, 9)),
    none=_none,
    table=_table,
    reserved=_reserved,
    rights=_rights,
    decode=_decode,
    address=_address,
    soft=_soft,
    describe=_describe,
    plain=_plain,
)
