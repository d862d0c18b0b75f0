"""The x86-64 paging format: 4 and 5 levels of 512 entries, 4 KiB pages.

Source: arch/x86/include/asm/pgtable.h, pgtable_64.h, pgtable_types.h and pgtable-invert.h.
"""

from __future__ import annotations

import re
from functools import cache
from typing import ClassVar

import numpy as np

from pagewalk.model import soft
from pagewalk.model.bits import Bit
from pagewalk.model.columns import U32, U64, Bool, Flag
from pagewalk.model.soft import SwapTypes
from pagewalk.pagetables.format import P4D, PGD, PMD, PTE, PUD, Arch, Era, Level, Said

PRESENT, WRITE, USER, ACCESSED, DIRTY, PSE = 1 << 0, 1 << 1, 1 << 2, 1 << 5, 1 << 6, 1 << 7
PROT_NONE, SPECIAL, UFFD_WP, SOFT_DIRTY, NX = 1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 63
SWAP_SOFT_DIRTY, SWAP_UFFD_WP, SWAP_EXCLUSIVE = 1 << 1, 1 << 2, 1 << 3
FRAME = 0x000F_FFFF_FFFF_F000
PKEY = 0xF << 59

_SAVED_DIRTY, _DEVMAP_TO_6_5, _DEVMAP_TO_6_14 = 1 << 58, 1 << 58, 1 << 57

# vm_flags (include/linux/mm.h): VM_PKEY_SHIFT, and the bits from there on
_PKEY_SHIFT, _PKEY_MASK = 32, 0xF

# arch/x86/include/asm/pgtable_types.h: a present entry. Bit 7 is PSE in a huge leaf, whose PAT is
# bit 12; bit 8 is PROT_NONE when bit 0 is clear; bits 57 and 58 changed their meaning.
_PTE_BITS = (
    Bit("present", 0, "1.0", "the CPU may use the entry"),
    Bit("write", 1, "1.0", "writable"),
    Bit("user", 2, "1.0", "accessible from user mode"),
    Bit("pwt", 3, "1.0", "memory type: write-through"),
    Bit("pcd", 4, "1.0", "memory type: cache disabled"),
    Bit("accessed", 5, "1.0", "accessed since the bit was last cleared; set by the CPU"),
    Bit("dirty", 6, "1.0", "written since the bit was last cleared; set by the CPU"),
    Bit("pat", 7, "1.0", "memory type: third bit"),
    Bit("global", 8, "2.4", "stays in the TLB across address-space switches"),
    Bit("special", 9, "2.6.25", "no normal struct page behind it"),
    Bit("uffd_wp", 10, "5.7", "write-protected by userfaultfd"),
    Bit("soft_dirty", 11, "3.11", "written since clear_refs"),
    Bit("nx", 63, "2.6.11", "not executable"),
)

# What the same bits mean in other entries or on other kernels. Bit 58 was devmap up to 6.5.
_OTHER_BITS = (
    Bit("pse", 7, "1.0", "this entry maps a huge page directly"),
    Bit("pat", 12, "2.6.26", "memory type: third bit, in a huge-page entry"),
    Bit("prot_none", 8, "2.4", "with bit 0 clear: the page exists, but every access faults"),
    Bit("exclusive", 3, "5.19", "in a swap entry: no other process refers to this anonymous page"),
    Bit("devmap", 57, "4.5", "device memory without a normal struct page"),
    Bit("saved_dirty", 58, "6.6", "dirty, saved here while the entry is write-protected"),
    Bit("encrypted", 51, "4.14", "memory-encryption bit, not part of the address"),
)

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


# WRITE and USER are neighbours, and so are their Flags.
_WRITE_UP = np.uint64(int(Flag.WRITE).bit_length() - WRITE.bit_length())
_NX_DOWN = np.uint64(NX.bit_length() - int(Flag.EXEC).bit_length())


# The flags of a leaf by its high 12 bits, on one kernel.
@cache
def _high_flags(saved_dirty: int, devmap: int) -> U32:
    words = np.arange(1 << 12, dtype=np.uint64) << np.uint64(52)
    flags = np.where(words & np.uint64(NX), 0, Flag.EXEC.value)
    flags |= np.where(words & np.uint64(saved_dirty), Flag.DIRTY.value, 0)
    # up to 6.14 a device page had no normal struct page
    flags |= np.where(words & np.uint64(devmap), (Flag.DEVICE | Flag.SPECIAL).value, 0)
    return flags.astype(np.uint32)


_FOUR = (Level(PGD, 39, 8), Level(PUD, 30, 9), Level(PMD, 21, 9), Level(PTE, 12, 9))


class X86(Arch):
    """The paging format of x86-64; Arch says what its methods return."""

    name = "x86_64"
    page_shift = 12
    depths: ClassVar = {4: _FOUR, 5: (Level(PGD, 48, 8), Level(P4D, 39, 9), *_FOUR[1:])}
    legend = (*_PTE_BITS, *_OTHER_BITS)
    # kaslr.c aligns the base to a PUD; the sizes: Documentation/arch/x86/x86_64/mm.rst
    direct_map_step = 1 << 30
    direct_map_size: ClassVar = {4: 64 << 40, 5: 32 << 50}

    @classmethod
    def era_of(cls, release: tuple[int, int], cpuinfo: bytes, swap: SwapTypes) -> Era:
        # The CPU tells its address width less the bits memory encryption takes; 52 is the format's.
        found = re.search(rb"address sizes\t: (\d+) bits physical", cpuinfo)
        width = min(int(found[1]), 52) if found else 52
        return Era(release, width, encryption=FRAME & -1 << width, swap=swap)

    @staticmethod
    def vm_flag_codes(release: tuple[int, int]) -> dict[int, str]:
        """Return the two letters of x86's own vm_flags; the protection key's bits have none."""
        shadow_stack = {37: "ss"} if release >= (6, 6) else {}
        return dict.fromkeys(range(_PKEY_SHIFT, 37), "") | shadow_stack

    @staticmethod
    def protection_key(vm_flags: int) -> int:
        return vm_flags >> _PKEY_SHIFT & _PKEY_MASK

    @property
    def saved_dirty(self) -> int:
        """Return the bit that keeps "dirty" while the entry may not be written, 0 for none."""
        # (6.6) x86/mm: Introduce _PAGE_SAVED_DIRTY
        return _SAVED_DIRTY if self.era.release >= (6, 6) else 0

    @property
    def devmap(self) -> int:
        """Return the bit of device memory without a normal struct page, 0 for none."""
        # from 6.15 on fsdax pages are ordinary ones
        release = self.era.release
        return _DEVMAP_TO_6_5 if release < (6, 6) else _DEVMAP_TO_6_14 if release < (6, 15) else 0

    def none(self, entry: U64, level: Level) -> Bool:
        none: Bool = (entry & np.uint64(~_ERRATUM & (1 << 64) - 1)) == 0
        return none

    def table(self, entry: U64, level: Level) -> Bool:
        table: Bool = (entry & np.uint64(PRESENT | PSE)) == PRESENT
        return table

    def reserved(self, entry: U64, level: Level) -> Bool:
        if level.number > PUD:
            # no pages and no software entries above the PUD
            return np.ones(len(entry), np.bool_)
        state = entry & np.uint64(PRESENT | PSE | PROT_NONE)
        if level.number == PTE:
            small: Bool = state == PSE
            return small
        # Below the frame of a huge leaf only PAT (bit 12) may be set. Where the frame is inverted,
        # pmd_modify() leaves these bits zero, and pte_modify(), for hugetlb, inverts them too.
        mask = np.uint64((1 << level.shift) - (1 << 13))
        low = entry & mask
        sound = (low == 0) | ((low == mask) & ((entry & np.uint64(PRESENT)) == 0))
        huge: Bool = np.where(state & np.uint64(PSE), ~sound, state == PROT_NONE)
        return huge

    def rights(self, entry: U64, level: Level) -> U32:
        # The PGD is left out: to make it useless for the user, page-table isolation sets NX in the
        # kernel's copy of it (__pti_set_user_pgtbl in arch/x86/mm/pti.c), and Linux never does
        # otherwise.
        top = level == self.levels[0]
        stay = ~entry & np.uint64(NX) | np.uint64(NX if top else 0)
        rights = (entry & np.uint64(WRITE | USER)) << _WRITE_UP | stay >> _NX_DOWN
        return rights.astype(np.uint32)

    def address(self, entry: U64) -> U64:
        return entry & np.uint64(FRAME & ~self.era.encryption)

    def decode(self, entry: U64, level: Level) -> tuple[U32, U64]:
        low = _PTE_FLAGS if level.number == PTE else _HUGE_FLAGS
        flags = low[(entry & np.uint64(0xFFF)).view(np.int64)]
        high = _high_flags(self.saved_dirty, self.devmap)
        flags |= high[(entry >> np.uint64(52)).view(np.int64)]
        frame = np.uint64(FRAME & ~self.era.encryption & -1 << level.shift)
        pfn = (entry & frame) >> np.uint64(self.page_shift)
        odd = np.flatnonzero((entry & np.uint64(PRESENT)) == 0)
        if len(odd):
            # Against L1TF the frame of every entry without bit 0 is stored inverted.
            pfn[odd] = (~entry[odd] & frame) >> np.uint64(self.page_shift)
            flags[odd] &= ~np.uint32(Flag.EXEC)
            rows = odd[(flags[odd] & np.uint32(Flag.PRESENT)) == 0]
            flags[rows], pfn[rows] = self._decode_soft(entry[rows], level)
        return flags, pfn

    def _decode_soft(self, entry: U64, level: Level) -> tuple[U32, U64]:
        flags, pfn = soft.decode(self.era.swap, *self.soft(entry))
        flags[entry & np.uint64(SWAP_SOFT_DIRTY) != 0] |= np.uint32(Flag.SOFT_DIRTY)
        flags[entry & np.uint64(SWAP_UFFD_WP) != 0] |= np.uint32(Flag.UFFD_WP)
        if level.number > PTE:
            flags |= np.uint32(Flag.HUGE)
        # above the frame migration keeps young and dirty (SWP_PFN_BITS in include/linux/swapops.h;
        # MAX_PHYSMEM_BITS is 46 with 4 levels and 52 with 5)
        bits = (52 if len(self.levels) == 5 else 46) - self.page_shift
        return flags, pfn & np.uint64((1 << bits) - 1)

    def soft(self, entry: U64) -> tuple[U64, U64]:
        offset = (~entry >> np.uint64(9)) & np.uint64((1 << 50) - 1)
        return entry >> np.uint64(59), offset

    def plain(self) -> tuple[int, int]:
        """Return (bits set, bits clear) that at the PTE level only a present page with a normal
        struct page has."""
        return PRESENT, SPECIAL | self.devmap

    def describe(self, entry: int, level: Level) -> Said:
        word = np.array([entry], np.uint64)
        if self.none(word, level)[0]:
            return [("kind", "none"), self._bits(entry, level)]
        if level.number > PTE and self.table(word, level)[0]:
            table = int(self.address(word)[0])
            return [("kind", "table"), ("table", table), self._bits(entry & ~FRAME, level)]
        if self.reserved(word, level)[0]:
            return [("kind", "reserved"), self._bits(entry, level)]
        flags, pfn = self.decode(word, level)
        tell = self._page if flags[0] & np.uint32(Flag.PRESENT) else self._software_entry
        return tell(entry, level, Flag(int(flags[0])), int(pfn[0]))

    def _page(self, entry: int, level: Level, flags: Flag, pfn: int) -> Said:
        size = {PTE: "4 KiB", PMD: "2 MiB", PUD: "1 GiB"}[level.number]
        granted = (flag for flag in (Flag.WRITE, Flag.USER, Flag.EXEC) if flag in flags)
        rights = " ".join(flag.name.lower() for flag in granted if flag.name)
        # the PFN ends where PAT and zeros begin
        bits = entry & ~FRAME | (entry & 1 << 12 if level.number > PTE else 0)
        return [
            ("kind", f"{size} page"),
            ("pfn", pfn),
            ("phys", pfn << self.page_shift),
            ("rights", rights if entry & PRESENT else "none: PROT_NONE or a NUMA hint"),
            ("dirty", "yes" if Flag.DIRTY in flags else "no"),
            ("accessed", "yes" if Flag.ACCESSED in flags else "no"),
            ("pkey", entry >> 59 & 0xF),
            self._bits(bits & ~PKEY, level),
            *([] if entry & PRESENT else [("stored", "the frame is inverted, against L1TF")]),
        ]

    def _software_entry(self, entry: int, level: Level, flags: Flag, pfn: int) -> Said:
        kind, offset = (int(column[0]) for column in self.soft(np.array([entry], np.uint64)))
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
    def _bits(self, bits: int, level: Level) -> tuple[str, str]:
        here = {row.bit: row.name for row in _PTE_BITS}
        own = {
            "saved_dirty": self.saved_dirty,
            "devmap": self.devmap,
            "encrypted": self.era.encryption,
        }
        here |= {n: name for name, mask in own.items() for n in _numbers(mask)}
        if level.number > PTE and bits & PSE:
            here |= {7: "pse", 12: "pat"}
        if not bits & PRESENT:
            here[8] = "prot_none"
        return "bits", " ".join(here.get(n, f"bit{n}") for n in _numbers(bits))


def _numbers(mask: int) -> list[int]:
    return [n for n in range(64) if mask >> n & 1]
