"""Open the running kernel through a reader: find its maps of RAM, prove its struct pages."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

from pagewalk.kmem import frames as struct_pages
from pagewalk.kmem.directmap import (
    DirectMap,
    find_direct_map,
    find_mem_map,
    own_mm,
    translate,
)
from pagewalk.kmem.kernel import Kernel
from pagewalk.kmem.process import Machine, paging_format
from pagewalk.kmem.task import read_mm
from pagewalk.kmem.verify import compare
from pagewalk.kmem.zero import find_zero_frames
from pagewalk.pages import Withheld
from pagewalk.proc.frames import FrameReader, open_frames
from pagewalk.proc.pagemap import PAGE

UNCONFIRMED = Withheld(
    "a second opinion on page frames",
    "struct page was read, but /proc/kpageflags and /proc/kpagecount, which would confirm it,"
    " may be read by root only",
    partial=False,
)
CONTRADICTED = Withheld(
    "page frames by struct page",
    "what was read differs from /proc/kpageflags on this kernel, so that is used, which is slower",
    partial=False,
)


def open_machine(kernel: Kernel, *, loads: bool = False) -> Machine:
    """Return the kernel ready to be walked; raises SourceUnavailable, Unsupported.

    ``loads``: programs may be loaded into it, beside what reads its memory.
    """
    try:
        direct_map = find_direct_map(kernel)
        mem_map = find_mem_map(kernel, direct_map)
        zero = find_zero_frames(kernel, direct_map, mem_map)
        arch = paging_format(direct_map)
        frame_map = struct_pages.open_frame_map(kernel, mem_map, zero, arch if loads else None)
        own = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        frames, notes = choose_frames(frame_map, written_frame(kernel, direct_map, own))
    except BaseException:
        kernel.close()
        raise
    pfns = np.array([zero.small] + ([] if zero.huge is None else [zero.huge]), np.uint64)
    return Machine(kernel, direct_map, mem_map, arch, frames, pfns, notes, frame_map.shortcuts)


def written_frame(kernel: Kernel, direct_map: DirectMap, own: mmap.mmap) -> int:
    """Return the PFN of ``own``, anonymous memory, after writing to it."""
    own[0] = 1
    address = ctypes.addressof(ctypes.c_char.from_buffer(own))
    phys, _ = translate(kernel, direct_map, read_mm(kernel, own_mm(kernel)).pgd, address)
    return phys // PAGE


def choose_frames(
    frames: struct_pages.FrameMap, own: int
) -> tuple[FrameReader, tuple[Withheld, ...]]:
    """Return struct pages as the frame database where they agree with the kernel's own files.

    The files are asked about a sample of frames; ``own`` is as Frames.proved has it. Where they
    may not be read (only root may) nothing contradicts, and the walk says that nothing confirmed
    either.
    """
    try:
        kpage = open_frames().proved(own)
    except OSError:
        return struct_pages.StructPages(frames), (UNCONFIRMED,)
    agreement = compare(frames, kpage, struct_pages.sample())
    if len(agreement.flags) or len(agreement.mapcount) or not agreement.compared:
        return kpage, (CONTRADICTED,)
    kpage.close()
    return struct_pages.StructPages(frames), ()
