"""Memory of this process, as the kernel sees it."""

from __future__ import annotations

import ctypes
import mmap
import os

TOKEN = os.urandom(64)


def token_page() -> tuple[mmap.mmap, int]:
    page = mmap.mmap(-1, mmap.PAGESIZE)
    page[: len(TOKEN)] = TOKEN
    return page, ctypes.addressof(ctypes.c_char.from_buffer(page))
