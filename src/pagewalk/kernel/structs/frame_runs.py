"""What struct pages say about frames, as runs of frames that are alike.

Five words a frame, of which the first is the state: flags, and facts that need more than the flags.
A program in the kernel makes the same words (programs/scan_frames); here they are made from copies,
which is slower and needs nothing but a reader.
"""

from __future__ import annotations

import numpy as np

from pagewalk.kernel.readers.memory import element_batches
from pagewalk.kernel.structs.direct_map import MemMap
from pagewalk.kernel.structs.frame_layout import FrameLayout
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.struct_page import (
    FIRST_TYPE,
    FrameMap,
    columns_of,
    entire_counts,
    read_heads,
)
from pagewalk.model.columns import I32, I64, U8, U64, Bool, Rows, alike, take
from pagewalk.proc.frames import LARGEST_ORDER

# The state: the flags of FrameLayout.kept, and above them
BLANK = np.uint64(1 << 28)  # a struct page that was never initialised
TORN = np.uint64(1 << 29)  # it could not be read, or its folio changed each time
KIND_SHIFT = np.uint64(30)  # two bits: the low ones of the mapping word
REFS_SHIFT = np.uint64(32)  # two bits: 0, 1 or more references, where the mapping does not say more
UNLISTED = np.uint64(1 << 34)  # it has no reference and is on no list
WHOLE = np.uint64(1 << 35)  # MAPPED_WHOLE
SOME = np.uint64(1 << 36)  # FOLIO_MAPPED
HUGETLB = np.uint64(1 << 37)
LARGE = np.uint64(1 << 38)
FOLIO_ORDER = np.uint64(40)  # six bits
_TWO_BITS, _TAG = np.uint64(3), np.uint64(1)

# The largest block of the buddy allocator, in pages: chunks begin at a multiple of it, so that no
# block lies in two (MAX_PAGE_ORDER is 10 on x86).
BLOCK = 1 << 10
CHUNK = BLOCK << 6
_ATTEMPTS = 5


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


class _Words(Rows):
    # The words of a frame each, as in RawRuns.
    state: U64
    count: I32
    memcg: U64
    object: U64
    extra: U64


def read_runs(frames: FrameMap, layout: FrameLayout, first: int, last: int) -> RawRuns:
    """Read the struct pages of frames [``first``, ``last``), at most CHUNK, within one chunk."""
    for attempt in range(_ATTEMPTS):
        at, words = _read(frames, layout, first, last)
        if attempt + 1 == _ATTEMPTS or not (words.state & TORN).any():
            break
    start = alike(words.state, words.count, words.memcg, words.object, words.extra)
    pages = np.diff(at[start], append=last - first)
    run = take(words, start)
    return RawRuns(
        at[start] + first, pages, run.state, run.count, run.memcg, run.object, run.extra
    )


def _read(frames: FrameMap, layout: FrameLayout, first: int, last: int) -> tuple[I64, _Words]:
    # The words of the frames at positions (i64), behind which those up to the next are the same.
    data, errno = _struct_pages(frames.kernel, frames.mem_map, first, last)
    at = _outside_blocks(layout, data)
    if len(at) < len(data):
        data, errno = data[at], errno[at]
    words, page = data.view(np.uint64), layout.page
    own = data.view(np.int32)[:, page.mapcount // 4]
    place = (at + first).astype(np.uint64) * np.uint64(layout.size) + np.uint64(frames.mem_map.base)
    flags, compound = words[:, page.flags // 8], words[:, page.compound_head // 8]
    found = _words_of(layout, data, own)
    found.state[_are_unlisted(layout, words, place, found)] |= UNLISTED
    large = ((compound & _TAG) | (flags & page.head) != 0) & ~_are_free(layout, own)
    if large.any():
        heads = np.where(compound & _TAG != 0, compound - _TAG, place)[large]
        part = _in_folios(frames, layout, heads, own[large])
        for name in found.names:
            getattr(found, name)[large] = getattr(part, name)
    _put_fixed(layout, found, words, own)
    _put_state(found, errno != 0, TORN)
    return at, found


def _put_state(found: _Words, rows: Bool, state: np.uint64) -> None:
    # All that there is to say about ``rows``.
    for column in (found.count, found.memcg, found.object, found.extra):
        column[rows] = 0
    found.state[rows] = state


def _put_fixed(layout: FrameLayout, found: _Words, words: U64, own: I32) -> None:
    # Frames that the page allocator does not have: reserved, or not yet initialised.
    page = layout.page
    flags = words[:, page.flags // 8]
    parts = (page.compound_head, page.mapping, page.mapcount)
    blank = (flags | np.bitwise_or.reduce([words[:, part // 8] for part in parts])) == 0
    _put_state(found, blank, BLANK)
    reserved = flags & layout.reserved != 0
    _put_state(found, reserved, layout.reserved)
    found.count[reserved] = own_counts(own[reserved])


def _struct_pages(kernel: Kernel, mem_map: MemMap, first: int, last: int) -> tuple[U8, I32]:
    data = np.empty((last - first, mem_map.size), np.uint8)
    errno = np.empty(last - first, np.int32)
    pfns = np.arange(first, last, dtype=np.uint64)
    for at, rows, codes in element_batches(kernel.memory, mem_map.base, pfns, mem_map.size):
        data[at : at + len(rows)], errno[at : at + len(rows)] = rows, codes
    data[errno != 0] = 0
    return data, errno


def _are_free(layout: FrameLayout, own: I32) -> Bool:
    return layout.types["buddy"].test(own.view(np.uint32))


def _outside_blocks(layout: FrameLayout, data: U8) -> I64:
    # The positions of all frames but those of a free block that are not its first: the type and the
    # order are only there, and what other pages of it say is left over from before.
    own = data.view(np.int32)[:, layout.page.mapcount // 4]
    flags = data.view(np.uint64)[:, layout.page.flags // 8]
    heads = np.flatnonzero(_are_free(layout, own) & (flags & layout.reserved == 0))
    order = data.view(np.uint64)[heads, layout.private // 8]
    order = np.minimum(order, np.uint64(BLOCK.bit_length() - 1)).astype(np.int64)
    ends = np.minimum(heads + (1 << order), len(data))
    # A head inside another block is left over from an earlier, smaller one.
    reach = np.maximum.accumulate(ends)
    outer = np.ones(len(heads), bool)
    outer[1:] = heads[1:] >= reach[:-1]
    edges = np.zeros(len(data) + 1, np.int8)
    edges[heads[outer] + 1] = 1
    edges[ends[outer]] -= 1
    return np.flatnonzero(np.cumsum(edges[:-1], dtype=np.int8) == 0)


def _words_of(layout: FrameLayout, head: U8, own: I32) -> _Words:
    # The words of frames from the struct page of their folio's head (u8[n, size or more]), and
    # their own mapcount.
    words, page = head.view(np.uint64), layout.page
    flags, mapping = words[:, page.flags // 8], words[:, page.mapping // 8]
    type_of = head.view(np.int32)[:, page.mapcount // 4]
    slab = _are_slabs(layout, flags, type_of)
    typed = (type_of <= FIRST_TYPE) | slab
    low = np.where(typed, np.uint64(0), mapping & _TWO_BITS)
    alone = ~typed & (mapping == 0)
    refs = np.where(alone, _references(layout, head), np.uint64(0))
    count = np.where(typed, type_of, own_counts(own))
    if page.slab:  # something else is in place of the count
        count[slab] = 0
    object_ = np.where(typed | (low != 0), np.uint64(0), mapping)
    object_ = np.where(slab, words[:, layout.slab_cache // 8], object_)
    free = _are_free(layout, type_of)
    extra = np.where(slab, words[:, layout.slab_counters // 8], np.uint64(0))
    extra = np.where(free, words[:, layout.private // 8], extra)
    memcg = np.zeros(len(flags), np.uint64)
    if layout.memcg is not None:
        memcg = np.where(free, np.uint64(0), words[:, layout.memcg // 8])
    state = flags & layout.kept | low << KIND_SHIFT | refs << REFS_SHIFT
    return _Words(state, count, memcg, object_, extra)


def _are_slabs(layout: FrameLayout, flags: U64, type_of: I32) -> Bool:
    by_flag: Bool = flags & layout.page.slab != 0
    if "slab" not in layout.types:
        return by_flag
    return by_flag | layout.types["slab"].test(type_of.view(np.uint32))


def _references(layout: FrameLayout, head: U8) -> U64:
    # 2 for any more than that
    refs: U64 = head.view(np.int32)[:, layout.page.refcount // 4].clip(0, 2).astype(np.uint64)
    return refs


def own_counts(own: I32) -> I32:
    # How often pages with these _mapcounts are mapped by themselves.
    counts: I32 = np.maximum(own, -1) + np.int32(1)
    return counts


def _are_unlisted(layout: FrameLayout, words: U64, place: U64, found: _Words) -> Bool:
    # A frame without references is free and on a per-CPU list, or the rest of a block whose first
    # frame has the reference: that one was never put on a list.
    next_, previous = (words[:, layout.lru // 8 + n] for n in (0, 1))
    apart = (next_ == previous) & ((next_ == place + np.uint64(layout.lru)) | (next_ == 0))
    without = (found.state >> REFS_SHIFT & _TWO_BITS == 0) & (found.count >= 0)
    page = layout.page
    bare = words[:, page.flags // 8] & page.slab | words[:, page.mapping // 8]
    unlisted: Bool = apart & without & (bare == 0)
    return unlisted


def _in_folios(frames: FrameMap, layout: FrameLayout, heads: U64, own: I32) -> _Words:
    # The words of pages of large folios: their heads are read again, with their second pages.
    begins = alike(heads)
    back = np.repeat(np.arange(len(begins)), np.diff(begins, append=len(heads)))
    heads, folio, errno = read_heads(frames, heads[begins])
    found, order, same = _of_heads(layout, folio)
    second = folio.view(np.uint64)[:, (layout.size + layout.page.compound_head) // 8]
    is_head = folio.view(np.uint64)[:, layout.page.flags // 8] & layout.page.head != 0
    torn = (errno != 0) | ~is_head | (second != heads + _TAG) | (order > LARGEST_ORDER)
    found = take(found, back)
    found.count[:] += np.where(same[back], 0, own_counts(own)).astype(np.int32)
    _put_state(found, torn[back], TORN)
    return found


def _of_heads(layout: FrameLayout, folio: U8) -> tuple[_Words, U64, Bool]:
    # (words, order, same) of folios: where not `same`, each page's own mappings have to be added.
    page, numbers = layout.page, folio.view(np.int32)
    type_of = numbers[:, page.mapcount // 4]
    found = _words_of(layout, folio, type_of)
    more = folio.view(np.uint64)[:, page.second_flags // 8]
    slab = _are_slabs(layout, folio.view(np.uint64)[:, page.flags // 8], type_of)
    hugetlb = page.is_hugetlb(type_of.view(np.uint32), more, folio) & ~slab
    same = ((type_of <= FIRST_TYPE) | slab) & ~hugetlb
    whole = (numbers[:, page.entire_mapcount // 4] >= 0) & ~same
    mapped = page.is_mapped(numbers) & ~same
    order = more & np.uint64(0xFF)
    if layout.compound_order is not None:
        order = folio[:, layout.compound_order].astype(np.uint64)
    state = found.state | whole * WHOLE | mapped * SOME | hugetlb * HUGETLB | LARGE
    state |= hugetlb * _references(layout, folio) << REFS_SHIFT | order << FOLIO_ORDER
    found.state[:] = state
    entire = entire_counts(page, columns_of(page, folio), folio)
    np.copyto(found.count, entire, where=~same)
    return found, order, same
