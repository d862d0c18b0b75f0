"""The direct map and the array of struct pages, found on this kernel."""

from __future__ import annotations

import ctypes
import mmap
import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from pagewalk.kernel.structs.direct_map import (
    DirectMap,
    MemMap,
    candidates,
    find_direct_map,
    own_phys,
)
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.proc.zones import read_memory
from tests.kernel.own_memory import token_page

pytestmark = pytest.mark.live


def test_the_frame_is_the_one_in_pagemap(kernel: Kernel, direct_map: DirectMap) -> None:
    _page, address = token_page()
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        word = int.from_bytes(os.pread(file.fileno(), 8, address // mmap.PAGESIZE * 8), "little")
    assert word >> 63
    phys = own_phys(kernel, direct_map, address)
    assert phys // mmap.PAGESIZE == word & (1 << 55) - 1


def test_the_levels_are_those_the_cpu_uses(direct_map: DirectMap) -> None:
    # With LA57 in use the kernel's own half begins at 0xff..., with 4 levels at 0xffff8...
    levels = len(direct_map.arch.levels)
    assert levels == (5 if direct_map.base < 0xFFFF800000000000 else 4)
    assert levels == 4 or " la57 " in Path("/proc/cpuinfo").read_text()


def test_without_the_end_of_ram_bases_are_tried_a_few_at_a_time(
    kernel: Kernel, direct_map: DirectMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As with subset=pid, where /proc has no zoneinfo.
    nothing = read_memory()._replace(ram_end=None)
    monkeypatch.setattr("pagewalk.kernel.structs.direct_map.read_memory", lambda: nothing)
    assert find_direct_map(kernel) == direct_map
    five = direct_map.arch.on(5, direct_map.arch.era)
    pgd = 0xFF1100012345A000
    tried = list(islice(candidates(five, pgd), 3))
    assert max(map(len, tried)) <= 1 << 16
    gib = np.arange(sum(map(len, tried)), dtype=np.uint64) << np.uint64(30)
    nearest = np.uint64(pgd >> 30 << 30)
    np.testing.assert_array_equal(np.concatenate(tried), nearest - gib)


def test_struct_pages_are_an_array(mem_map: MemMap, kernel: Kernel, direct_map: DirectMap) -> None:
    # The index in the struct page of a page of ours is its address in pages, as
    # linear_page_index() returns it for a private mapping.
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page[0] = 1
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    phys = own_phys(kernel, direct_map, address)
    struct_page = mem_map.base + phys // mmap.PAGESIZE * mem_map.size
    assert kernel.field("folio", struct_page, "mapping") & 3 == 1
    assert kernel.field("folio", struct_page, "index") == address // mmap.PAGESIZE
