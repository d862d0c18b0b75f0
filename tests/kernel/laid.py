"""Page tables laid out by hand, in memory of our own, and where the kernel sees them."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

from pagewalk.kernel.structs.direct_map import DirectMap, own_phys
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.model.columns import U64
from tests.memory import PAGE, SLOTS

FRAME = 0x1234  # a frame of RAM on every machine
SPECIAL = 1 << 9


class Laid:
    """Pages of ours that serve as page tables, and their addresses in the kernel.

    It may move them at any moment, to make room for a huge page: then a test looks again.
    """

    def __init__(self, kernel: Kernel, direct_map: DirectMap, count: int) -> None:
        self.area = mmap.mmap(-1, count * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.area.madvise(mmap.MADV_NOHUGEPAGE)
        self.words = np.frombuffer(self.area, np.uint64).reshape(count, SLOTS)
        for page in range(count):
            self.area[page * PAGE] = 0  # makes the kernel allocate a frame for it
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.area))
        phys = [own_phys(kernel, direct_map, start + page * PAGE) for page in range(count)]
        self.addresses: U64 = direct_map.addresses(np.array(phys, np.uint64))
