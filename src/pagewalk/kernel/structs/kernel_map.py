"""The kernel's own page tables: which frames its addresses outside the direct map stand for.

All processes have the same upper half of the top table, so our own leads to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from pagewalk.kernel.readers.memory import PAGE, read_pages
from pagewalk.kernel.structs.direct_map import DirectMap, MemMap, own_pgd
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.model.columns import I64, U64, Bool, Flag, Leaves, Rows, join, take
from pagewalk.pagetables.format import PMD, Arch
from pagewalk.pagetables.walk import walk_tables

_BACKED = np.uint32(Flag.PRESENT | Flag.PROT_NONE)
_RETRIES = 3


class FrameRanges(Rows):
    """Ranges of frames: ``pfn`` the first (i64), ``pages`` how many (i64)."""

    pfn: I64
    pages: I64


NO_FRAMES = FrameRanges(np.zeros(0, np.int64), np.zeros(0, np.int64))


def kernel_leaves(
    kernel: Kernel, direct_map: DirectMap, arch: Arch, ranges: U64
) -> Iterator[Leaves]:
    """Yield the present leaves that map kernel addresses ``ranges``, in batches.

    ``ranges`` u64[k, 2] half open, sorted, disjoint, page aligned. A frame need not be RAM: devices
    are mapped too. Raises OSError if our own top table cannot be read.
    """
    # The walk knows the lower half of a top table; here it is given the upper half as that.
    root, upper = own_pgd(kernel) - direct_map.base, np.uint64((1 << 64) - arch.user_end)

    def read_tables(phys: U64) -> tuple[U64, Bool]:
        words, errno = read_pages(kernel.memory, direct_map.addresses(phys))
        top = phys == np.uint64(root)
        if top.any():
            words = words.copy()
            words[top] = np.roll(words[top], words.shape[1] // 2, axis=1)
        return words, errno == 0

    everywhere = replace(arch, era=arch.era._replace(devices=True))
    for entries in walk_tables(everywhere, root, read_tables, ranges - upper, retries=_RETRIES):
        leaves = entries.leaves
        leaves = take(leaves, leaves.flags & _BACKED == np.uint32(Flag.PRESENT))
        if len(leaves):
            yield replace(leaves, addr=leaves.addr + upper)


def memmap_frames(
    kernel: Kernel, direct_map: DirectMap, arch: Arch, mem_map: MemMap
) -> FrameRanges:
    """Return the frames that hold the struct pages of RAM, each once, ascending; raises OSError."""
    # The last section of RAM has struct pages for all of it: as many as one PMD maps.
    step = 1 << arch.level(PMD).shift
    end = mem_map.base + (arch.last_ram_frame + 1) * mem_map.size
    ranges = np.array([[mem_map.base, -(-end // step) * step]], np.uint64)
    parts = [frames_of(leaves) for leaves in kernel_leaves(kernel, direct_map, arch, ranges)]
    return apart(join([*parts, NO_FRAMES]))


def frames_of(leaves: Leaves) -> FrameRanges:
    """Return the frames of each leaf, in the same order."""
    assert leaves.pfn is not None
    pages = (leaves.size // np.uint64(PAGE)).astype(np.int64)
    return FrameRanges(leaves.pfn.astype(np.int64), pages)


def apart(ranges: FrameRanges) -> FrameRanges:
    """Return the frames of ``ranges``, in any order and some of them repeated, each once."""
    if not len(ranges):
        return ranges
    order = np.argsort(ranges.pfn, kind="stable")
    first = ranges.pfn[order]
    last = np.maximum.accumulate(first + ranges.pages[order])
    begins = np.append(True, first[1:] > last[:-1])
    ends = np.append(begins[1:], True)
    return FrameRanges(first[begins], last[ends] - first[begins])
