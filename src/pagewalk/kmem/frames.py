"""The frame database read from struct page itself: flags, mapcount, owner of every page frame.

The answers are those of /proc/kpageflags and /proc/kpagecount (fs/proc/page.c) in a fraction of
the time, and PG_young besides, which the kernel exports nowhere. What the pages of a large folio
share is taken from its head, for a tail too. ``layout`` knows how this kernel lays it out;
``differences`` compares with the kernel's own files, which is to be done before relying on it.
"""

from __future__ import annotations

import errno as errnos
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import SourceUnavailable
from pagewalk.kmem.directmap import MemMap
from pagewalk.kmem.kernel import Kernel
from pagewalk.kmem.layout import Layout, kpf, page_layout
from pagewalk.kmem.memory import I32, element_batches, read_elements, read_structs
from pagewalk.kmem.zero import ZeroFrames
from pagewalk.pages import I64, U8, U32, U64, Bool

T = TypeVar("T", bound=np.generic)

_TAG = np.uint64(1)
# Up to this, _mapcount is a page type and no count (page_type_has_type).
_FIRST_TYPE = -128
# include/linux/page-flags.h: the low two bits of a folio's mapping word are its kind: 1 anonymous,
# 3 KSM, which is anonymous too.
_KIND, _ANON = np.uint8(3), np.uint8(1)
_KIND_BITS = np.array([0, kpf("anon"), 0, kpf("anon") | kpf("ksm")], np.uint64)
_ATTEMPTS = 3

# What read_frames says in flags: /proc/kpageflags less buddy, nopage, arch_2 and arch_3, which
# takes more than the page's own struct page, and less bits gone long ago.
EXPORTED = np.bitwise_or.reduce(
    [
        kpf(name)
        for name in (
            *("locked", "referenced", "uptodate", "dirty", "lru", "active", "slab", "writeback"),
            *("reclaim", "mmap", "anon", "swapcache", "swapbacked", "head", "tail", "huge"),
            *("unevictable", "hwpoison", "ksm", "thp", "offline", "zero_page", "idle", "pgtable"),
            *("reserved", "mlocked", "owner_2", "private", "private_2", "owner_private", "arch"),
        )
    ]
)


@dataclass(frozen=True)
class FrameRows:
    """Hold one row per frame asked for.

    ``flags`` u64, bits as in /proc/kpageflags, those of ``EXPORTED`` only, a tail's being its
    folio's; ``mapcount`` i32, as /proc/kpagecount; ``young`` bool, PG_young of the folio;
    ``head`` u64, the PFN of the folio's first page; ``errno`` i32, 0 where the row holds and
    otherwise why not (EFAULT no struct page, ENXIO one that was never initialised, EAGAIN the
    folio changed in every attempt): the rest of that row means nothing.
    """

    flags: U64
    mapcount: I32
    young: Bool
    head: U64
    errno: I32


@dataclass(frozen=True)
class Owners:
    """Hold whose each frame is: the folio's ``mapping`` word u64 as the kernel keeps it (low bits
    are its kind), its ``index`` u64 there in pages, and ``errno`` i32 as in FrameRows."""

    mapping: U64
    index: U64
    errno: I32


@dataclass(frozen=True)
class FrameMap:
    """Hold what reading struct pages takes; made by ``open_frame_map``."""

    kernel: Kernel
    mem_map: MemMap
    layout: Layout
    zero: ZeroFrames


def open_frame_map(kernel: Kernel, mem_map: MemMap, zero: ZeroFrames) -> FrameMap:
    """Prepare to read struct pages; raises SourceUnavailable when BTF does not tell enough."""
    try:
        return FrameMap(kernel, mem_map, page_layout(kernel.btf), zero)
    except LookupError as error:
        raise SourceUnavailable(
            "struct page", f"this kernel's BTF has no {error.args[0]}", "take /proc/kpageflags"
        ) from error


def read_frames(frames: FrameMap, pfns: U64) -> FrameRows:
    """Read one row per frame of ``pfns`` (u64[n], any order; ascending ones are fast).

    A folio that is split or freed while it is read is read again, up to three times.
    """
    n = len(pfns)
    out = FrameRows(
        flags=np.zeros(n, np.uint64),
        mapcount=np.zeros(n, np.int32),
        young=np.zeros(n, bool),
        head=np.zeros(n, np.uint64),
        errno=np.zeros(n, np.int32),
    )
    for first, part in frame_batches(frames, pfns):
        _put(out, slice(first, first + len(part.flags)), part)
    for _ in range(_ATTEMPTS - 1):
        again = np.flatnonzero(out.errno == errnos.EAGAIN)
        for first, part in frame_batches(frames, pfns[again]):
            _put(out, again[first : first + len(part.flags)], part)
    return out


def _put(out: FrameRows, rows: slice | I64, part: FrameRows) -> None:
    for name, column in vars(part).items():
        getattr(out, name)[rows] = column


def read_owners(frames: FrameMap, heads: U64) -> Owners:
    """Read the owner of each folio whose first page is in ``heads`` (u64[n], FrameRows.head)."""
    pages, errno = read_elements(
        frames.kernel.memory, frames.mem_map.base, heads, frames.mem_map.size
    )
    words = pages.view(np.uint64)
    layout = frames.layout
    return Owners(words[:, layout.mapping // 8], words[:, layout.index // 8], errno)


def frame_batches(frames: FrameMap, pfns: U64) -> Iterator[tuple[int, FrameRows]]:
    """Read as read_frames does, but once: yield (first row, rows) per batch.

    Here errno EAGAIN marks the pages of a folio that changed while it was read.
    """
    base, size = frames.mem_map.base, frames.mem_map.size
    for first, pages, errno in element_batches(frames.kernel.memory, base, pfns, size):
        yield first, _decode(frames, pfns[first : first + len(pages)], pages, errno)


@dataclass(frozen=True)
class _Folios:
    # What the first two pages of large folios say: one row per page of such a folio.
    flags: U64
    kind: U8
    types: U32
    head: U64
    huge: Bool
    rmappable: Bool
    entire: I32
    mapped: Bool
    double: Bool
    intact: Bool


# Most batches hold ordinary pages only. So what is rare is asked for once a batch, by the OR of
# all flag words or the least of all counts, and worked out by row only where it occurs: a million
# frames are to take 30 ms, and each pass over a batch takes them one.


def _decode(frames: FrameMap, pfns: U64, pages: U8, errno: I32) -> FrameRows:
    layout = frames.layout
    words = pages.view(np.uint64)
    # Copies: the batch's buffer is about to be read into again.
    flags = words[:, layout.flags // 8].copy()
    kind = pages[:, layout.mapping] & _KIND
    mapcount = pages.view(np.int32)[:, layout.mapcount // 4] + np.int32(1)
    if not flags.min(initial=1):
        _mark_uninitialised(layout, pages, errno)
    large = _large_rows(layout, flags, words[:, layout.compound_head // 8])
    bits, head = _own_bits(layout, flags, mapcount), pfns
    mapcount[mapcount <= _FIRST_TYPE] = 0
    mapped = mapcount > 0
    if large is not None:
        folios = _read_folios(frames, pfns[large], words[large, layout.compound_head // 8])
        head = pfns.copy()
        head[large], flags[large], kind[large] = folios.head, folios.flags, folios.kind
        mapcount[large] = _large_mapcount(layout, folios, mapcount[large])
        mapped[large] = folios.mapped if layout.mapped_is_told else mapcount[large] > 0
        bits[large] |= _large_bits(layout, folios, pfns[large])
        errno[large] = np.where(folios.intact, errno[large], errnos.EAGAIN)
    seen = np.bitwise_or.reduce(flags)
    if seen & layout.slab:
        # Up to 6.9 slab was a flag, and slab pages keep something else where the mapcount is.
        slab = flags & layout.slab != 0
        mapcount[slab], mapped[slab] = 0, False
    bits |= layout.copied(flags)
    bits |= _KIND_BITS[kind.astype(np.int64)]
    bits |= mapped * kpf("mmap")
    if seen & layout.swapcache == layout.swapcache:
        bits |= (flags & layout.swapcache == layout.swapcache) * kpf("swapcache")
    _mark_zero(frames.zero, head, bits)
    return FrameRows(bits, mapcount, flags & layout.young != 0, head, errno)


def _mark_uninitialised(layout: Layout, pages: U8, errno: I32) -> None:
    # A struct page that is all zero would be mapped once and yet have no reference: the kernel
    # did not initialise it yet (deferred_init) or never will.
    numbers = pages.view(np.int32)
    blank = pages.view(np.uint64)[:, layout.flags // 8] == 0
    blank &= pages.view(np.uint64)[:, layout.compound_head // 8] & _TAG == 0
    blank &= numbers[:, layout.refcount // 4] == 0
    blank &= numbers[:, layout.mapcount // 4] >= 0
    errno[blank & (errno == 0)] = errnos.ENXIO


def _own_bits(layout: Layout, flags: U64, mapcount: I32) -> U64:
    # What is a page's own and not its folio's: its type, where it is no part of one, and poison.
    bits = np.zeros(len(flags), np.uint64)
    if mapcount.min(initial=0) <= _FIRST_TYPE:
        bits |= _type_bits(layout, (mapcount - 1).view(np.uint32))
    if layout.hwpoison:
        bits |= (flags & layout.hwpoison != 0) * kpf("hwpoison")
    return bits


def _large_rows(layout: Layout, flags: U64, compound: U64) -> I64 | slice | None:
    seen = np.bitwise_or.reduce(compound) & _TAG | np.bitwise_or.reduce(flags) & layout.head
    if not seen:
        return None
    large = (compound & _TAG) | (flags & layout.head) != 0
    return slice(None) if large.all() else np.flatnonzero(large)


def _read_folios(frames: FrameMap, pfns: U64, compound: U64) -> _Folios:
    base, size = np.uint64(frames.mem_map.base), np.uint64(frames.mem_map.size)
    layout, memory = frames.layout, frames.kernel.memory
    heads = np.where(compound & _TAG != 0, compound - _TAG, pfns * size + base)
    # Pages of one folio are neighbours: each run's head is read once.
    begins = np.flatnonzero(np.append(True, heads[1:] != heads[:-1]))
    times = np.diff(begins, append=len(heads))
    heads = heads[begins]
    data, errno = read_structs(memory, heads, layout.folio_bytes)
    second = data.view(np.uint64)[:, (frames.mem_map.size + layout.compound_head) // 8]
    # The structs of an optimised hugetlb folio's tails are one page of structs mapped again and
    # again, whose first looks like a head (page_fixed_fake_head): the struct behind it knows.
    fake = np.flatnonzero((second & _TAG != 0) & (second - _TAG != heads))
    if len(fake):
        heads[fake] = second[fake] - _TAG
        data[fake], errno[fake] = read_structs(memory, heads[fake], layout.folio_bytes)
    words, numbers = data.view(np.uint64), data.view(np.int32)
    flags, more = words[:, layout.flags // 8], words[:, layout.second_flags // 8]
    types = data.view(np.uint32)[:, layout.mapcount // 4]
    kind = data[:, layout.mapping] & _KIND
    # Before large_rmappable (6.6) what is on the LRU or anonymous was taken for it.
    old = (flags & layout.lru != 0) | (kind & _ANON != 0)
    rmappable = more & layout.large_rmappable != 0 if layout.large_rmappable else old
    intact = (errno == 0) & (flags & layout.head != 0) & (second - _TAG == heads)

    def each(column: NDArray[T]) -> NDArray[T]:
        return np.repeat(column, times)

    return _Folios(
        flags=each(flags),
        kind=each(kind),
        types=each(types),
        head=each((heads - base) // size),
        huge=each(layout.is_hugetlb(types, more, data)),
        rmappable=each(rmappable),
        entire=each(numbers[:, layout.entire_mapcount // 4] + np.int32(1)),
        mapped=each(layout.is_mapped(numbers)),
        double=each(more & layout.double_map != 0),
        intact=each(intact),
    )


def _large_mapcount(layout: Layout, folios: _Folios, mapcount: I32) -> I32:
    # folio_precise_page_mapcount(): a page of a large folio is also mapped where the whole is.
    total: I32 = mapcount + folios.entire
    if layout.double_map:
        # (up to 6.1) __page_mapcount(): a file folio's own counts have the entire ones in them,
        # and an anonymous one mapped both ways has one too many in each page.
        own = (folios.kind & _ANON == 0) & ~folios.huge
        total = np.where(own, mapcount, total - folios.double)
    return total


def _large_bits(layout: Layout, folios: _Folios, pfns: U64) -> U64:
    bits: U64 = np.where(folios.head == pfns, kpf("head"), kpf("tail"))
    bits |= folios.huge * kpf("huge")
    bits |= (folios.rmappable & ~folios.huge) * kpf("thp")
    return bits | _type_bits(layout, folios.types)


def _type_bits(layout: Layout, types: U32) -> U64:
    bits = np.zeros(len(types), np.uint64)
    for name, test in layout.types.items():
        bits |= test.test(types) * kpf(name)
    return bits


def _mark_zero(zero: ZeroFrames, head: U64, bits: U64) -> None:
    bits[head == np.uint64(zero.small)] |= kpf("zero_page")
    if zero.huge is not None:
        bits[head == np.uint64(zero.huge)] |= kpf("zero_page") | kpf("thp")
