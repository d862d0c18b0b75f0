"""Open the running kernel through a reader: find its maps of RAM, verify its struct pages."""

import mmap
import time
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from pagewalk.kernel.frames import StructPages, open_frame_map, sample
from pagewalk.kernel.programs.loader import Shortcuts
from pagewalk.kernel.structs.direct_map import (
    DirectMap,
    MemMap,
    find_direct_map,
    find_mem_map,
    own_frame,
)
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.zero import find_zero_frames
from pagewalk.kernel.verify import compare
from pagewalk.model.columns import Withheld
from pagewalk.pagetables.format import Arch
from pagewalk.proc.frames import FrameReader, Frames, open_frames
from pagewalk.proc.pagemap import PAGE
from pagewalk.proc.refusals import why_missing
from pagewalk.proc.zones import Memory, read_memory

UNCONFIRMED = Withheld(
    "a cross-check of page frames",
    "struct page was read, but only root may read /proc/kpageflags and /proc/kpagecount to"
    " confirm it",
)
CONTRADICTED = Withheld(
    "page frames from struct page",
    "struct page and /proc/kpageflags disagree on this kernel, so the slower kpageflags is used",
)


class RunningKernel(NamedTuple):
    """The running kernel, opened once: its memory, its maps of RAM, its paging format.

    ``frames`` reads page frames, None if nothing on this kernel can; ``zero_pfn`` is the frame of
    the zero page. ``shortcuts`` is None if no programs can be loaded.
    """

    kernel: Kernel
    direct_map: DirectMap
    mem_map: MemMap
    arch: Arch
    frames: FrameReader | None
    zero_pfn: int
    notes: tuple[Withheld, ...]
    shortcuts: Shortcuts | None = None


def bounded(arch: Arch) -> Arch:
    """Return ``arch`` with the current bounds of physical memory.

    Raises SourceUnavailable, BadText.
    """
    memory = memory_in(int(time.monotonic()))
    last = None if memory.ram_end is None else memory.ram_end // PAGE - 1
    return replace(arch, era=arch.era._replace(max_pfn=last, devices=memory.devices))


@lru_cache(maxsize=1)
def memory_in(second: int) -> Memory:
    """Return read_memory(), read at most once per ``second``: a walk of all processes needs it."""
    del second
    return read_memory()


def as_it_is_now(running: RunningKernel) -> RunningKernel:
    """Return ``running`` with the bounds that physical memory has now. Raises as ``bounded`` does.

    While it stays open, RAM may be plugged in and a driver may add a device's memory. The programs
    that were loaded keep their old bounds: what lies beyond is left to us.
    """
    arch = bounded(running.arch)
    return running if arch == running.arch else running._replace(arch=arch)


def open_running(kernel: Kernel, *, loads: bool = False) -> RunningKernel:
    """Return the kernel, ready for walks; raises SourceUnavailable, Unsupported.

    With ``loads``, programs may be loaded into it in addition to the reader.
    """
    try:
        direct_map = find_direct_map(kernel)
        mem_map = find_mem_map(kernel, direct_map)
        kpage, notes = open_kpage(kernel, direct_map)
        zero = find_zero_frames(kernel, direct_map, None if kpage is None else kpage.flags)
        arch = bounded(direct_map.arch)
        frame_map = open_frame_map(kernel, mem_map, zero)
        shortcuts = Shortcuts(kernel.btf, arch, frame_map.layout, mem_map) if loads else None
        frames: FrameReader = StructPages(frame_map, shortcuts)
        if kpage is not None and not compare(frame_map, kpage, sample()).holds:
            frames, notes = kpage, (CONTRADICTED,)
    except BaseException:
        kernel.close()
        raise
    return RunningKernel(kernel, direct_map, mem_map, arch, frames, zero.small, notes, shortcuts)


def open_kpage(kernel: Kernel, direct_map: DirectMap) -> tuple[Frames | None, tuple[Withheld, ...]]:
    """Return the kernel's own frame database, which ``kernel`` closes.

    If it may not be read (only root may), the walk reports that struct page is unconfirmed.
    """
    own = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    own[0] = 1  # gives it a frame of its own
    pfn = own_frame(kernel, direct_map, own)
    try:
        kpage = open_frames(own=pfn)
    except FileNotFoundError:
        why = "; ".join(why_missing("/proc/kpageflags", "CONFIG_PROC_PAGE_MONITOR"))
        unconfirmed = f"struct page was read but could not be confirmed: {why}"
        return None, (UNCONFIRMED._replace(why=unconfirmed),)
    except OSError:
        return None, (UNCONFIRMED,)
    kernel.held.callback(kpage.close)
    return kpage, ()
