"""Decode struct pages into the words of /proc/kpageflags and /proc/kpagecount.

The rules are those of fs/proc/page.c (stable_page_flags, get_kpage_count), applied to ``layout``,
which knows how this kernel lays out struct page.
"""

import errno as errnos
from typing import NamedTuple

import numpy as np

from pagewalk.kernel.readers.memory import read_structs
from pagewalk.kernel.structs import page_layout
from pagewalk.kernel.structs.direct_map import MemMap
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.page_layout import FLAG_BITS, INITIALISED, TAIL, Layout
from pagewalk.kernel.structs.zero import ZeroFrames
from pagewalk.model.bits import KPF, kpf
from pagewalk.model.columns import I32, I64, U8, U32, U64, Bool

_TAG = np.uint64(1)
# Up to this, _mapcount is a page type rather than a count (page_type_has_type).
FIRST_TYPE = -128
_UNMAPPED = np.uint32(0xFFFFFFFF)
# include/linux/page-flags.h: the low two bits of a folio's mapping word are its kind: 1 anonymous,
# 3 KSM, which is anonymous too.
_KIND, _ANON = np.uint8(3), np.uint8(1)
_KIND_SHIFT = np.uint64(62)
_KIND_BITS = np.array([0, kpf("anon"), 0, kpf("anon") | kpf("ksm")], np.uint64)

# Bits of /proc/kpageflags that read_struct_pages does not report, because they need more than the
# page's own struct page or are long gone; and young, which has a column of its own.
_NOT_EXPORTED = ("buddy", "nopage", "arch_2", "arch_3", "error", "uncached", "softdirty", "young")
EXPORTED = kpf(*KPF) & ~kpf(*_NOT_EXPORTED)


class FrameRows(NamedTuple):
    """One row per requested frame.

    ``flags`` (u64): bits as in /proc/kpageflags, limited to ``EXPORTED``; a tail has its folio's.
    ``mapcount`` (i32): as in /proc/kpagecount. ``young`` (bool): PG_young of the folio. ``errno``
    (i32): 0 if the row is valid, or else why not (EFAULT no struct page, ENXIO one that was never
    initialised, EAGAIN the folio changed on every attempt); then flags and count are 0, like those
    of unknown frames in /proc/kpage*.
    """

    flags: U64
    mapcount: I32
    young: Bool
    errno: I32


def blank_rows(n: int) -> FrameRows:
    """Return ``n`` rows of zeros."""
    mapcount, errno = np.zeros((2, n), np.int32)
    return FrameRows(np.zeros(n, np.uint64), mapcount, np.zeros(n, bool), errno)


class FrameMap(NamedTuple):
    """What reading struct pages needs; made by ``open_frame_map``."""

    kernel: Kernel
    mem_map: MemMap
    layout: Layout
    zero: ZeroFrames


def put_rows(out: FrameRows, rows: slice | I64, part: FrameRows) -> None:
    """Write ``part`` into ``rows`` of ``out``, column by column."""
    for name, column in part._asdict().items():
        getattr(out, name)[rows] = column


class StructColumns(NamedTuple):
    # Columns of struct pages as they are, copied because the batch's buffer is soon reused.
    flags: U64
    compound: U64
    kind: U8
    mapcount: I32


# Accounting waits for this: a million frames should take some 30 ms, of which reading them takes
# half, and each pass over a column adds almost one. So rare properties are checked once per batch,
# and what the pages of a folio share is computed once per folio.


def decode_pages(frames: FrameMap, pfns: U64, data: U8, errno: I32) -> FrameRows:
    """Decode the struct pages of ``pfns`` (u64[n]) from ``data`` (u8[n, sizeof struct page]).

    ``errno`` (i32[n]) is that of their reads. The heads of large folios are read from memory.
    """
    page = columns_of(frames.layout, data)
    if not page.flags.min(initial=1):
        _mark_uninitialised(frames.layout, page, data, errno)
    large = _are_large(frames.layout, page)
    if large is None:
        return _ordinary(frames, pfns, page, errno)
    if large.all():
        return _in_folios(frames, pfns, page, errno)
    out = blank_rows(len(pfns))
    for rows, part in ((~large, _ordinary), (large, _in_folios)):
        here = np.flatnonzero(rows)
        some = StructColumns._make(column[here] for column in page)
        put_rows(out, here, part(frames, pfns[here], some, errno[here]))
    return out


def columns_of(layout: Layout, data: U8) -> StructColumns:
    words = data.view(np.uint64)
    return StructColumns(
        flags=words[:, layout.flags // 8].copy(),
        compound=words[:, layout.compound_head // 8].copy(),
        kind=data[:, layout.mapping] & _KIND,
        mapcount=data.view(np.int32)[:, layout.mapcount // 4].copy(),
    )


def _mark_uninitialised(layout: Layout, page: StructColumns, data: U8, errno: I32) -> None:
    # A struct page that is all zero would be mapped once and yet have no reference: the kernel has
    # not initialised it yet (deferred_init) or never will.
    blank = (page.flags == 0) & (page.compound & _TAG == 0) & (page.mapcount >= 0)
    blank &= data.view(np.int32)[:, layout.refcount // 4] == 0
    errno[blank & (errno == 0)] = errnos.ENXIO


def _are_large(layout: Layout, page: StructColumns) -> Bool | None:
    # Which rows are pages of a large folio; None if none is, which is nearly always so.
    tails, heads = np.bitwise_or.reduce(page.compound), np.bitwise_or.reduce(page.flags)
    if not (tails & _TAG or heads & layout.head):
        return None
    large: Bool = (page.compound & _TAG) | (page.flags & layout.head) != 0
    return large if large.any() else None


def _ordinary(frames: FrameMap, pfns: U64, page: StructColumns, errno: I32) -> FrameRows:
    bits, mapcount = _ordinary_bits(frames.layout, page)
    bits[pfns == np.uint64(frames.zero.small)] |= kpf("zero_page")
    return FrameRows(bits, mapcount, page.flags & frames.layout.young != 0, errno)


def decode_words(layout: Layout, words: U64) -> tuple[U64, I32, Bool]:
    """Decode condensed struct pages (u64[n], see FLAG_BITS) of pages outside large folios into
    (flags, mapcount, young) as in FrameRows, except that words do not identify the zero page."""
    flags = words & np.uint64((1 << FLAG_BITS) - 1)
    kind = (words >> np.uint64(page_layout.KIND_SHIFT)).astype(np.uint8) & _KIND
    mapcount = (words >> np.uint64(page_layout.COUNT_SHIFT)).astype(np.int32)
    page = StructColumns(flags, words, kind, mapcount)
    bits, mapcount = _ordinary_bits(layout, page)
    return bits, mapcount, flags & layout.young != 0


def tell_apart(layout: Layout, words: U64) -> Bool:
    """Return which condensed struct pages (u64[n]) ``decode_words`` can decode."""
    clear: Bool = words & (TAIL | INITIALISED | layout.head) == INITIALISED
    return clear


def _ordinary_bits(layout: Layout, page: StructColumns) -> tuple[U64, I32]:
    mapcount = _own_mapcount(page.mapcount)
    # Up to 6.9 slab was a flag, and slab pages keep something else in place of the mapcount.
    if layout.slab:
        mapcount[page.flags & layout.slab != 0] = 0
    bits = _shared_bits(layout, page.flags, page.kind)
    if page.mapcount.min(initial=0) <= FIRST_TYPE:
        bits |= _type_bits(layout, page.mapcount.view(np.uint32))
    if layout.hwpoison:
        bits |= (page.flags & layout.hwpoison != 0) * kpf("hwpoison")
    bits |= (mapcount > 0) * kpf("mmap")
    return bits, mapcount


def _in_folios(frames: FrameMap, pfns: U64, page: StructColumns, errno: I32) -> FrameRows:
    layout = frames.layout
    folios = _read_folios(frames, pfns, page.compound)
    times = folios.pages
    bits = np.repeat(folios.bits, times)
    bits |= np.where(np.repeat(folios.head, times) == pfns, kpf("head"), kpf("tail"))
    # folio_precise_page_mapcount(): a page is also mapped wherever the whole folio is.
    mapcount = _own_mapcount(page.mapcount) + np.repeat(folios.entire, times)
    if folios.slab.any():
        mapcount[np.repeat(folios.slab, times)] = 0
    if not layout.records_mapped:
        bits |= (mapcount > 0) * kpf("mmap")
    if layout.hwpoison:
        poisoned = (page.flags & layout.hwpoison != 0) & (bits & kpf("huge") == 0)
        bits |= poisoned * kpf("hwpoison")
    broken = np.repeat(~folios.intact, times)
    errno = np.where((errno == 0) & broken, errnos.EAGAIN, errno).astype(np.int32)
    return FrameRows(bits, mapcount, np.repeat(folios.young, times), errno)


class _Folios(NamedTuple):
    # One row per run of pages of one large folio: how many there are, the folio's first PFN, the
    # bits that they share, and how often the folio is mapped as a whole.
    pages: I64
    head: U64
    bits: U64
    entire: I32
    young: Bool
    slab: Bool
    intact: Bool


def _read_folios(frames: FrameMap, pfns: U64, compound: U64) -> _Folios:
    base, size = np.uint64(frames.mem_map.base), np.uint64(frames.mem_map.size)
    layout = frames.layout
    heads = np.where(compound & _TAG != 0, compound - _TAG, pfns * size + base)
    begins = np.flatnonzero(np.append(True, heads[1:] != heads[:-1]))
    pages = np.diff(begins, append=len(heads))
    heads, data, errno = read_heads(frames, heads[begins])
    head = columns_of(layout, data)
    second = data.view(np.uint64)[:, (frames.mem_map.size + layout.compound_head) // 8]
    return _Folios(
        pages=pages,
        head=(heads - base) // size,
        bits=_large_bits(frames, head, data, (heads - base) // size),
        entire=entire_counts(layout, head, data),
        young=head.flags & layout.young != 0,
        slab=head.flags & layout.slab != 0,
        intact=(errno == 0) & (head.flags & layout.head != 0) & (second - _TAG == heads),
    )


def read_heads(frames: FrameMap, heads: U64) -> tuple[U64, U8, I32]:
    memory, size = frames.kernel.memory, frames.layout.folio_bytes
    data, errno = read_structs(memory, heads, size)
    at = (frames.mem_map.size + frames.layout.compound_head) // 8
    second = data.view(np.uint64)[:, at]
    # The structs of an optimised hugetlb folio's tails are one page of structs mapped repeatedly,
    # the first of which looks like a head (page_fixed_fake_head): the struct after it shows that.
    fake = np.flatnonzero((second & _TAG != 0) & (second - _TAG != heads))
    if len(fake):
        heads[fake] = second[fake] - _TAG
        data[fake], errno[fake] = read_structs(memory, heads[fake], size)
    return heads, data, errno


def _large_bits(frames: FrameMap, head: StructColumns, data: U8, pfns: U64) -> U64:
    layout = frames.layout
    more = data.view(np.uint64)[:, layout.second_flags // 8]
    types = head.mapcount.view(np.uint32)
    huge = layout.is_hugetlb(types, more, data)
    # Before large_rmappable (6.6) a folio on the LRU, or an anonymous one, counted as THP.
    thp = (head.flags & layout.lru != 0) | (head.kind & _ANON != 0)
    if layout.large_rmappable:
        thp = more & layout.large_rmappable != 0
    bits = _shared_bits(layout, head.flags, head.kind) | _type_bits(layout, types)
    bits |= huge * kpf("huge") | (thp & ~huge) * kpf("thp")
    if layout.records_mapped:
        slab = head.flags & layout.slab != 0
        bits |= (layout.is_mapped(data.view(np.int32)) & ~slab) * kpf("mmap")
    if layout.hwpoison:
        bits |= (huge & (head.flags & layout.hwpoison != 0)) * kpf("hwpoison")
    # The huge zero page has no mapcount; its struct page says only that it is large.
    blank = ~huge & ~thp & (data.view(np.uint64)[:, layout.mapping // 8] == 0)
    blank &= head.flags & (layout.lru | layout.swapcache | layout.slab) == 0
    entire = data.view(np.uint32)[:, layout.entire_mapcount // 4]
    blank &= (types == _UNMAPPED) & (entire == _UNMAPPED)
    if blank.any():
        at = np.flatnonzero(blank)
        bits[at[frames.zero.are_huge(pfns[at])]] |= kpf("zero_page") | kpf("thp")
    return bits


def entire_counts(layout: Layout, head: StructColumns, data: U8) -> I32:
    # How often each folio is mapped as a whole, which is added for each of its pages.
    numbers = data.view(np.int32)
    entire: I32 = numbers[:, layout.entire_mapcount // 4] + np.int32(1)
    if not layout.double_map:
        return entire
    # Up to 6.1, __page_mapcount(): a file folio's pages already include it in their own counts, and
    # each page of an anonymous folio that is mapped both ways has one too many.
    more = data.view(np.uint64)[:, layout.second_flags // 8]
    huge = layout.is_hugetlb(head.mapcount.view(np.uint32), more, data)
    double = more & layout.double_map != 0
    own = (head.kind & _ANON == 0) & ~huge
    return np.where(own, 0, entire - double).astype(np.int32)


def _own_mapcount(count: I32) -> I32:
    # _mapcount is -1 for an unmapped page, and far below that for a page type.
    mapcount: I32 = count + np.int32(1)
    mapcount[count <= FIRST_TYPE] = 0
    return mapcount


def _shared_bits(layout: Layout, flags: U64, kind: U8) -> U64:
    # Neighbours are mostly equal: if nearly all are like the first, only the others are decoded.
    key = flags & layout.copied_mask | kind.astype(np.uint64) << _KIND_SHIFT
    odd = np.flatnonzero(key != key[0]) if len(key) else key[:0].astype(np.int64)
    if 4 * len(odd) > len(key):
        return _decode_key(layout, key)
    bits = np.full(len(key), _decode_key(layout, key[:1])[0] if len(key) else 0, np.uint64)
    bits[odd] = _decode_key(layout, key[odd])
    return bits


def _decode_key(layout: Layout, key: U64) -> U64:
    bits = layout.copied(key)
    bits |= _KIND_BITS[(key >> _KIND_SHIFT).view(np.int64)]
    bits |= (key & layout.swapcache == layout.swapcache) * kpf("swapcache")
    return bits


def _type_bits(layout: Layout, types: U32) -> U64:
    bits = np.zeros(len(types), np.uint64)
    for name, test in layout.types.items():
        bits |= test.test(types) * kpf(name)
    return bits
