"""Struct pages decoded with a wrong layout: the comparison with /proc notices."""

from __future__ import annotations

import ctypes
import mmap
import os

import numpy as np
import pytest

from pagewalk.kernel.structs.struct_page import FrameMap
from pagewalk.kernel.verify import compare
from pagewalk.proc.frames import Frames
from tests import kernel_says
from tests.kernel.test_frames import frames_of
from tests.machine import prepared
from tests.targets import start

pytestmark = pytest.mark.live


def test_a_wrong_layout_is_noticed(frames: FrameMap, kpage: Frames) -> None:
    # Takes bits 12 and up for bits 0 and up, as if the kernel had other flag numbers.
    layout = frames.layout._replace(low=frames.layout.high)
    with start("plain", stopped=True) as running:
        agreement = compare(frames._replace(layout=layout), kpage, frames_of(running))
    assert len(agreement.flags) > 100
    layout = frames.layout._replace(mapcount=frames.layout.refcount)
    with start("fork_cow", stopped=True) as running:
        agreement = compare(frames._replace(layout=layout), kpage, frames_of(running))
    assert len(agreement.mapcount) > 100


def test_a_huge_page_that_is_mapped_in_part_is_no_contradiction(
    frames: FrameMap, kpage: Frames
) -> None:
    huge = 2 << 20
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with prepared("thp"), mmap.mmap(-1, 2 * huge, flags=private) as held:
        held.madvise(mmap.MADV_HUGEPAGE)
        held[:] = b"x" * len(held)
        byte = ctypes.c_char.from_buffer(held)
        at = ctypes.addressof(byte)
        del byte  # which holds the mapping
        first = -at % huge
        whole = kernel_says.read_pagemap(os.getpid(), at + first, at + first + huge)
        held.madvise(mmap.MADV_DONTNEED, first + huge // 2, huge // 2)
        pfns = whole & kernel_says.PFN
        flags = kernel_says.read_folio_flags(pfns)
        agreement = compare(frames, kpage, np.sort(pfns))
    assert (flags & kernel_says.KPF_THP != 0).all()  # the kernel has not split it yet
    assert agreement.compared == 512 and agreement.holds
