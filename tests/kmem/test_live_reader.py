"""The eBPF reader on this kernel: what it reads, what it refuses, what it leaves behind."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from pagewalk.kmem.bpf import REQUESTS, BpfMemory
from pagewalk.kmem.directmap import DirectMap, MemMap, translate
from pagewalk.kmem.kernel import Kernel
from pagewalk.kmem.memory import page_batches, read_bytes, read_pages, read_words
from pagewalk.kmem.task import find_task, read_mm

pytestmark = pytest.mark.live

TOKEN = os.urandom(64)


def token_page() -> tuple[mmap.mmap, int]:
    page = mmap.mmap(-1, mmap.PAGESIZE)
    page[: len(TOKEN)] = TOKEN
    return page, ctypes.addressof(ctypes.c_char.from_buffer(page))


def own_pgd(kernel: Kernel) -> int:
    mm = find_task(kernel, os.getpid()).mm
    assert mm is not None
    return read_mm(kernel, mm).pgd


def test_a_token_of_our_own_is_read_through_the_direct_map(
    kernel: Kernel, direct_map: DirectMap
) -> None:
    page, address = token_page()
    phys, shift = translate(kernel, direct_map, own_pgd(kernel), address)
    assert shift == 12
    assert read_bytes(kernel.memory, phys + direct_map.base, len(TOKEN)) == TOKEN
    # A later write is seen by a later read: it is the page, not a copy.
    page[0:8] = bytes(range(8))
    words, errors = read_pages(kernel.memory, direct_map.addresses(np.array([phys], np.uint64)))
    assert not errors.any()
    assert words[0, :1].tobytes() == bytes(range(8))
    assert words[0, 1:8].tobytes() == TOKEN[8:64]


def test_the_frame_is_the_one_in_pagemap(kernel: Kernel, direct_map: DirectMap) -> None:
    _page, address = token_page()
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        word = int.from_bytes(os.pread(file.fileno(), 8, address // mmap.PAGESIZE * 8), "little")
    assert word >> 63
    phys, _ = translate(kernel, direct_map, own_pgd(kernel), address)
    assert phys // mmap.PAGESIZE == word & (1 << 55) - 1


def test_the_levels_are_those_the_cpu_uses(direct_map: DirectMap) -> None:
    # With LA57 in use the kernel's own half begins at 0xff..., with 4 levels at 0xffff8...
    assert direct_map.levels == (5 if direct_map.base < 0xFFFF800000000000 else 4)
    assert direct_map.levels == 4 or " la57 " in Path("/proc/cpuinfo").read_text()


def test_each_request_has_its_own_errno(kernel: Kernel, direct_map: DirectMap) -> None:
    # User space, a non-canonical address, and between them a page of the direct map.
    good = own_pgd(kernel)
    addresses = np.array([good, 0x1000, good + 8, 0x8000_0000_0000_0000, good], np.uint64)
    words, errors = read_words(kernel.memory, addresses)
    assert errors[[0, 2, 4]].tolist() == [0, 0, 0]
    assert set(errors[[1, 3]].tolist()) <= {errno.EFAULT, errno.ERANGE}
    assert words[0] == words[4]
    with pytest.raises(OSError, match="0x1000"):
        read_bytes(kernel.memory, 0x1000, 8)
    with pytest.raises(OSError, match="cannot be read"):
        read_bytes(kernel.memory, 1 << 64, 8)


def test_more_requests_than_fit_in_one_run(kernel: Kernel) -> None:
    count = 3 * REQUESTS + 1
    addresses = np.full(count, kernel.current, np.uint64) + np.uint64(
        kernel.btf.offset("task_struct", "thread_pid")
    )
    addresses[REQUESTS] = 0
    words, errors = read_words(kernel.memory, addresses)
    expected = kernel.field("task_struct", kernel.current, "thread_pid")
    assert np.flatnonzero(errors).tolist() == [REQUESTS]
    assert (np.delete(words, REQUESTS) == expected).all()


def test_pages_are_decoded_where_the_kernel_wrote_them(kernel: Kernel) -> None:
    address = kernel.current // mmap.PAGESIZE * mmap.PAGESIZE
    addresses = np.full(600, address, np.uint64)
    owners = [words.base is not None for _, words, _ in page_batches(kernel.memory, addresses)]
    assert len(owners) > 1
    assert all(owners)


def test_closing_releases_every_descriptor_and_mapping() -> None:
    def left() -> tuple[list[str], int]:
        maps = Path("/proc/self/maps").read_text().count("anon_inode:bpf-map")
        return sorted(os.listdir("/proc/self/fd")), maps

    before = left()
    with BpfMemory() as memory:
        assert left() != before
        assert memory.current
    memory.close()
    assert left() == before


def test_struct_pages_are_an_array(mem_map: MemMap, kernel: Kernel, direct_map: DirectMap) -> None:
    # The index in the struct page of a page of ours is its address in pages, as
    # linear_page_index() returns it for a private mapping.
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page[0] = 1
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    phys, _ = translate(kernel, direct_map, own_pgd(kernel), address)
    struct_page = mem_map.base + phys // mmap.PAGESIZE * mem_map.size
    assert kernel.field("folio", struct_page, "mapping") & 3 == 1
    assert kernel.field("folio", struct_page, "index") == address // mmap.PAGESIZE
