"""Entries of x86-64 tables, word by word, with their bits explained in the comments."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.model.columns import Flag
from pagewalk.model.soft import SwapTypes
from pagewalk.pagetables.arch import ARCHES
from pagewalk.pagetables.format import Arch, Era, Level

ONES = (1 << 64) - 1
# The 6.18 kernel on which the raw words below were recorded: no hwpoison, no device types, so
# 32 - 3 - 1 = 28 swap files, migration 28..30, marker 31.
RECORDED = SwapTypes.counted(hwpoison=0, migration=3, device=0, marker=1)
FULL = SwapTypes.counted(hwpoison=1, migration=3, device=3, marker=1)
X86 = ARCHES["x86_64"].on(4, Era((6, 18), 52, swap=RECORDED))
PUD, PMD, PTE = X86.levels[1:]


def decode(entry: int, level: Level = PTE, arch: Arch = X86) -> tuple[Flag, int]:
    flags, pfn = arch.decode(np.array([entry], np.uint64), level)
    return Flag(int(flags[0])), int(pfn[0])


def is_none(entry: int, level: Level = PTE) -> bool:
    return bool(X86.none(np.array([entry], np.uint64), level)[0])


def is_table(entry: int, level: Level) -> bool:
    return bool(X86.table(np.array([entry], np.uint64), level)[0])


def is_reserved(entry: int, level: Level, arch: Arch = X86) -> bool:
    return bool(arch.reserved(np.array([entry], np.uint64), level)[0])


def software(kind: int, offset: int, low: int = 0) -> int:
    """Encode as __swp_entry() does: type in 59-63, the inverse of the offset in 9-58."""
    return kind << 59 | (~offset & (1 << 50) - 1) << 9 | low


def test_the_zero_page_recorded_from_a_kernel() -> None:
    # 0x8000000003b34225: NX, frame 0x3b34, 0x225 = special 0x200, accessed 0x20, user 4, present 1
    flags, pfn = decode(0x8000_0000_03B3_4225)
    assert pfn == 0x3B34
    assert flags == Flag.PRESENT | Flag.SPECIAL | Flag.ACCESSED | Flag.USER


def test_a_page_of_a_pfn_map_recorded_from_a_kernel() -> None:
    # 0x8000000243ca7225: the same bits, frame 0x243ca7
    assert decode(0x8000_0002_43CA_7225) == (
        Flag.PRESENT | Flag.SPECIAL | Flag.ACCESSED | Flag.USER,
        0x243CA7,
    )


@pytest.mark.parametrize(
    ("bits", "flag"),
    [
        (1 << 1, Flag.WRITE),
        (1 << 2, Flag.USER),
        (1 << 5, Flag.ACCESSED),
        (1 << 6, Flag.DIRTY),
        (1 << 9, Flag.SPECIAL),
        (1 << 10, Flag.UFFD_WP),
        (1 << 11, Flag.SOFT_DIRTY),
        (1 << 58, Flag.DIRTY),
        # memory types, global, bits 52 and 57 and the protection key give no flags
        (1 << 3 | 1 << 4 | 1 << 7 | 1 << 8 | 1 << 52 | 1 << 57 | 0xF << 59, Flag(0)),
    ],
)
def test_each_bit_of_a_present_page(bits: int, flag: Flag) -> None:
    assert decode(0x1234_5001 | bits) == (Flag.PRESENT | Flag.EXEC | flag, 0x12345)
    assert decode(0x1234_5001 | bits | 1 << 63) == (Flag.PRESENT | flag, 0x12345)


@pytest.mark.parametrize(
    ("release", "bit", "flag"),
    [
        # bit 58 was device memory up to 6.5, and 57 up to 6.14; since 6.6 58 is saved-dirty
        ((6, 1), 58, Flag.DEVICE | Flag.SPECIAL),
        ((6, 5), 58, Flag.DEVICE | Flag.SPECIAL),
        ((6, 5), 57, Flag(0)),
        ((6, 6), 58, Flag.DIRTY),
        ((6, 6), 57, Flag.DEVICE | Flag.SPECIAL),
        ((6, 14), 57, Flag.DEVICE | Flag.SPECIAL),
        ((6, 15), 58, Flag.DIRTY),
        ((6, 15), 57, Flag(0)),
    ],
)
def test_bits_57_and_58_mean_what_this_kernel_uses_them_for(
    release: tuple[int, int], bit: int, flag: Flag
) -> None:
    arch = ARCHES["x86_64"].on(4, Era(release, 52))
    assert decode(0x7001 | 1 << bit, arch=arch) == (Flag.PRESENT | Flag.EXEC | flag, 7)


def test_prot_none_has_an_inverted_frame_and_no_rights() -> None:
    # frame 0x12345 inverted in bits 12-51: 0x000fffffedcba000; global 0x100 without present,
    # accessed 0x20, dirty 0x40; stray write and user bits grant nothing
    word = 0x000F_FFFF_EDCB_A000 | 0x160
    expected = Flag.PRESENT | Flag.PROT_NONE | Flag.ACCESSED | Flag.DIRTY
    assert decode(word) == (expected, 0x12345)
    assert decode(word | 0x6) == (expected, 0x12345)
    # the bits for special and userfaultfd remain
    assert decode(word | 0x600)[0] == expected | Flag.SPECIAL | Flag.UFFD_WP


def test_an_encryption_bit_is_not_part_of_a_frame() -> None:
    # this machine's C-bit is 47; whether or not an inverted frame inverts it, it is ignored
    arch = ARCHES["x86_64"].on(4, Era((6, 18), 52, encryption=1 << 47))
    assert decode(1 << 47 | 0x1234_5067, arch=arch)[1] == 0x12345
    assert decode(0x000F_FFFF_EDCB_A100, arch=arch)[1] == 0x12345
    assert decode(0x000F_FFFF_EDCB_A100 & ~(1 << 47), arch=arch)[1] == 0x12345
    named = arch.address(np.array([1 << 47 | 0x20_0067], np.uint64))
    assert named.tolist() == [0x20_0000]


@pytest.mark.parametrize(
    ("word", "none"),
    [
        (0, True),
        # the erratum's bits 5 and 6
        (0x20, True),
        (0x60, True),
        (0x1, False),
        (0x100, False),
        (1 << 63, False),
        (0xFFFF_FFFF_FFFF_FC00, False),
    ],
)
def test_which_slots_are_empty(word: int, none: bool) -> None:
    assert [is_none(word, level) for level in X86.levels] == [none] * 4


@pytest.mark.parametrize(
    ("entry", "flags", "pfn"),
    [
        # recorded: slot 31 of device 0
        (0x07FF_FFFF_FFFF_C000, Flag.SOFT | Flag.SWAP, 0),
        # recorded: the three markers, type 31, offsets 1, 2 and 4
        (0xFFFF_FFFF_FFFF_FC00, Flag.SOFT | Flag.MARKER | Flag.UFFD_WP, 0),
        (0xFFFF_FFFF_FFFF_FA00, Flag.SOFT | Flag.MARKER | Flag.HWPOISON, 0),
        (0xFFFF_FFFF_FFFF_F600, Flag.SOFT | Flag.MARKER | Flag.GUARD, 0),
        # a guard that is write-protected too: offset 5
        (software(31, 5), Flag.SOFT | Flag.MARKER | Flag.GUARD | Flag.UFFD_WP, 0),
        # swap, device 27 (the last), soft-dirty 2, uffd-wp 4, exclusive 8
        (software(27, 1 << 40, 0xE), Flag.SOFT | Flag.SWAP | Flag.SOFT_DIRTY | Flag.UFFD_WP, 0),
        # migration: frame 0x12345, with young and dirty above the 34 bits of a frame
        (software(28, 3 << 34 | 0x12345), Flag.SOFT | Flag.MIGRATION, 0x12345),
        (software(30, 0x12345), Flag.SOFT | Flag.MIGRATION, 0x12345),
    ],
)
def test_software_entries(entry: int, flags: Flag, pfn: int) -> None:
    assert decode(entry) == (flags, pfn)
    assert not is_none(entry)
    assert not is_reserved(entry, PTE)


def test_type_and_offset_of_the_recorded_swap_slot() -> None:
    kind, offset = X86.soft(np.array([0x07FF_FFFF_FFFF_C000, software(9, 77)], np.uint64))
    assert kind.tolist() == [0, 9]
    assert offset.tolist() == [31, 77]


def test_five_levels_have_40_bits_of_frame_in_a_migration_entry() -> None:
    five = ARCHES["x86_64"].on(5, Era((6, 18), 52, swap=RECORDED))
    entry = software(28, 1 << 39 | 0x12345)
    assert decode(entry, arch=five) == (Flag.SOFT | Flag.MIGRATION, 1 << 39 | 0x12345)
    assert decode(entry)[1] == 0x12345


@pytest.mark.parametrize(
    ("types", "meant"),
    [
        # everything built in, 6.18: 24 swap files, then hwpoison, migration, device, marker
        (
            FULL,
            {
                23: Flag.SWAP,
                24: Flag.HWPOISON,
                25: Flag.MIGRATION,
                27: Flag.MIGRATION,
                28: Flag.DEVICE,
                30: Flag.DEVICE,
                31: Flag.MARKER,
            },
        ),
        # 6.1 with everything: 22 swap files; the marker is 30, and 31 a failed swap-in
        (
            SwapTypes.counted(hwpoison=1, migration=3, device=4, marker=1, swapin_error=1),
            {
                21: Flag.SWAP,
                22: Flag.HWPOISON,
                23: Flag.MIGRATION,
                25: Flag.MIGRATION,
                26: Flag.DEVICE,
                29: Flag.DEVICE,
                30: Flag.MARKER,
                31: Flag.MARKER | Flag.HWPOISON,
            },
        ),
        # unknown configuration
        (SwapTypes(), {21: Flag.SWAP, 22: Flag(0), 30: Flag(0), 31: Flag(0)}),
    ],
)
def test_swap_types_by_kernel(types: SwapTypes, meant: dict[int, Flag]) -> None:
    flags = types.flags()
    assert len(flags) == 32
    assert {kind: Flag(int(flags[kind])) for kind in meant} == {
        kind: Flag.SOFT | flag for kind, flag in meant.items()
    }


def test_frames_of_hwpoison_and_device_entries() -> None:
    arch = ARCHES["x86_64"].on(4, Era((6, 18), 52, swap=FULL))
    assert decode(software(24, 0x777), arch=arch) == (Flag.SOFT | Flag.HWPOISON, 0x777)
    assert decode(software(29, 0x888), arch=arch) == (Flag.SOFT | Flag.DEVICE, 0x888)


@pytest.mark.parametrize(
    ("word", "flags", "pfn"),
    [
        # 0x80 is PSE, 0x1000 PAT; frame 0x600
        (0x60_00E7, Flag.PRESENT | Flag.WRITE | Flag.USER | Flag.EXEC, 0x600),
        (0x60_10E7, Flag.PRESENT | Flag.WRITE | Flag.USER | Flag.EXEC, 0x600),
        # PROT_NONE: pmd_modify() inverts bits 21-51 only: ~0x600000 there is 0x000fffffff800000
        (0x000F_FFFF_FF80_01E0, Flag.PRESENT | Flag.PROT_NONE, 0x600),
        # hugetlb: pte_modify() inverts bits 12-51
        (0x000F_FFFF_FF9F_F1E0, Flag.PRESENT | Flag.PROT_NONE, 0x600),
        # being split: neither present nor PROT_NONE, only PSE
        (0x000F_FFFF_FF80_00E0, Flag.PRESENT, 0x600),
    ],
)
def test_a_huge_page_in_each_of_its_states(word: int, flags: Flag, pfn: int) -> None:
    assert not is_none(word, PMD)
    assert not is_table(word, PMD)
    assert not is_reserved(word, PMD)
    # each word has accessed 0x20 and dirty 0x40
    assert decode(word, PMD) == (flags | Flag.HUGE | Flag.ACCESSED | Flag.DIRTY, pfn)


def test_software_entries_occur_at_the_pmd_too() -> None:
    entry = software(29, 0x600)
    assert decode(entry, PMD) == (Flag.SOFT | Flag.MIGRATION | Flag.HUGE, 0x600)
    assert not is_reserved(entry, PMD)
    assert not is_reserved(entry, PUD)


@pytest.mark.parametrize(
    ("level", "word", "reserved"),
    [
        # low frame bits in a huge leaf (bit 13; bit 12 is PAT), at each size
        (PMD, 0x60_20E7, True),
        (PUD, 0x4000_00E7, False),
        (PUD, 0x4020_00E7, True),
        # PROT_NONE in a table's entry, which no kernel writes
        (PMD, 0x2_0100, True),
        # PSE in the PGD; a software entry there
        (X86.levels[0], 0x2_00E7, True),
        (X86.levels[0], software(0, 31), True),
        # a swap entry has bit 7 clear
        (PTE, software(0, 31, 0x80), True),
        (PTE, software(0, 31, 0x10), False),
        (PTE, 0x2_00E7, False),
    ],
)
def test_reserved_bits(level: Level, word: int, reserved: bool) -> None:
    assert is_reserved(word, level) is reserved


def test_table_entries() -> None:
    assert is_table(0x2_0067, PMD)
    assert not is_table(0x60_00E7, PMD)
    assert not is_table(software(29, 0x600), PMD)


def test_plain_bits_exclude_everything_but_ordinary_pages() -> None:
    arch = ARCHES["x86_64"].on(4, Era((6, 14), 52))
    bits_set, bits_clear = arch.plain()
    for word, plain in (
        (0x7067, True),
        (0x7067 | 1 << 63, True),
        (0x7267, False),
        (0x7067 | 1 << 57, False),
        (0x000F_FFFF_EDCB_A160, False),
        (0xFFFF_FFFF_FFFF_FC00, False),
        (0x07FF_FFFF_FFFF_C000, False),
    ):
        assert (word & bits_set == bits_set and not word & bits_clear) is plain


@pytest.mark.parametrize(
    ("entry", "level", "told"),
    [
        (0, PTE, {"kind": "none", "bits": ""}),
        (0x20, PTE, {"kind": "none", "bits": "accessed"}),
        (
            0x2_0000_5067,
            PMD,
            {"kind": "table", "table": 0x2_0000_5000, "bits": "present write user accessed dirty"},
        ),
        (
            0x8000_0000_03B3_4225,
            PTE,
            {
                "kind": "4 KiB page",
                "pfn": 0x3B34,
                "phys": 0x3B3_4000,
                "rights": "user",
                "dirty": "no",
                "accessed": "yes",
                "pkey": 0,
                "bits": "present user accessed special nx",
            },
        ),
        (
            # protection key 5 is bits 59 and 61; saved-dirty is bit 58; bit 52 is unused
            5 << 59 | 1 << 58 | 1 << 52 | 0x60_10A7,
            PMD,
            {
                "kind": "2 MiB page",
                "pfn": 0x600,
                "phys": 0x60_0000,
                "rights": "write user exec",
                "dirty": "yes",
                "accessed": "yes",
                "pkey": 5,
                "bits": "present write user accessed pse pat bit52 saved_dirty",
            },
        ),
        (
            0x000F_FFFF_EDCB_A160,
            PTE,
            {
                "kind": "4 KiB page",
                "pfn": 0x12345,
                "phys": 0x1234_5000,
                "rights": "none: PROT_NONE or a NUMA hint",
                "dirty": "yes",
                "accessed": "yes",
                "pkey": 0,
                "bits": "accessed dirty prot_none",
                "stored": "the frame is inverted, against L1TF",
            },
        ),
        (
            0x07FF_FFFF_FFFF_C00A,
            PTE,
            {"kind": "swap", "type": 0, "offset": 31, "bits": "soft_dirty exclusive"},
        ),
        (
            0xFFFF_FFFF_FFFF_F600,
            PTE,
            {"kind": "marker", "type": 31, "offset": 4, "marks": "guard", "bits": ""},
        ),
        (
            software(29, 0x12345),
            PTE,
            {"kind": "migration", "type": 29, "offset": 0x12345, "pfn": 0x12345, "bits": ""},
        ),
        (0x2_00E7, X86.levels[0], {"kind": "reserved"}),
    ],
)
def test_an_entry_in_words(entry: int, level: Level, told: dict[str, int | str]) -> None:
    said = dict(X86.describe(entry, level))
    if told["kind"] == "reserved":
        # every set bit is still named
        assert said["kind"] == "reserved"
        assert said["bits"] == "present write user accessed dirty pse bit17"
    else:
        assert said == told


@pytest.mark.parametrize(
    ("cpuinfo", "bits", "encryption"),
    [
        (b"address sizes\t: 46 bits physical, 48 bits virtual\n", 46, 0x3F << 46),
        # an EPYC with SME: 48 bits, of which encryption takes 5; its C-bit is 47
        (b"address sizes\t: 43 bits physical, 48 bits virtual\n", 43, 0x1FF << 43),
        (b"address sizes\t: 52 bits physical, 57 bits virtual\n", 52, 0),
        (b"", 52, 0),
    ],
)
def test_the_cpu_tells_the_width_of_an_address(cpuinfo: bytes, bits: int, encryption: int) -> None:
    arch = ARCHES["x86_64"]
    era = arch.era_of((6, 12), b"flags\t: fpu vme\n" + cpuinfo, FULL)
    assert era == Era((6, 12), bits, encryption=encryption, swap=FULL)
    # bits 12 to 51 are an address, less those of encryption
    assert arch.on(4, era).frame_mask == (1 << bits) - (1 << 12)


def test_the_legend_has_each_bit_of_a_present_page_once() -> None:
    present = ARCHES["x86_64"].legend[:13]
    assert [row.bit for row in present] == [*range(12), 63]
    assert len({row.name for row in present}) == 13


def test_the_protection_key_is_in_bits_32_to_35_of_vm_flags() -> None:
    # VM_HIGH_ARCH_BIT_0 to _3 (include/linux/mm.h); bit 36 is the next architecture bit
    arch = ARCHES["x86_64"]
    assert arch.protection_key(5 << 32 | 1 << 36 | 0xFFFF_FFFF) == 5
    assert arch.vm_flag_codes((6, 1)) == {32: "", 33: "", 34: "", 35: "", 36: ""}
    assert arch.vm_flag_codes((6, 6))[37] == "ss"
