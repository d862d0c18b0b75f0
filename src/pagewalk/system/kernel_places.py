"""What the kernel's own mappings tell of its frames: stacks, vmalloc, per-CPU, struct pages."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.kernel.running import RunningKernel
from pagewalk.kernel.structs.kernel_map import FrameRanges, memmap_frames
from pagewalk.kernel.structs.vmap_areas import AreaSums, Use, area_sums, read_areas
from pagewalk.model.columns import I64, Withheld
from pagewalk.model.errors import BadText, SourceUnavailable
from pagewalk.model.frames import Frames
from pagewalk.proc.kallsyms import Kallsyms, apart, read_kallsyms
from pagewalk.system.census import NOWHERE, Placed

# The parts of RAM (system.ram.PARTS) by what an area is used for, those that count first before
# others: a frame may be mapped twice.
_PARTS = {
    Use.STACK: "kernel_stack", Use.PERCPU: "percpu", Use.VMALLOC: "vmalloc", Use.VMAP: "vmap",
}  # fmt: skip
_NAMES = ("memmap", *_PARTS.values())


class KernelPlaces(NamedTuple):
    """The frames that mappings tell the use of, and by whom those areas were asked for.

    ``asked`` is None if no area could be read; ``withheld`` says what is missing and why.
    ``static_percpu``: bytes of the kernel's own per-CPU variables, None if they are not told.
    """

    placed: Placed
    asked: AreaSums | None
    withheld: tuple[Withheld, ...]
    static_percpu: int | None = None


def kernel_places(running: RunningKernel, slabs: Frames) -> KernelPlaces:
    """Return what the kernel maps outside its map of all RAM.

    ``slabs`` are the frames that vmap_areas.of_areas picks out of all frames.
    """
    withheld, found, asked = [], [FrameRanges(*np.zeros((2, 0), np.int64))] * len(_NAMES), None
    kernel, direct_map, arch = running.kernel, running.direct_map, running.arch
    try:
        found[0] = memmap_frames(kernel, direct_map, arch, running.mem_map)
    except OSError as error:
        withheld.append(Withheld("the frames of struct pages", str(error)))
    symbols, note = _symbols()
    withheld += note
    try:
        areas, mapped = read_areas(kernel, direct_map, arch, slabs, symbols)
        found[1:] = [mapped.of(areas, use) for use in _PARTS]
        asked = area_sums(areas, symbols)
    except (OSError, SourceUnavailable) as error:
        withheld.append(Withheld("kernel stacks, vmalloc and per-CPU memory", str(error)))
    static = None if symbols is None else apart(symbols, "__per_cpu_start", "__per_cpu_end")
    return KernelPlaces(_placed(found), asked, tuple(withheld), static)


def area_places(running: RunningKernel, slabs: Frames) -> tuple[Placed, tuple[Withheld, ...]]:
    """Return the frames of areas alone, and what is missing; ``slabs`` as for kernel_places.

    Without who asked for them: the stacks of idle tasks are taken for vmalloc. ``names`` are those
    of parts that are told apart.
    """
    try:
        areas, mapped = read_areas(running.kernel, running.direct_map, running.arch, slabs, None)
    except (OSError, SourceUnavailable) as error:
        return NOWHERE, (Withheld("kernel stacks and vmalloc, apart", str(error)),)
    found = [mapped.of(areas, use) for use in _PARTS]
    return _placed([FrameRanges(*np.zeros((2, 0), np.int64)), *found]), ()


def _symbols() -> tuple[Kallsyms | None, list[Withheld]]:
    what = "who asked for kernel memory, by name"
    try:
        symbols = read_kallsyms()
    except (OSError, BadText) as error:
        return None, [Withheld(what, f"cannot read /proc/kallsyms: {error}")]
    if not symbols.functions.address.any():
        why = "/proc/kallsyms shows no addresses; grant CAP_SYSLOG"
        return None, [Withheld(what, why, partial=True)]
    return symbols, []


def _placed(found: list[FrameRanges]) -> Placed:
    # One row a frame: of several uses the first counts.
    pfn = np.concatenate([_each(ranges) for ranges in found])
    use = np.repeat(np.arange(len(found)), [int(ranges.pages.sum()) for ranges in found])
    frames, first = np.unique(pfn, return_index=True)
    return Placed(frames, use[first], _NAMES)


def _each(ranges: FrameRanges) -> I64:
    pages = ranges.pages
    start = np.repeat(ranges.pfn - np.cumsum(pages) + pages, pages)
    every: I64 = start + np.arange(len(start))
    return every
