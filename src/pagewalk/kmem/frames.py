"""The frame database read from struct page itself: flags, mapcount, owner of every page frame.

The answers are those of /proc/kpageflags and /proc/kpagecount in a fraction of the time, and
PG_young besides, which the kernel exports nowhere. What the pages of a large folio share is taken
from its head, for a tail too. ``verify`` compares with the kernel's own files, which is to be done
before relying on it: struct page changes with nearly every release.
"""

from __future__ import annotations

import errno as errnos
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pagewalk.errors import SourceUnavailable
from pagewalk.kmem.directmap import MemMap
from pagewalk.kmem.kernel import Kernel
from pagewalk.kmem.layout import page_layout
from pagewalk.kmem.memory import I32, element_batches, read_elements
from pagewalk.kmem.struct_page import FrameMap, FrameRows, decode, put_rows
from pagewalk.kmem.zero import ZeroFrames
from pagewalk.pages import U64

__all__ = [
    "FrameMap",
    "FrameRows",
    "Owners",
    "frame_batches",
    "open_frame_map",
    "read_frames",
    "read_owners",
]

_ATTEMPTS = 3


@dataclass(frozen=True)
class Owners:
    """Hold whose each frame is: the folio's ``mapping`` word u64 as the kernel keeps it (low bits
    are its kind), its ``index`` u64 there in pages, and ``errno`` i32 as in FrameRows."""

    mapping: U64
    index: U64
    errno: I32


def open_frame_map(kernel: Kernel, mem_map: MemMap, zero: ZeroFrames) -> FrameMap:
    """Prepare to read struct pages; raises SourceUnavailable when BTF does not tell enough."""
    try:
        return FrameMap(kernel, mem_map, page_layout(kernel.btf), zero)
    except LookupError as error:
        raise SourceUnavailable(
            "struct page", f"this kernel's BTF has no {error.args[0]}", "take /proc/kpageflags"
        ) from error


def read_frames(frames: FrameMap, pfns: U64) -> FrameRows:
    """Read one row per frame of ``pfns`` (u64[n], any order; ascending ones are fast).

    A folio that is split or freed while it is read is read again, up to three times.
    """
    n = len(pfns)
    out = FrameRows(
        flags=np.zeros(n, np.uint64),
        mapcount=np.zeros(n, np.int32),
        young=np.zeros(n, bool),
        head=np.zeros(n, np.uint64),
        errno=np.zeros(n, np.int32),
    )
    for first, part in frame_batches(frames, pfns):
        put_rows(out, slice(first, first + len(part.flags)), part)
    for _ in range(_ATTEMPTS - 1):
        again = np.flatnonzero(out.errno == errnos.EAGAIN)
        for first, part in frame_batches(frames, pfns[again]):
            put_rows(out, again[first : first + len(part.flags)], part)
    failed = out.errno != 0
    if failed.any():
        out.flags[failed], out.mapcount[failed], out.young[failed] = 0, 0, False
    return out


def read_owners(frames: FrameMap, heads: U64) -> Owners:
    """Read the owner of each folio whose first page is in ``heads`` (u64[n], FrameRows.head)."""
    pages, errno = read_elements(
        frames.kernel.memory, frames.mem_map.base, heads, frames.mem_map.size
    )
    words = pages.view(np.uint64)
    layout = frames.layout
    return Owners(words[:, layout.mapping // 8], words[:, layout.index // 8], errno)


def frame_batches(frames: FrameMap, pfns: U64) -> Iterator[tuple[int, FrameRows]]:
    """Read as read_frames does, but once: yield (first row, rows) per batch.

    Here errno EAGAIN marks the pages of a folio that changed while it was read.
    """
    base, size = frames.mem_map.base, frames.mem_map.size
    for first, pages, errno in element_batches(frames.kernel.memory, base, pfns, size):
        yield first, decode(frames, pfns[first : first + len(pages)], pages, errno)
