"""What the kernel itself uses RAM for, by name: objects, vmalloc, BPF maps, DMA buffers."""

from __future__ import annotations

import os
from typing import NamedTuple

from pagewalk.kernel.bpf_maps import BpfMap, read_maps
from pagewalk.kernel.structs.vmap_areas import AreaSums, of_areas
from pagewalk.model.columns import Withheld, join
from pagewalk.model.errors import BadText, SourceUnavailable
from pagewalk.model.frames import Frames
from pagewalk.proc.dma_buffers import DmaBuffer, read_dma_buffers
from pagewalk.sources.ram import RamSource
from pagewalk.system.kernel_places import kernel_places
from pagewalk.system.slabs import SlabLook, SlabReport
from pagewalk.system.survey import opened

# Kernel memory that has a name elsewhere: what, where, and what would make it so.
ELSEWHERE = (
    ("pages by who asked for them", "/proc/allocinfo",
     "build the kernel with CONFIG_MEM_ALLOC_PROFILING and set vm.mem_profiling=1"),
    ("memory of graphics drivers", "/sys/class/drm",
     "there is no such driver here"),
)


class KernelMemory(NamedTuple):
    """Kernel memory that has a name; ``page`` is the bytes of a page.

    ``vmalloc``, ``maps`` and ``buffers`` are None if they are not known. ``maps`` and ``buffers``
    are the largest first. They are of pages that are also objects, vmalloc, or a device's: they do
    not add up with these.
    """

    slabs: SlabReport
    page: int
    vmalloc: AreaSums | None
    maps: tuple[BpfMap, ...] | None
    buffers: tuple[DmaBuffer, ...] | None
    withheld: tuple[Withheld, ...]


def look_at_kernel(source: RamSource) -> KernelMemory:
    """Read what the kernel uses; raises SourceUnavailable, NotPermitted, BadText, OSError."""
    look = KernelLook(source)
    for frames in source.frames():
        look.add(frames)
    return look.found()


class KernelLook:
    """Adds up batches of frames, given to ``add``; ``found`` ends it.

    Raises as look_at_kernel does.
    """

    def __init__(self, source: RamSource) -> None:
        self._source, self._running = source, opened(source)
        self._slabs = SlabLook(self._running.kernel, self._running.direct_map,
                               source.facts.page_size)
        self._areas: list[Frames] = []

    def add(self, frames: Frames) -> None:
        """Add a batch."""
        self._slabs.add(frames)
        self._areas.append(of_areas(self._running.kernel, frames))

    def found(self) -> KernelMemory:
        """Return what was found."""
        places = kernel_places(self._running, join(self._areas))
        slabs = self._slabs.report()
        withheld = [*self._source.notes, *slabs.withheld, *places.withheld, *_elsewhere()]
        return KernelMemory(
            slabs, self._source.facts.page_size, places.asked, _maps(withheld),
            _buffers(withheld), tuple(withheld),
        )


def _elsewhere() -> list[Withheld]:
    return [Withheld(what, f"pagewalk does not read {path}"
                     if os.path.exists(path) else f"{path} does not exist; {remedy}")
            for what, path, remedy in ELSEWHERE]


def _maps(withheld: list[Withheld]) -> tuple[BpfMap, ...] | None:
    try:
        return tuple(sorted(read_maps(), key=lambda one: -(one.memlock or 0)))
    except SourceUnavailable as error:
        withheld.append(Withheld("BPF maps", f"{error.why}; {error.remedy}"))
        return None


def _buffers(withheld: list[Withheld]) -> tuple[DmaBuffer, ...] | None:
    try:
        return tuple(sorted(read_dma_buffers(), key=lambda one: -one.size))
    except SourceUnavailable as error:
        withheld.append(Withheld("DMA buffers", f"{error.why}; {error.remedy}"))
    except BadText as error:
        withheld.append(Withheld("DMA buffers", str(error)))
    return None
