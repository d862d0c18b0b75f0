"""The frames that stand for "all zero": the shared zero page and the huge zero page."""

from __future__ import annotations

import ctypes
import mmap
from typing import NamedTuple

from pagewalk.kmem.directmap import DirectMap, MemMap, own_mm, translate
from pagewalk.kmem.kernel import Kernel
from pagewalk.kmem.task import read_mm

_HUGE = 2 << 20


class ZeroFrames(NamedTuple):
    """Hold the PFNs of the zero page and of the huge zero page's first page.

    ``huge`` is None where the kernel maps none. ``pins`` are mappings of both: the huge zero page
    may be freed, and come again elsewhere, as soon as nobody maps it.
    """

    small: int
    huge: int | None
    pins: tuple[mmap.mmap, ...]


def find_zero_frames(kernel: Kernel, direct_map: DirectMap, mem_map: MemMap) -> ZeroFrames:
    """Find the zero frames by reading memory of our own that was never written."""
    pgd = read_mm(kernel, own_mm(kernel)).pgd
    small, huge = _anonymous(mmap.PAGESIZE), _anonymous(2 * _HUGE)
    huge.madvise(mmap.MADV_HUGEPAGE)
    at = -_address(huge) % _HUGE
    # The reads that make the kernel map the zero pages.
    if small[0] or huge[at]:
        raise AssertionError("fresh anonymous memory is zero")
    small_phys, _ = translate(kernel, direct_map, pgd, _address(small))
    huge_phys, shift = translate(kernel, direct_map, pgd, _address(huge) + at)
    pfn = huge_phys // mmap.PAGESIZE
    # With use_zero_page off the kernel gives an ordinary anonymous THP instead, with THP off the
    # small zero page.
    mapping = kernel.field("folio", mem_map.base + pfn * mem_map.size, "mapping")
    is_zero = shift == 21 and not mapping & 1
    return ZeroFrames(small_phys // mmap.PAGESIZE, pfn if is_zero else None, (small, huge))


def _anonymous(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _address(area: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(area))
