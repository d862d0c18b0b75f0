"""All of RAM as runs of frames, read from struct pages."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from pagewalk.kernel.frames import StructPages
from pagewalk.kernel.running import RunningKernel
from pagewalk.kernel.structs.frame_layout import FrameLayout, frame_layout
from pagewalk.kernel.structs.frame_runs import CHUNK, RawRuns, frames_of, read_runs
from pagewalk.model.errors import NotInBtf, SourceUnavailable
from pagewalk.model.frames import Frames


def scan_frames(running: RunningKernel, ranges: list[tuple[int, int]]) -> Iterator[Frames]:
    """Yield the frames of ``ranges``, [first, last) PFNs, by ascending frame, a batch a chunk.

    Raises SourceUnavailable if struct pages cannot be read on this kernel.
    """
    layout = layout_of(running)
    for first, last in chunks(ranges):
        yield frames_of(layout, raw_runs(running, layout, first, last))


def layout_of(running: RunningKernel) -> FrameLayout:
    """Return how struct page is laid out; raises SourceUnavailable."""
    try:
        return frame_layout(running.kernel.btf)
    except NotInBtf as error:
        raise SourceUnavailable(
            "struct page", f"this kernel's BTF has no {error.missing}", "use /proc/kpageflags"
        ) from error


def raw_runs(running: RunningKernel, layout: FrameLayout, first: int, last: int) -> RawRuns:
    """Return the runs of frames [``first``, ``last``), which lie in one chunk."""
    if not isinstance(running.frames, StructPages):
        raise SourceUnavailable(
            "struct page", "/proc/kpageflags contradicts it on this kernel", "use /proc/kpageflags"
        )
    return read_runs(running.frames.frames, layout, first, last)


def chunks(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Cut ``ranges`` where a chunk ends, so that no free block lies in two."""
    for first, last in ranges:
        inside = range((first // CHUNK + 1) * CHUNK, last, CHUNK)
        edges = [first, *inside, last]
        yield from pairwise(edges)
