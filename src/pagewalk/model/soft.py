"""Software entries: the meaning of type and offset in an entry that is not present. No I/O.

Page tables and pagemap hold the same two numbers, each packed its own way; what they mean depends
on the kernel alone. Source: include/linux/swap.h, include/linux/swapops.h.
"""

from __future__ import annotations

from collections.abc import Container
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np

from pagewalk.model.columns import U32, U64, Bool, Flag

# What the bits of a marker's offset say (PTE_MARKER_*); they combine.
MARKERS = {1: Flag.UFFD_WP, 2: Flag.HWPOISON, 4: Flag.GUARD}

# The kinds of entry; the first that matches.
_KINDS = (Flag.MARKER, Flag.SWAP, Flag.MIGRATION, Flag.DEVICE, Flag.HWPOISON)

# The entries of these kinds name a page frame, unless they are markers.
FRAMED = np.uint32(Flag.MIGRATION | Flag.DEVICE | Flag.HWPOISON)
_MARKER = np.uint32(Flag.MARKER)

TYPE_BITS = 5
TYPES = 1 << TYPE_BITS

# numpy's stubs take an int beside a u64 for signed: hence the ignores below
_Word = TypeVar("_Word", int, U64)


class SwapTypes(NamedTuple):
    """The meaning of the type numbers on one kernel.

    Types below ``swapfiles`` are swap devices. The other ranges depend on the release and on three
    configuration symbols (see ``counted``); a type in none of them is kept as Flag.SOFT alone.
    The default holds for every kernel: 22 is the smallest MAX_SWAPFILES.
    """

    swapfiles: int = 22
    hwpoison: range = range(0)
    migration: range = range(0)
    device: range = range(0)
    marker: range = range(0)
    swapin_error: range = range(0)

    @classmethod
    def counted(
        cls, hwpoison: int, migration: int, device: int, marker: int, swapin_error: int = 0
    ) -> SwapTypes:
        """Return the ranges of a kernel with that many types of each kind, 0 if not built in.

        They fill the 32 types from the top, in this order (include/linux/swap.h, MAX_SWAPFILES).
        """
        counts = (hwpoison, migration, device, marker, swapin_error)
        edge = [TYPES - sum(counts[i:]) for i in range(len(counts) + 1)]
        return cls(edge[0], *(range(a, b) for a, b in pairwise(edge)))

    def flags(self) -> U32:
        """Return u32[32], the Flag bits of each type number."""
        words = np.full(TYPES, Flag.SOFT.value, np.uint32)
        words[: self.swapfiles] |= np.uint32(Flag.SWAP)
        for flag, types in (
            (Flag.HWPOISON, self.hwpoison),
            (Flag.MIGRATION, self.migration),
            (Flag.DEVICE, self.device),
            (Flag.MARKER, self.marker),
            # 6.2 made this type the marker that is now called poison
            (Flag.MARKER | Flag.HWPOISON, self.swapin_error),
        ):
            words[types.start : types.stop] |= np.uint32(flag)
        return words


def swap_types(release: tuple[int, int], config: Container[str] | None) -> SwapTypes:
    """Return the swap type numbers of kernel ``release`` with the symbols in ``config`` built in.

    If the configuration cannot be read (None), only two things are certain: types below 22, the
    lowest MAX_SWAPFILES of any kernel, are swap devices, and since 6.8 type 31 is the marker.
    Source: include/linux/swap.h.
    """
    if config is None:
        return SwapTypes(marker=range(31, 32)) if release >= (6, 8) else SwapTypes()

    def built(symbol: str, count: int) -> int:
        return count if symbol in config else 0

    device = 3 if release >= (6, 15) else 4 if release >= (5, 14) else 2
    marker = 1 if release >= (6, 8) else built("CONFIG_PTE_MARKER", 1) * (release >= (5, 19))
    return SwapTypes.counted(
        hwpoison=built("CONFIG_MEMORY_FAILURE", 1),
        migration=built("CONFIG_MIGRATION", 3 if release >= (6, 0) else 2),
        device=built("CONFIG_DEVICE_PRIVATE", device),
        marker=marker,
        swapin_error=int((5, 19) <= release < (6, 8)),
    )


def decode(types: SwapTypes, kind: U64, offset: U64) -> tuple[U32, U64]:
    """Return (flags u32, pfn u64) of entries by their type and their offset, u64[n].

    The pfn is 0 where an entry names no frame (see ``names_frame``).
    """
    flags: U32 = types.flags()[kind.view(np.int64)]
    marker = flags & _MARKER != 0
    for bit, flag in MARKERS.items():
        flags[marker & (offset & np.uint64(bit) != 0)] |= np.uint32(flag)
    return flags, np.where(names_frame(flags), offset, np.uint64(0))


def names_frame(flags: U32) -> Bool:
    """Return which software entries, by their ``flags``, have a page frame as their offset."""
    framed: Bool = (flags & FRAMED != 0) & (flags & _MARKER == 0)
    return framed


def kind_name(flags: Flag) -> str:
    """Return the kind of software entry that ``flags`` belong to, in a word."""
    kinds = (flag.name.lower() for flag in _KINDS if flag in flags and flag.name)
    return next(kinds, "software entry")


def mark_names(offset: int) -> list[str]:
    """Return what the offset of a marker says, in words."""
    return [flag.name.lower() for bit, flag in MARKERS.items() if offset & bit and flag.name]


def pack(kind: _Word, offset: _Word) -> _Word:
    """Return type and offset as one number, as in pagemap, with the type in bits 0 to 4."""
    return kind | offset << TYPE_BITS  # type: ignore[return-value]


def unpack(payload: _Word) -> tuple[_Word, _Word]:
    """Return the type and the offset that ``pack`` combined."""
    return payload & TYPES - 1, payload >> TYPE_BITS  # type: ignore[return-value]
