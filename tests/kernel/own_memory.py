"""Memory of this process, as the kernel sees it."""

from __future__ import annotations

import ctypes
import mmap
import os

from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.task import find_task, read_mm

TOKEN = os.urandom(64)


def token_page() -> tuple[mmap.mmap, int]:
    page = mmap.mmap(-1, mmap.PAGESIZE)
    page[: len(TOKEN)] = TOKEN
    return page, ctypes.addressof(ctypes.c_char.from_buffer(page))


def own_pgd(kernel: Kernel) -> int:
    mm = find_task(kernel, os.getpid()).mm
    assert mm is not None
    return read_mm(kernel, mm).pgd
