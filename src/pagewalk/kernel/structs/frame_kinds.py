"""What frames are used for, from the words of their runs."""

from __future__ import annotations

import numpy as np

from pagewalk.kernel.structs.frame_layout import FrameLayout
from pagewalk.kernel.structs.frame_runs import (
    BLANK,
    FOLIO_ORDER,
    HUGETLB,
    KIND_SHIFT,
    LARGE,
    REFS_SHIFT,
    SOME,
    TORN,
    UNLISTED,
    WHOLE,
    RawRuns,
)
from pagewalk.model.bits import kpf
from pagewalk.model.columns import U8, U32, U64, Bool
from pagewalk.model.frames import (
    FLAGS,
    FOLIO_MAPPED,
    MAPPED_WHOLE,
    ORDER_SHIFT,
    REFERENCED,
    Frames,
    Kind,
)

_TWO_BITS, _ORDER = np.uint64(3), np.uint64(0x1F)
_ANON, _MOVABLE, _KSM = 1, 2, 3  # the low bits of a folio's mapping word

# Kinds that the page type alone decides, by its name in FrameLayout.types.
_BY_TYPE = {
    "buddy": Kind.BUDDY, "offline": Kind.OFFLINE, "table": Kind.PAGE_TABLE, "guard": Kind.GUARD,
    "hugetlb": Kind.HUGETLB, "slab": Kind.SLAB, "zsmalloc": Kind.ZSMALLOC,
    "unaccepted": Kind.UNACCEPTED, "large_kmalloc": Kind.LARGE_KMALLOC,
}  # fmt: skip


def frames_of(layout: FrameLayout, runs: RawRuns) -> Frames:
    """Return ``runs`` with what each is used for, and with the flags of /proc/kpageflags."""
    state = runs.state
    facts = (state & WHOLE != 0) * MAPPED_WHOLE | (state & SOME != 0) * FOLIO_MAPPED
    facts = facts | (state >> REFS_SHIFT & _TWO_BITS != 0) * REFERENCED
    facts = facts | (state >> FOLIO_ORDER & _ORDER).astype(np.int64) << ORDER_SHIFT
    return Frames(
        pfn=runs.pfn, pages=runs.pages, kind=kinds_of(layout, runs), flags=_flags(layout, state),
        facts=facts.astype(np.uint8), mapcount=np.maximum(runs.count, 0), owner=runs.memcg,
        object=runs.object, counts=runs.extra,
    )  # fmt: skip


def _flags(layout: FrameLayout, state: U64) -> U64:
    low = state >> KIND_SHIFT & _TWO_BITS
    bits = layout.page.copied(state & layout.kept)
    bits |= (low & np.uint64(_ANON) != 0) * kpf("anon") | (low == _KSM) * kpf("ksm")
    bits |= (state & layout.swap_cache == layout.swap_cache) * kpf("swapcache")
    bits |= (state & layout.page.hwpoison != 0) * kpf("hwpoison")
    return bits & FLAGS


def kinds_of(layout: FrameLayout, runs: RawRuns) -> U8:
    """Return what each run is used for, u8 (Kind)."""
    kind = np.full(len(runs), Kind.KERNEL.value, np.uint8)
    for where, value in _rules(layout, runs):
        kind[where] = value.value
    kind[_rest_of_blocks(runs, kind)] = Kind.BLOCK_TAIL.value
    return kind


def _rules(layout: FrameLayout, runs: RawRuns) -> list[tuple[Bool, Kind]]:
    # Where several hold the last one decides.
    state, low = runs.state, runs.state >> KIND_SHIFT & _TWO_BITS
    refs = state >> REFS_SHIFT & _TWO_BITS
    plain = runs.count >= 0
    file = plain & (low == 0) & (runs.object != 0)
    bare = plain & (low == 0) & (runs.object == 0)
    found = [(bare & (refs == 0), Kind.CPU_LIST)]
    if "large_kmalloc" not in layout.types:  # before 6.14 nothing else marks them
        found += [(bare & (refs == 1) & (state & LARGE != 0), Kind.LARGE_KMALLOC)]
    found += [
        (bare & (state & layout.swap_cache == layout.swap_cache), Kind.SWAP_CACHE),
        (file, Kind.FILE),
        (file & (state & layout.swapbacked != 0), Kind.SHMEM),
        (plain & (low == _ANON), Kind.ANON),
        # movable_operations: zsmalloc, and a balloon's pages, before they had types (6.12)
        (plain & (low == _MOVABLE), Kind.ZSMALLOC),
        (plain & (low == _KSM), Kind.KSM),
        (state & HUGETLB != 0, Kind.HUGETLB),
    ]
    types: U32 = np.where(plain, 0, runs.count).astype(np.int32).view(np.uint32)
    known = {name: kind for name, kind in _BY_TYPE.items() if name in layout.types}
    return [
        *found,
        *((layout.types[name].test(types), kind) for name, kind in known.items()),
        (state & layout.page.slab != 0, Kind.SLAB),
        (state & BLANK != 0, Kind.DEFERRED),
        (state & layout.reserved != 0, Kind.RESERVED),
        (state & TORN != 0, Kind.UNKNOWN),
    ]


def _rest_of_blocks(runs: RawRuns, kind: U8) -> Bool:
    # 2^k - 1 frames without references, on no list, behind one that has a reference.
    rest = (kind == Kind.CPU_LIST.value) & (runs.state & UNLISTED != 0)
    behind = np.zeros(len(kind), bool)
    behind[1:] = (kind[:-1] == Kind.KERNEL.value) & (runs.pfn[1:] == (runs.pfn + runs.pages)[:-1])
    found: Bool = rest & behind & (runs.pages & (runs.pages + 1) == 0)
    return found
