"""All of RAM as runs of frames, read from struct pages.

A program in the kernel makes the runs where it loads and where it agrees with what is made from
copies of struct pages. Both give the same; the copies take five times as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from pagewalk.kernel.frames import StructPages
from pagewalk.kernel.readers.memory import read_words
from pagewalk.kernel.running import RunningKernel
from pagewalk.kernel.structs.frame_kinds import frames_of
from pagewalk.kernel.structs.frame_layout import FrameLayout, frame_layout
from pagewalk.kernel.structs.frame_runs import BLANK, BLOCK, CHUNK, TORN, RawRuns, read_runs
from pagewalk.kernel.structs.struct_page import FrameMap
from pagewalk.model.columns import U64
from pagewalk.model.errors import NotInBtf, SourceUnavailable
from pagewalk.model.frames import Frames
from pagewalk.proc.iomem import cut

if TYPE_CHECKING:
    from pagewalk.kernel.programs.scan_frames import FrameScanner

_ATTEMPTS = 3
_PROVED = 24  # samples of _SAMPLE frames
_SAMPLE = 400
# Struct pages come and go by subsections (include/linux/mmzone.h), 2 MiB of RAM; this is less.
_PROBED = 1 << 8


def scan_frames(running: RunningKernel, ranges: list[tuple[int, int]]) -> Iterator[Frames]:
    """Yield the frames of ``ranges``, [first, last) PFNs, by ascending frame, a batch a chunk.

    Raises SourceUnavailable if struct pages cannot be read on this kernel.
    """
    layout = layout_of(running)
    scanner = proved_scanner(running, layout, ranges)
    for first, last in chunks(ranges):
        yield frames_of(layout, raw_runs(running, layout, first, last, scanner))


def layout_of(running: RunningKernel) -> FrameLayout:
    """Return how struct page is laid out; raises SourceUnavailable."""
    try:
        return frame_layout(running.kernel.btf)
    except NotInBtf as error:
        raise SourceUnavailable(
            "struct page", f"this kernel's BTF has no {error.missing}", "use /proc/kpageflags"
        ) from error


def raw_runs(
    running: RunningKernel,
    layout: FrameLayout,
    first: int,
    last: int,
    scanner: FrameScanner | None = None,
) -> RawRuns:
    """Return the runs of frames [``first``, ``last``), which lie in one chunk."""
    frames = _frame_map(running)
    made = None if scanner is None else _made_in_kernel(frames, scanner, first, last)
    return read_runs(frames, layout, first, last) if made is None else made


def _frame_map(running: RunningKernel) -> FrameMap:
    if not isinstance(running.frames, StructPages):
        raise SourceUnavailable(
            "struct page", "/proc/kpageflags contradicts it on this kernel", "use /proc/kpageflags"
        )
    return running.frames.frames


def _made_in_kernel(
    frames: FrameMap, scanner: FrameScanner, first: int, last: int
) -> RawRuns | None:
    # None if a folio changed each time. The program sees no error: memory that cannot be read is 0
    # to it, and takes long. Memory may be unplugged meanwhile.
    if not _readable(frames, first, last):
        return None
    for _ in range(_ATTEMPTS):
        runs = scanner.runs(first, last)
        if not (runs.state & TORN).any():
            blank = (runs.state & BLANK).any()
            return None if blank and not _readable(frames, first, last) else runs
    return None


def _readable(frames: FrameMap, first: int, last: int) -> bool:
    base, size = frames.mem_map
    pfns = np.append(np.arange(first, last, _PROBED, dtype=np.uint64), np.uint64(last - 1))
    _, errno = read_words(frames.kernel.memory, pfns * np.uint64(size) + np.uint64(base))
    return not errno.any()


def proved_scanner(
    running: RunningKernel, layout: FrameLayout, ranges: list[tuple[int, int]]
) -> FrameScanner | None:
    """Return the program that makes runs, None if the kernel refuses it or it does not pay.

    It is verified before each scan: on frames from all over ``ranges`` it must agree with read_runs
    in all that stood still meanwhile. Raises SourceUnavailable as raw_runs does.
    """
    frames, shortcuts = _frame_map(running), running.shortcuts
    pages = sum(last - first for first, last in ranges)
    scanner = None if shortcuts is None else shortcuts.pay_for_scanner(pages)
    if scanner is None:
        return None
    starts = _samples(ranges)
    agrees = len(starts) > 0 and all(_agrees(frames, layout, scanner, at) for at in starts.tolist())
    return scanner if agrees else None


def _samples(ranges: list[tuple[int, int]]) -> U64:
    # Where samples begin, spread over ``ranges``: each lies in one block.
    blocks = [range(-(-first // BLOCK) * BLOCK, last - _SAMPLE, BLOCK) for first, last in ranges]
    every = np.concatenate([np.zeros(0, np.int64), *blocks])
    at = np.linspace(0, len(every) - 1, _PROVED if len(every) else 0).astype(np.int64)
    return np.unique(every[at]).astype(np.uint64)


def _agrees(frames: FrameMap, layout: FrameLayout, scanner: FrameScanner, first: int) -> bool:
    last = first + _SAMPLE
    for _ in range(_ATTEMPTS):
        before = _by_frame(read_runs(frames, layout, first, last))
        found = _by_frame(scanner.runs(first, last))
        after = _by_frame(read_runs(frames, layout, first, last))
        still = (before == after).all(axis=0)
        if still.any() and (found == after).all(axis=0)[still].all():
            return True
    return False


def _by_frame(runs: RawRuns) -> U64:
    # u64[5, frames]
    words = (runs.state, runs.count.astype(np.uint64), runs.memcg, runs.object, runs.extra)
    return np.repeat(np.stack(words), runs.pages, axis=1)


def chunks(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Cut ``ranges`` where a chunk ends, so that no free block lies in two."""
    return cut(ranges, CHUNK)
