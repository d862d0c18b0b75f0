"""Areas of the kernel's virtual memory: kernel stacks, per-CPU memory, and whoever asked for more.

The trees of areas have no place that BTF tells. But each area is a slab object of a known size, and
proves itself: its vm_struct says the same address and size, and its first page is mapped. One that
was freed and still looks like that is shown wrong by its pages, or has the place of another.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from pagewalk.kernel.readers.memory import PAGE
from pagewalk.kernel.structs.direct_map import DirectMap
from pagewalk.kernel.structs.gather import gather, in_direct_map
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.kernel_map import FrameRanges, apart, frames_of, kernel_leaves
from pagewalk.kernel.structs.slabs import object_places, read_caches
from pagewalk.model.columns import I64, U8, U64, Bool, Leaves, Rows, join, take
from pagewalk.model.errors import NotInBtf, SourceUnavailable
from pagewalk.model.frames import Frames, Kind
from pagewalk.pagetables.decode import NO_LEAVES
from pagewalk.pagetables.format import Arch
from pagewalk.proc.kallsyms import Kallsyms, names_at

# include/linux/vmalloc.h
_IOREMAP, _ALLOC, _MAP, _NO_GUARD = 0x1, 0x2, 0x4, 0x40
_WORD = 8
# Functions that ask for a kernel stack, as far as the compiler has not merged one into the next.
_FORKS = {"alloc_thread_stack_node", "dup_task_struct", "copy_process", "fork_idle"}


class Use(IntEnum):
    """What an area is used for (Areas.use); IOREMAP has no RAM, VMAP no RAM of its own."""

    STACK = 0
    PERCPU = 1
    VMALLOC = 2
    VMAP = 3
    IOREMAP = 4
    OTHER = 5

    @property
    def label(self) -> str:
        """Return the word the views print."""
        return self.name.lower()


class Areas(Rows):
    """Areas by ascending address.

    ``start`` u64 and ``size`` i64, bytes with the guard page, as in /proc/vmallocinfo; ``use`` u8
    (Use); ``caller`` u64, the code that asked for it; ``asked`` i64 pages that it was given, 0 if
    they are somebody else's; ``pages`` i64 that are mapped.
    """

    start: U64
    size: I64
    use: U8
    caller: U64
    asked: I64
    pages: I64


class AreaFrames(Rows):
    """The frames that areas map: ``area`` i64 row of the Areas; ``pfn`` and ``pages`` i64.

    A frame that two areas map is there twice.
    """

    area: I64
    pfn: I64
    pages: I64

    def of(self, areas: Areas, *uses: Use) -> FrameRanges:
        """Return the frames of areas of ``uses``, each once, ascending."""
        wanted = np.isin(areas.use, [use.value for use in uses])[self.area]
        return apart(FrameRanges(self.pfn[wanted], self.pages[wanted]))


def of_areas(kernel: Kernel, frames: Frames) -> Frames:
    """Return those of ``frames`` that are slabs with room for areas: pass them to read_areas.

    Raises NotInBtf.
    """
    slabs = take(frames, frames.of(Kind.SLAB))
    assert slabs.object is not None
    address, back = np.unique(slabs.object, return_inverse=True)
    caches = read_caches(kernel, address)
    return take(slabs, (caches.size == _size(kernel))[back])


def _size(kernel: Kernel) -> int:
    return -(-kernel.btf.size("vmap_area") // _WORD) * _WORD


def read_areas(
    kernel: Kernel, direct_map: DirectMap, arch: Arch, slabs: Frames, symbols: Kallsyms | None
) -> tuple[Areas, AreaFrames]:
    """Return the areas among the objects of ``slabs`` (see of_areas), and the frames they map.

    Only areas with pages: nothing tells one without from one that was freed. Without ``symbols``
    the stacks of idle tasks, one a CPU, are VMALLOC. Raises SourceUnavailable if BTF does not tell
    how areas are laid out, or no area is found; OSError.
    """
    try:
        found = _proved(kernel, direct_map, arch, slabs)
        leaves, frames = _leaves(kernel, direct_map, arch, found)
        asks = _stack_callers(kernel, found, symbols)
    except NotInBtf as error:
        raise _refuse(f"this kernel's BTF has no {error.missing}") from error
    pages, sound = _alive(found, leaves, frames)
    found, pages = take(found, sound), pages[sound]
    if not len(found):
        raise _refuse("no slab has objects that prove to be areas")
    areas = Areas(
        found.start, found.size.astype(np.int64), _uses(found, asks), found.caller,
        found.asked.astype(np.int64), pages,
    )  # fmt: skip
    area = np.searchsorted(found.start, leaves.addr, side="right") - 1
    inside = (area >= 0) & (leaves.addr - found.start[area] < found.size[area])
    return areas, AreaFrames(area[inside], frames.pfn[inside], frames.pages[inside])


def _refuse(why: str) -> SourceUnavailable:
    return SourceUnavailable("areas of kernel memory", why, "read /proc/vmallocinfo")


# What the structs say.
class _Found(Rows):
    start: U64
    size: U64
    flags: U64
    given: U64
    asked: U64
    caller: U64


def _proved(kernel: Kernel, direct_map: DirectMap, arch: Arch, slabs: Frames) -> _Found:
    parts = [_Found(*np.zeros((6, 0), np.uint64))]
    for places in object_places(kernel, direct_map, slabs, _size(kernel)):
        parts.append(_proved_of(kernel, direct_map, arch, places))
    found = join(parts)
    return take(found, np.unique(found.start, return_index=True)[1])


def _proved_of(kernel: Kernel, direct_map: DirectMap, arch: Arch, objects: U64) -> _Found:
    area, ok = gather(kernel, "vmap_area", objects, ("va_start", "va_end", "vm"))
    start, end, vm = area["va_start"], area["va_end"], area["vm"]
    upper = np.uint64((1 << 64) - arch.user_end)
    ok &= (start >= upper) & (start < end) & ((start | end) & np.uint64(PAGE - 1) == 0)
    ok &= in_direct_map(direct_map, vm)
    start, end = start[ok], end[ok]
    members = ("addr", "size", "flags", "pages", "nr_pages", "caller")
    said, there = gather(kernel, "vm_struct", vm[ok], members)
    there &= (said["addr"] == start) & (said["size"] == end - start)
    return _Found(start[there], *(said[name][there] for name in members[1:]))


def _leaves(
    kernel: Kernel, direct_map: DirectMap, arch: Arch, found: _Found
) -> tuple[Leaves, FrameRanges]:
    # What is mapped at the addresses of areas, of which some may overlap.
    extents = apart(FrameRanges(
        (found.start // np.uint64(PAGE)).astype(np.int64),
        (found.size // np.uint64(PAGE)).astype(np.int64),
    ))  # fmt: skip
    start = extents.pfn.astype(np.uint64) * np.uint64(PAGE)
    end = start + extents.pages.astype(np.uint64) * np.uint64(PAGE)
    ranges = np.stack([start, end], axis=1)
    leaves = join([NO_LEAVES, *kernel_leaves(kernel, direct_map, arch, ranges)])
    return leaves, frames_of(leaves)


def _alive(found: _Found, leaves: Leaves, frames: FrameRanges) -> tuple[I64, Bool]:
    # How many pages are mapped at each, and whether that is what its area would have.
    upto = np.append(0, np.cumsum(frames.pages))
    end = found.start + found.size
    unguarded = (found.flags & np.uint64(_NO_GUARD) != 0) | (found.given == 0)
    guard = np.where(unguarded, np.uint64(0), np.uint64(PAGE))
    first, behind, last = (np.searchsorted(leaves.addr, at) for at in (
        found.start, end - guard, end
    ))  # fmt: skip
    pages = upto[behind] - upto[first]
    own = (found.given != 0) & (found.asked != 0)
    whole = np.where(own, pages == found.asked.astype(np.int64), pages > 0)
    sound = whole & (upto[last] == upto[behind])
    # Of two that claim the same addresses, one is not alive any more; they have the same pages.
    before = np.maximum.accumulate(np.where(sound, end, np.uint64(0)))
    sound[1:] &= found.start[1:] >= before[:-1]
    return pages, sound


def _stack_callers(kernel: Kernel, found: _Found, symbols: Kallsyms | None) -> U64:
    # Who asks for kernel stacks: whoever asked for ours, and at boot for those of idle tasks.
    if not kernel.btf.has("task_struct", "stack_vm_area"):
        return np.zeros(0, np.uint64)
    own = kernel.field("task_struct", kernel.current, "stack_vm_area")
    callers = [kernel.field("vm_struct", own, "caller")]
    if symbols is not None:
        every = np.unique(found.caller)
        names = names_at(symbols, every)
        callers += [at for at, name in zip(every.tolist(), names, strict=True) if name in _FORKS]
    return np.array(callers, np.uint64)


def _uses(found: _Found, stack_callers: U64) -> U8:
    flags = found.flags
    kinds = [
        (np.isin(found.caller, stack_callers), Use.STACK),
        (flags & np.uint64(_IOREMAP) != 0, Use.IOREMAP),
        # only pcpu_get_vm_areas() makes an area of the kind vmalloc without giving it pages
        ((flags & np.uint64(_ALLOC) != 0) & (found.given == 0), Use.PERCPU),
        (flags & np.uint64(_ALLOC) != 0, Use.VMALLOC),
        (flags & np.uint64(_MAP) != 0, Use.VMAP),
    ]
    return np.select([where for where, _ in kinds], [use.value for _, use in kinds],
                     Use.OTHER.value).astype(np.uint8)


# ---- by who asked


class AreaSums(Rows):
    """Areas by use and by who asked for them, the largest first.

    ``use`` u8 (Use); ``areas`` and ``pages`` i64, how many and how many pages they map;
    ``caller``, the function, None if /proc/kallsyms does not tell.
    """

    use: U8
    areas: I64
    pages: I64
    caller: tuple[str | None, ...]


def area_sums(areas: Areas, symbols: Kallsyms | None) -> AreaSums:
    """Return what ``areas`` add up to by use and caller."""
    where, back = np.unique(areas.caller, return_inverse=True)
    names = [None] * len(where) if symbols is None else names_at(symbols, where)
    known = sorted({name or "" for name in names})
    number = np.array([known.index(name or "") for name in names], np.int64)[back]
    pair, back = np.unique(areas.use * len(known) + number, return_inverse=True)
    pages = np.bincount(back, weights=areas.pages).astype(np.int64)
    order = np.argsort(-pages, kind="stable")
    return AreaSums(
        (pair // len(known))[order].astype(np.uint8), np.bincount(back)[order], pages[order],
        tuple(known[at] or None for at in (pair % len(known))[order].tolist()),
    )  # fmt: skip
