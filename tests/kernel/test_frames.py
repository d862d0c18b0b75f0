"""Struct pages against /proc/kpageflags and /proc/kpagecount, frame by frame."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pagewalk.kernel.frames import read_struct_pages
from pagewalk.kernel.structs.struct_page import FrameMap
from pagewalk.kernel.verify import compare
from pagewalk.model.bits import KPF, kpf
from pagewalk.proc.frames import Frames
from tests import kernel_says
from tests.machine import alone, hugetlb, setting
from tests.targets import TARGETS, Running, start

pytestmark = pytest.mark.live

PAGE = mmap.PAGESIZE
ROUNDS = 50
PFN = np.uint64((1 << 55) - 1)
PRESENT = np.uint64(1 << 63)


def last_frame() -> int:
    # /proc/kpageflags ends with the last section (128 MiB) that contains RAM.
    with open("/proc/kpageflags", "rb", buffering=0) as file:
        low, high = 0, 1 << 40
        while low < high:
            middle = (low + high) // 2
            low, high = (
                (middle + 1, high) if os.pread(file.fileno(), 8, middle * 8) else (low, middle)
            )
    return low


def test_the_whole_machine(frames: FrameMap, kpage: Frames) -> None:
    compared, wrong_flags, wrong_counts = 0, [], []
    for first in range(0, last_frame(), 1 << 16):
        pfns = np.arange(first, min(first + (1 << 16), last_frame()), dtype=np.uint64)
        agreement = compare(frames, kpage, pfns)
        compared += agreement.compared
        wrong_flags += agreement.flags.tolist()
        wrong_counts += agreement.mapcount.tolist()
    assert compared > 100_000
    assert wrong_flags == []
    assert wrong_counts == []


def frames_of(running: Running) -> np.ndarray:
    parts = []
    for pid in running.pids:
        for vma in kernel_says.read_maps(pid):
            if vma.end < 1 << 47 and vma.end - vma.start < 4 << 30:
                words = kernel_says.read_pagemap(pid, vma.start, vma.end)
                parts.append(words[words & PRESENT != 0] & PFN)
    return np.unique(np.concatenate(parts))


# The target, and a flag that /proc/kpageflags must show for one of its frames, so that the
# comparison is known to include what the target is for.
KINDS = {
    "plain": ("anon", "swapbacked"),
    "zero_reads": ("zero_page",),
    "fork_cow": ("anon", "mmap"),
    "file_shared": ("mmap", "referenced"),
    "locked": ("mlocked", "unevictable"),
    "memfd": ("swapbacked",),
    "thp": ("thp", "head", "tail"),
    "thp_part": ("thp", "head", "tail"),
    "thp_split": ("thp", "head", "tail"),
    "huge_zero": ("thp", "zero_page"),
    "shmem_thp": ("thp", "swapbacked"),
    "file_thp": ("thp",),
    "hugetlb_private": ("huge", "head", "tail"),
    "hugetlb_fork": ("huge",),
    "hugetlb_pmd": ("huge",),
    "ksm": ("ksm", "anon"),
    "swap_private": ("anon", "swapbacked"),
    "packet_ring": ("mmap",),
}


@pytest.mark.parametrize("name", KINDS)
def test_targets(frames: FrameMap, kpage: Frames, prepare: Callable[..., None], name: str) -> None:
    prepare(*TARGETS[name].needs)
    with start(name, stopped=True) as running:
        pfns = frames_of(running)
        # Frames of libc change whenever another process starts: repeat until few of them do.
        for _ in range(ROUNDS):
            agreement = compare(frames, kpage, pfns)
            if agreement.compared > len(pfns) // 2:
                break
        rows = read_struct_pages(frames, pfns)
    seen = np.bitwise_or.reduce(rows.flags)
    for kind in KINDS[name]:
        assert seen & kpf(kind), kind
    assert agreement.compared > len(pfns) // 2
    assert agreement.flags.tolist() == []
    assert agreement.mapcount.tolist() == []


def test_hugetlb_folios_whose_struct_pages_are_shared(frames: FrameMap, kpage: Frames) -> None:
    # vm.hugetlb_optimize_vmemmap maps the tails' struct pages to one page, where every 64th looks
    # like a head: the 1024 frames of two huge pages must still have two heads.
    switch = Path("/proc/sys/vm/hugetlb_optimize_vmemmap")
    if not switch.exists():
        pytest.skip("this kernel has no CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP")
    with alone(), setting(switch, 1), hugetlb(), start("hugetlb_private", stopped=True) as running:
        pfns = frames_of(running)
        rows = read_struct_pages(frames, pfns)
        agreement = compare(frames, kpage, pfns)
    huge = rows.flags & kpf("huge") != 0
    heads = rows.flags & kpf("head") != 0
    assert np.count_nonzero(huge) == 2 * 512
    assert np.count_nonzero(huge & heads) == 2
    assert agreement.flags.tolist() == []
    assert agreement.mapcount.tolist() == []


def test_frames_that_change_all_the_time(frames: FrameMap, kpage: Frames) -> None:
    with start("churn") as running:
        for _ in range(20):
            agreement = compare(frames, kpage, frames_of(running))
            assert agreement.flags.tolist() == []
            assert agreement.mapcount.tolist() == []


def test_a_nonexistent_frame_has_an_errno(frames: FrameMap) -> None:
    # 2^40 frames are 4 PiB: above any RAM, and beyond the struct pages.
    rows = read_struct_pages(frames, np.array([1 << 40, 1], np.uint64))
    assert rows.errno[0] != 0
    assert rows.errno[1] == 0


def own_frames(area: mmap.mmap, pages: int) -> np.ndarray:
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    return kernel_says.read_pagemap(os.getpid(), address, address + pages * PAGE) & PFN


def test_young_is_what_the_idle_bitmap_leaves_behind(frames: FrameMap) -> None:
    # Marking a page idle clears the accessed bit in its page-table entry and keeps it as PG_young
    # (mm/page_idle.c); we do so for our own page only.
    bitmap = Path("/sys/kernel/mm/page_idle/bitmap")
    if not bitmap.exists():
        pytest.skip("this kernel has no idle page tracking (CONFIG_IDLE_PAGE_TRACKING)")
    area = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area[0] = 1
    frame = int(own_frames(area, 1)[0])
    fd = os.open(bitmap, os.O_RDWR)
    os.pwrite(fd, (1 << frame % 64).to_bytes(8, "little"), frame // 64 * 8)
    os.close(fd)
    rows = read_struct_pages(frames, np.array([frame], np.uint64))
    assert rows.young.tolist() == [True]
    assert int(rows.flags[0]) >> KPF["idle"] & 1
