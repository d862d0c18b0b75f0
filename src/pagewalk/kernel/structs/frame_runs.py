"""What struct pages say about frames, as runs of frames that are alike.

Six words a frame, of which the first is the state: flags, and facts that need more than the flags.
A program in the kernel makes the same words (programs/scan_frames); here they are made from copies,
which is slower and needs nothing but a reader.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.kernel.readers.memory import element_batches
from pagewalk.kernel.structs.direct_map import MemMap
from pagewalk.kernel.structs.frame_layout import FrameLayout
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.struct_page import FIRST_TYPE, FrameMap, entire_counts, read_heads
from pagewalk.model.bits import kpf
from pagewalk.model.columns import I32, I64, U8, U32, U64, Bool, Rows, alike
from pagewalk.model.frames import FOLIO_MAPPED, MAPPED_WHOLE, ORDER_SHIFT, REFERENCED, Frames, Kind

# The state: the flags of FrameLayout.kept, and above them
BLANK = np.uint64(1 << 28)  # a struct page that was never initialised
TORN = np.uint64(1 << 29)  # it could not be read, or its folio changed each time
KIND_SHIFT = np.uint64(30)  # two bits: the low ones of the mapping word
REFS_SHIFT = np.uint64(32)  # two bits: references 0, 1, 2 and more, where nothing else is known
UNLISTED = np.uint64(1 << 34)  # it is on no list
WHOLE = np.uint64(1 << 35)  # MAPPED_WHOLE
SOME = np.uint64(1 << 36)  # FOLIO_MAPPED
HUGETLB = np.uint64(1 << 37)
LARGE = np.uint64(1 << 38)
FOLIO_ORDER = np.uint64(40)  # six bits
_TWO_BITS, _ORDER = np.uint64(3), np.uint64(0x3F)
_TAG = np.uint64(1)

# The largest block of the buddy allocator, in pages: chunks begin at a multiple of it, so that no
# block lies in two (MAX_ORDER is 10 on x86).
BLOCK = 1 << 10
CHUNK = BLOCK << 6
_ATTEMPTS = 3


class RawRuns(Rows):
    """Runs of frames whose words are the same.

    ``pfn`` and ``pages`` i64; ``state`` u64; ``count`` i32: the mapcount or, below 0, the page
    type; ``memcg`` u64 memcg_data; ``object`` u64 the mapping or the slab cache, 0 if neither;
    ``extra`` u64 the order of a free block, or the counters of a slab.
    """

    pfn: I64
    pages: I64
    state: U64
    count: I32
    memcg: U64
    object: U64
    extra: U64


class _Words(NamedTuple):
    # A row for each frame of a chunk.
    state: U64
    mapped: I32
    memcg: U64
    object: U64
    extra: U64


def read_runs(frames: FrameMap, layout: FrameLayout, first: int, last: int) -> RawRuns:
    """Read the struct pages of frames [``first``, ``last``), at most CHUNK, within one chunk."""
    for attempt in range(_ATTEMPTS):
        words = _read(frames, layout, first, last)
        if attempt + 1 == _ATTEMPTS or not (words.state & TORN).any():
            break
    start = alike(*words)
    pages = np.diff(start, append=last - first)
    return RawRuns(
        start + first, pages, words.state[start], words.mapped[start], words.memcg[start],
        words.object[start], words.extra[start],
    )


def _read(frames: FrameMap, layout: FrameLayout, first: int, last: int) -> _Words:
    data, errno = _struct_pages(frames.kernel, frames.mem_map, first, last)
    words, page = data.view(np.uint64), layout.page
    flags, compound = words[:, page.flags // 8], words[:, page.compound_head // 8]
    own = data.view(np.int32)[:, page.mapcount // 4]
    blank = (flags | compound | words[:, page.mapping // 8] | words[:, page.mapcount // 8]) == 0
    fixed = blank | (flags & layout.reserved != 0) | (errno != 0)
    source = _in_blocks(layout, own, words[:, layout.private // 8], fixed)
    free = source >= 0
    large = ~fixed & ~free & ((compound & _TAG != 0) | (flags & page.head != 0))
    rows = np.where(free, source, np.arange(len(own)))
    found = _words(layout, data[rows], own[rows])
    state, count = found.state, found.mapped
    state[large], count[large] = 0, 0
    if large.any():
        at = np.flatnonzero(large)
        part = _in_folios(frames, layout, first, at, data[at])
        for name, some in part._asdict().items():
            getattr(found, name)[at] = some
    lone = ~fixed & ~free & ~large
    _mark_unlisted(frames, layout, first, words, state, lone)
    state[fixed] = (flags[fixed] & layout.reserved) | blank[fixed] * BLANK
    state[errno != 0] = TORN
    count[fixed] = 0
    for column in (found.memcg, found.object, found.extra):
        column[fixed] = 0
    reserved = fixed & ~blank & (errno == 0)
    count[reserved] = np.maximum(own[reserved] + 1, 0)
    return found


def _struct_pages(kernel: Kernel, mem_map: MemMap, first: int, last: int) -> tuple[U8, I32]:
    data = np.empty((last - first, mem_map.size), np.uint8)
    errno = np.empty(last - first, np.int32)
    pfns = np.arange(first, last, dtype=np.uint64)
    for at, rows, codes in element_batches(kernel.memory, mem_map.base, pfns, mem_map.size):
        data[at : at + len(rows)], errno[at : at + len(rows)] = rows, codes
    data[errno != 0] = 0
    return data, errno


def _in_blocks(layout: FrameLayout, own: I32, private: U64, fixed: Bool) -> I64:
    # For each frame of a free block the row of the block's first frame, else -1.
    size = len(own)
    heads = np.flatnonzero(layout.types["buddy"].test(own.view(np.uint32)) & ~fixed)
    source = np.full(size, -1, np.int64)
    if len(heads):
        order = np.minimum(private[heads], np.uint64(BLOCK.bit_length() - 1)).astype(np.int64)
        ends = np.minimum(heads + (1 << order), size)
        # A head inside another block is what was left of an earlier, smaller one.
        reach = np.maximum.accumulate(ends)
        outer = np.ones(len(heads), bool)
        outer[1:] = heads[1:] >= reach[:-1]
        heads, ends = heads[outer], ends[outer]
        pages = ends - heads
        source[np.repeat(heads - np.cumsum(pages) + pages, pages) + np.arange(pages.sum())] = (
            np.repeat(heads, pages)
        )
    return source


def _words(layout: FrameLayout, head: U8, own: I32) -> _Words:
    # The words of frames from the struct page of their folio's head (u8[n, size or more]), and
    # their own mapcount.
    words, page = head.view(np.uint64), layout.page
    numbers = head.view(np.int32)
    flags, mapping = words[:, page.flags // 8], words[:, page.mapping // 8]
    type_of = numbers[:, page.mapcount // 4]
    slab = _is_slab(layout, flags, type_of)
    typed = (type_of <= FIRST_TYPE) | slab
    state = flags & layout.kept
    state |= np.where(typed, np.uint64(0), mapping & _TWO_BITS) << KIND_SHIFT
    alone = ~typed & (mapping == 0)
    refs = np.clip(numbers[:, page.refcount // 4], 0, 2).astype(np.uint64)
    counted = alone | _of_type(layout, "hugetlb", type_of)
    state |= np.where(counted, refs, np.uint64(0)) << REFS_SHIFT
    count = np.where(typed, type_of, np.maximum(own, -1) + 1).astype(np.int32)
    if layout.page.slab:
        count[slab] = 0
    object_ = np.where(typed | (mapping & _TWO_BITS != 0), np.uint64(0), mapping)
    object_ = np.where(slab, words[:, layout.slab_cache // 8], object_)
    buddy = _of_type(layout, "buddy", type_of)
    extra = np.where(slab, words[:, layout.slab_counters // 8], np.uint64(0))
    extra = np.where(buddy, words[:, layout.private // 8], extra)
    memcg = np.zeros(len(flags), np.uint64)
    if layout.memcg is not None:
        memcg = np.where(buddy, np.uint64(0), words[:, layout.memcg // 8])
    return _Words(state, count, memcg, object_, extra)


def _is_slab(layout: FrameLayout, flags: U64, type_of: I32) -> Bool:
    by_flag: Bool = flags & layout.page.slab != 0
    return by_flag | _of_type(layout, "slab", type_of)


def _of_type(layout: FrameLayout, name: str, type_of: I32) -> Bool:
    if name not in layout.types:
        return np.zeros(len(type_of), bool)
    kinds: U32 = type_of.view(np.uint32)
    return layout.types[name].test(kinds)


def _in_folios(frames: FrameMap, layout: FrameLayout, first: int, at: I64, data: U8) -> _Words:
    # The pages of large folios, from their heads, which are read again with their second pages.
    page, base = layout.page, np.uint64(frames.mem_map.base)
    compound = data.view(np.uint64)[:, page.compound_head // 8]
    own_place = (at + first).astype(np.uint64) * np.uint64(layout.size) + base
    tails = compound & _TAG != 0
    place = np.where(tails, compound - _TAG, own_place)
    heads, back = np.unique(place, return_inverse=True)
    heads, folio, errno = read_heads(frames, heads.copy())
    second = folio.view(np.uint64)[:, (layout.size + page.compound_head) // 8]
    flags = folio.view(np.uint64)[:, page.flags // 8]
    intact = (errno == 0) & (flags & page.head != 0) & (second == heads + _TAG)
    own = data.view(np.int32)[:, page.mapcount // 4]
    # A head whose type stands in place of its count is mapped as a whole only.
    found = _words(layout, folio[back], own)
    numbers = folio.view(np.int32)
    type_of = numbers[:, page.mapcount // 4]
    slab = _is_slab(layout, flags, type_of)
    more = folio.view(np.uint64)[:, page.second_flags // 8]
    hugetlb = page.is_hugetlb(type_of.view(np.uint32), more, folio) & ~slab
    mapped_whole = (numbers[:, page.entire_mapcount // 4] >= 0) & ~slab
    untyped = (type_of > FIRST_TYPE) & ~slab
    mapped = page.is_mapped(numbers) & (untyped | hugetlb)
    if layout.compound_order is not None:
        order = folio[:, layout.compound_order].astype(np.uint64)
    else:
        order = more & np.uint64(0xFF)
    facts = (mapped_whole & (untyped | hugetlb)) * WHOLE | mapped * SOME | hugetlb * HUGETLB | LARGE
    facts = facts | (order & _ORDER) << FOLIO_ORDER
    found.state[:] |= facts[back]
    entire = _whole_counts(frames, folio)
    found.mapped[:] += np.where(untyped | (hugetlb & (type_of > FIRST_TYPE)), entire, 0)[back]
    torn = ~intact[back]
    found.state[torn] = TORN
    for name in found._fields[1:]:
        getattr(found, name)[torn] = 0
    return found


def _whole_counts(frames: FrameMap, folio: U8) -> I32:
    page = frames.layout
    columns = _Head(
        folio.view(np.uint64)[:, page.flags // 8],
        folio[:, page.mapping] & np.uint8(3),
        folio.view(np.int32)[:, page.mapcount // 4],
    )
    return entire_counts(page, columns, folio)  # type: ignore[arg-type]


class _Head(NamedTuple):
    flags: U64
    kind: U8
    mapcount: I32


def _mark_unlisted(
    frames: FrameMap, layout: FrameLayout, first: int, words: U64, state: U64, lone: Bool
) -> None:
    # A frame without references is free and on a per-CPU list, or the rest of a block whose first
    # frame has the reference: that one was never put on a list.
    next_, previous = (words[:, layout.lru // 8 + n] for n in (0, 1))
    place = np.arange(first, first + len(words), dtype=np.uint64) * np.uint64(layout.size)
    place += np.uint64(frames.mem_map.base + layout.lru)
    apart = (next_ == previous) & ((next_ == place) | (next_ == 0))
    without = state >> REFS_SHIFT & _TWO_BITS == 0
    state[lone & apart & without & (words[:, layout.page.mapping // 8] == 0)] |= UNLISTED


# ---- what a run is used for


def frames_of(layout: FrameLayout, runs: RawRuns) -> Frames:
    """Return ``runs`` with what each is used for, and with the flags of /proc/kpageflags."""
    state = runs.state
    bits = layout.page.copied(state & layout.kept)
    low = state >> KIND_SHIFT & _TWO_BITS
    bits |= (low & _TAG != 0) * kpf("anon") | (low == _TWO_BITS) * kpf("ksm")
    bits |= (state & layout.swap_cache == layout.swap_cache) * kpf("swapcache")
    facts = (state & WHOLE != 0) * MAPPED_WHOLE | (state & SOME != 0) * FOLIO_MAPPED
    facts = facts | (state >> REFS_SHIFT & _TWO_BITS != 0) * REFERENCED
    facts = facts | (state >> FOLIO_ORDER & _ORDER).astype(np.int64) << ORDER_SHIFT
    return Frames(
        pfn=runs.pfn, pages=runs.pages, kind=kinds_of(layout, runs), flags=bits,
        facts=facts.astype(np.uint8), mapcount=np.maximum(runs.count, 0), owner=runs.memcg,
        object=runs.object, counts=runs.extra,
    )


def kinds_of(layout: FrameLayout, runs: RawRuns) -> U8:
    """Return what each run is used for, u8 (Kind)."""
    state, low = runs.state, runs.state >> KIND_SHIFT & _TWO_BITS
    refs = state >> REFS_SHIFT & _TWO_BITS
    type_of = np.where(runs.count < 0, runs.count, 0).astype(np.int32)
    plain = runs.count >= 0
    bare = plain & (low == 0) & (runs.object == 0)
    kind = np.full(len(runs), Kind.KERNEL.value, np.uint8)

    def put(where: Bool, value: Kind) -> None:
        kind[where] = value.value

    put(bare & (refs == 0), Kind.CPU_LIST)
    if "large_kmalloc" not in layout.types:  # before 6.14 nothing else marks them
        put(bare & (refs == 1) & (state & LARGE != 0), Kind.LARGE_KMALLOC)
    put(bare & (state & layout.swap_cache == layout.swap_cache), Kind.SWAP_CACHE)
    file = plain & (low == 0) & (runs.object != 0)
    put(file, Kind.FILE)
    put(file & (state & layout.swapbacked != 0), Kind.SHMEM)
    put(plain & (low == 1), Kind.ANON)
    # movable_operations: zsmalloc, and a balloon's pages, before they had types (6.12)
    put(plain & (low == 2), Kind.ZSMALLOC)
    put(plain & (low == 3), Kind.KSM)
    put(state & HUGETLB != 0, Kind.HUGETLB)
    for name, value in _BY_TYPE.items():
        put(_of_type(layout, name, type_of), value)
    put(state & layout.page.slab != 0, Kind.SLAB)
    put(state & BLANK != 0, Kind.DEFERRED)
    put(state & layout.reserved != 0, Kind.RESERVED)
    put(state & TORN != 0, Kind.UNKNOWN)
    put(_rest_of_blocks(runs, kind), Kind.BLOCK_TAIL)
    return kind


_BY_TYPE = {
    "buddy": Kind.BUDDY, "offline": Kind.OFFLINE, "table": Kind.PAGE_TABLE, "guard": Kind.GUARD,
    "hugetlb": Kind.HUGETLB, "slab": Kind.SLAB, "zsmalloc": Kind.ZSMALLOC,
    "unaccepted": Kind.UNACCEPTED, "large_kmalloc": Kind.LARGE_KMALLOC,
}  # fmt: skip


def _rest_of_blocks(runs: RawRuns, kind: U8) -> Bool:
    # 2^k - 1 frames without references, on no list, behind one that has a reference.
    rest = (kind == Kind.CPU_LIST.value) & (runs.state & UNLISTED != 0)
    behind = np.zeros(len(kind), bool)
    behind[1:] = (kind[:-1] == Kind.KERNEL.value) & (runs.pfn[1:] == (runs.pfn + runs.pages)[:-1])
    found: Bool = rest & behind & (runs.pages & (runs.pages + 1) == 0)
    return found
