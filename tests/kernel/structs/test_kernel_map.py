"""The kernel's page tables: what is known of its addresses, and the frames of struct pages."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pagewalk.kernel.structs.direct_map import DirectMap, MemMap
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.kernel_map import (
    FrameRanges,
    apart,
    frames_of,
    kernel_leaves,
    memmap_frames,
)
from pagewalk.model.columns import join
from pagewalk.pagetables.format import Arch
from pagewalk.proc.frames import Frames
from pagewalk.proc.iomem import read_ranges
from tests.kernel_says import PAGE, read_folio_flags
from tests.live.bracket import look_again

KPF_RESERVED = np.uint64(1 << 32)


def test_frames_that_come_twice_are_there_once() -> None:
    ranges = FrameRanges(np.array([30, 10, 12, 20, 10]), np.array([5, 4, 2, 10, 1]))
    found = apart(ranges)
    assert found.pfn.tolist() == [10, 20]
    assert found.pages.tolist() == [4, 15]
    assert len(apart(FrameRanges(ranges.pfn[:0], ranges.pages[:0]))) == 0


@pytest.mark.live
@pytest.mark.vmshort
def test_the_direct_map_stands_for_each_frame_of_ram(
    kernel: Kernel, direct_map: DirectMap, arch: Arch
) -> None:
    # A range in the middle of RAM: some of its frames may be mapped nowhere (secret memory).
    first, last = max(read_ranges(), key=lambda ram: ram[1] - ram[0])
    some = np.array([[first, min(last, first + (1 << 15))]], np.uint64) * np.uint64(PAGE)
    ranges = direct_map.addresses(some)
    leaves = join(list(kernel_leaves(kernel, direct_map, arch, ranges)))
    frames = frames_of(leaves)
    own = (leaves.addr - np.uint64(direct_map.base)) // np.uint64(PAGE)
    assert (frames.pfn == own.astype(np.int64)).all()
    whole = apart(frames)
    assert whole.pages.sum() > (1 << 14)
    assert whole.pfn[0] >= first and whole.pages.sum() <= 1 << 15


@pytest.mark.live
@pytest.mark.vmshort
def test_the_kernel_is_where_iomem_says(
    kernel: Kernel, direct_map: DirectMap, arch: Arch
) -> None:
    symbols, iomem = (Path(f"/proc/{name}").read_text() for name in ("kallsyms", "iomem"))
    text = re.search(r"(?m)^([0-9a-f]+) T _text$", symbols)
    code = re.search(r"(?m)^ *([0-9a-f]+)-[0-9a-f]+ : Kernel code$", iomem)
    assert text and code
    start = int(text[1], 16)
    ranges = np.array([[start, start + PAGE]], np.uint64)
    leaves = join(list(kernel_leaves(kernel, direct_map, arch, ranges)))
    assert frames_of(leaves).pfn.tolist() == [int(code[1], 16) // PAGE]


@pytest.mark.live
@pytest.mark.vmshort
def test_struct_pages_are_in_frames_that_the_kernel_reserved(
    kernel: Kernel, direct_map: DirectMap, arch: Arch, mem_map: MemMap, kpage: Frames
) -> None:
    def look() -> None:
        vmstat = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
        found = memmap_frames(kernel, direct_map, arch, mem_map)
        if "nr_memmap_boot_pages" in vmstat:  # since 6.11
            told = int(vmstat["nr_memmap_boot_pages"]) + int(vmstat["nr_memmap_pages"])
            assert found.pages.sum() == told
        ram = sum(last - first for first, last in read_ranges())
        assert found.pages.sum() >= ram * mem_map.size // PAGE

    look_again(look)
    found = memmap_frames(kernel, direct_map, arch, mem_map)
    flags = read_folio_flags(found.pfn.astype(np.uint64))
    assert (flags & KPF_RESERVED != 0).any()
