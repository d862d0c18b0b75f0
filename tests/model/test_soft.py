"""Software entries: the numbers of their types by kernel, and that all readers of them agree."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.model.columns import U64, Flag
from pagewalk.model.soft import (
    TYPES,
    SwapTypes,
    decode,
    kind_name,
    mark_names,
    names_frame,
    pack,
    swap_types,
    unpack,
)
from pagewalk.pagetables.arch import ARCHES
from pagewalk.pagetables.format import Arch, Era
from pagewalk.proc import pagemap
from pagewalk.sources.pagemap import decode_soft

FULL = {
    "CONFIG_MEMORY_FAILURE": "y", "CONFIG_MIGRATION": "y", "CONFIG_DEVICE_PRIVATE": "y",
    "CONFIG_PTE_MARKER": "y",
}
THIS = {"CONFIG_MIGRATION": "y", "CONFIG_PTE_MARKER": "y"}


@pytest.mark.parametrize(
    ("release", "config", "swap", "hwpoison", "migration", "device", "marker"),
    [
        # MAX_SWAPFILES = 32 minus the numbers in use, which follow in this order.
        ((4, 14), FULL, 27, [27], [28, 29], [30, 31], []),
        ((5, 4), FULL, 27, [27], [28, 29], [30, 31], []),
        ((5, 15), FULL, 25, [25], [26, 27], [28, 29, 30, 31], []),
        ((6, 8), FULL, 23, [23], [24, 25, 26], [27, 28, 29, 30], [31]),
        ((6, 14), FULL, 23, [23], [24, 25, 26], [27, 28, 29, 30], [31]),
        ((6, 18), FULL, 24, [24], [25, 26, 27], [28, 29, 30], [31]),
        # A kernel without poison and device memory: migration is 28 to 30.
        ((6, 18), THIS, 28, [], [28, 29, 30], [], [31]),
        ((6, 18), {}, 31, [], [], [], [31]),
    ],
)
def test_types_above_the_swap_devices(
    release: tuple[int, int], config: dict[str, str], swap: int, hwpoison: list[int],
    migration: list[int], device: list[int], marker: list[int]
) -> None:
    types = swap_types(release, config)
    found = (types.hwpoison, types.migration, types.device, types.marker)
    assert [list(r) for r in found] == [hwpoison, migration, device, marker]
    assert types.swapfiles == swap


def test_in_6_1_the_marker_is_type_30_and_a_failed_swapin_31() -> None:
    types = swap_types((6, 1), FULL)
    assert (types.swapfiles, list(types.marker), list(types.swapin_error)) == (22, [30], [31])
    assert list(types.migration) == [23, 24, 25]
    assert list(types.device) == [26, 27, 28, 29]
    without = swap_types((6, 1), {"CONFIG_MIGRATION": "y"})
    assert (without.swapfiles, list(without.migration)) == (28, [28, 29, 30])
    assert len(without.marker) == 0


@pytest.mark.parametrize("release", [(5, 15), (6, 1), (6, 8), (6, 18)])
def test_without_the_configuration_only_certain_types_are_known(release: tuple[int, int]) -> None:
    types = swap_types(release, None)
    assert types.swapfiles == 22  # the lowest of any kernel
    assert [*types.hwpoison, *types.migration, *types.device] == []
    assert list(types.marker) == ([31] if release >= (6, 8) else [])


@pytest.mark.parametrize("config", [FULL, THIS, {}, None])
@pytest.mark.parametrize("release", [(4, 14), (5, 4), (5, 15), (6, 1), (6, 8), (6, 14), (6, 18)])
def test_no_type_has_two_meanings(release: tuple[int, int], config: dict[str, str] | None) -> None:
    types = swap_types(release, config)
    others = (types.hwpoison, types.migration, types.device, types.marker, types.swapin_error)
    claimed = [*range(types.swapfiles), *(number for numbers in others for number in numbers)]
    assert len(claimed) == len(set(claimed))
    assert set(claimed) <= set(range(32))


# MAX_PHYSMEM_BITS - PAGE_SHIFT of x86-64 with 4 and 5 levels: the bits of an offset for the frame.
FRAME_BITS = {4: 34, 5: 40}
# swp_offset_pfn() (include/linux/swapops.h) returns only the frame; young and dirty are above it.
OFFSETS = [1, 2, 3, 4, 5, 6, 7, 8, 31, 32, 0x12345, 1 << 33, 1 << 34, 3 << 34 | 0x777, 1 << 45]


def as_table_entry(kind: int, offset: int) -> int:
    """Encode as __swp_entry() of x86-64 does: type in 59-63, the inverse of the offset in 9-58."""
    return kind << 59 | (~offset & (1 << 50) - 1) << 9


def as_pagemap_word(kind: int, offset: int, *, framed: bool, frame_bits: int) -> int:
    """Encode as pte_to_pagemap_entry() (fs/proc/task_mmu.c) does."""
    shown = offset & (1 << frame_bits) - 1 if framed else offset
    return 1 << 62 | shown << 5 | kind


def by_table(arch: Arch, entries: list[int]) -> tuple[list[Flag], list[int]]:
    flags, pfn = arch.decode(np.array(entries, np.uint64), arch.levels[-1])
    return [Flag(word) for word in flags.tolist()], pfn.tolist()


def by_pagemap(types: SwapTypes, words: list[int]) -> tuple[list[Flag], U64]:
    column = np.array(words, np.uint64)
    flags, pfn = pagemap.flags_of(column), column & pagemap.PFN_BITS
    decode_soft(types, flags, pfn, np.arange(len(column)))
    return [Flag(word) for word in flags.tolist()], pfn


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("config", [FULL, THIS, {}, None])
@pytest.mark.parametrize("release", [(6, 1), (6, 12), (6, 18)])
def test_a_pagemap_word_and_a_table_entry_say_the_same(
    release: tuple[int, int], config: dict[str, str] | None, levels: int
) -> None:
    types = swap_types(release, config)
    arch = ARCHES["x86_64"].on(levels, Era(release, 52, swap=types))
    framed = {*types.hwpoison, *types.migration, *types.device}
    bits = FRAME_BITS[levels]
    cases = [(kind, offset) for kind in range(TYPES) for offset in OFFSETS]
    words = [
        as_pagemap_word(kind, offset, framed=kind in framed, frame_bits=bits)
        for kind, offset in cases
    ]
    seen, payload = by_pagemap(types, words)
    meant, frames = by_table(arch, [as_table_entry(*case) for case in cases])
    assert seen == meant
    for case, shown, frame, flags in zip(cases, payload.tolist(), frames, meant, strict=True):
        kind, offset = case
        assert Flag.SOFT in flags
        if kind in framed:
            assert shown == frame == offset & (1 << bits) - 1
        else:  # the number in pagemap is the slot
            assert frame == 0
            assert (shown & 31, shown >> 5) == case


@pytest.mark.parametrize(
    ("offset", "flags"),
    [
        # include/linux/swapops.h: PTE_MARKER_UFFD_WP, _POISONED and _GUARD
        (1, Flag.UFFD_WP),
        (2, Flag.HWPOISON),
        (4, Flag.GUARD),
        (5, Flag.UFFD_WP | Flag.GUARD),
        (8, Flag(0)),
    ],
)
def test_markers(offset: int, flags: Flag) -> None:
    types = swap_types((6, 18), THIS)
    found, pfn = decode(types, np.array([31], np.uint64), np.array([offset], np.uint64))
    assert Flag(int(found[0])) == Flag.SOFT | Flag.MARKER | flags
    assert pfn[0] == 0
    assert not names_frame(found)[0]
    assert mark_names(offset) == [flag.name.lower() for flag in flags if flag.name]


@pytest.mark.parametrize(
    ("release", "names"),
    [
        # include/linux/swap.h with everything built in, from type 21 up
        ((6, 1), ["swap", "hwpoison", *["migration"] * 3, *["device"] * 4, "marker", "marker"]),
        ((6, 12), ["swap", "swap", "hwpoison", *["migration"] * 3, *["device"] * 4, "marker"]),
        ((6, 18), [*["swap"] * 3, "hwpoison", *["migration"] * 3, *["device"] * 3, "marker"]),
    ],
)
def test_kinds_by_name(release: tuple[int, int], names: list[str]) -> None:
    flags = swap_types(release, FULL).flags()[21:].tolist()
    assert [kind_name(Flag(word)) for word in flags] == names
    assert kind_name(Flag.SOFT) == "software entry"


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("kind", [0, 1, 30, 31])
def test_pack_is_pagemaps_layout_and_unpack_takes_it_apart(kind: int, offset: int) -> None:
    assert pack(kind, offset) == offset * 32 + kind
    assert unpack(offset * 32 + kind) == (kind, offset)
    kinds, offsets = unpack(np.array([offset * 32 + kind], np.uint64))
    assert (kinds.tolist(), offsets.tolist()) == ([kind], [offset])
    assert pack(kinds, offsets).tolist() == [offset * 32 + kind]
    assert kinds.dtype == offsets.dtype == np.uint64
