"""How this kernel lays out struct page: offsets and bits from BTF, and rules that BTF lacks.

Where kernels differ, the newest layout is tried first. They are told apart by names in BTF, never
by version number, because distributions backport.
"""

from functools import reduce
from operator import or_
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.kernel.structs.btf import Btf
from pagewalk.model.bits import kpf
from pagewalk.model.columns import U8, U32, U64, Bool
from pagewalk.model.errors import NotInBtf

# enum pageflags -> the bit of /proc/kpageflags that fs/proc/page.c copies it to. Not every kernel
# has them all. swapcache and hwpoison have rules of their own; PG_head is per page, not per folio.
_SAME_NAME = (
    "locked", "error", "referenced", "uptodate", "dirty", "lru", "active", "slab", "writeback",
    "reclaim", "swapbacked", "unevictable", "idle", "reserved", "mlocked", "private", "private_2",
)  # fmt: skip
_COPIED = {f"PG_{name}": name for name in _SAME_NAME} | {
    "PG_mappedtodisk": "owner_2", "PG_owner_priv_1": "owner_private", "PG_arch_1": "arch",
}  # fmt: skip
_HALF = 12
_HALF_MASK = np.uint64((1 << _HALF) - 1)

# A condensed struct page: the low bits of the flags, then whether the page was ever initialised,
# whether it is a tail, and the kind of its mapping; the upper half is _mapcount as it stands.
FLAG_BITS = 28
INITIALISED, TAIL = np.uint64(1 << FLAG_BITS), np.uint64(1 << FLAG_BITS + 1)
KIND_SHIFT, COUNT_SHIFT = FLAG_BITS + 2, 32

_TYPES = {"offline": "offline", "table": "pgtable", "slab": "slab", "hugetlb": "huge"}
# Macros in include/linux/page-flags.h up to 6.9, so not in BTF.
_OLD_TYPES = {"PG_offline": 0x100, "PG_table": 0x200, "PAGE_TYPE_BASE": 0xF0000000}


class TypeTest(NamedTuple):
    """A test for a page type: the u32 that doubles as the mapcount, masked, has one value."""

    mask: np.uint32
    value: np.uint32

    def test(self, page_type: U32) -> Bool:
        """Return which of ``page_type`` (u32[n]) have this type."""
        found: Bool = (page_type & self.mask) == self.value
        return found


class Layout(NamedTuple):
    """Byte offsets in struct page, bit masks of its flags word, and page type tests.

    ``second_flags``, ``entire_mapcount``, ``large_mapcount``, ``pages_mapped`` and
    ``hugetlb_dtor`` are in the second page of a large folio, with offsets from the first; None if
    this kernel has no such member. ``folio_bytes`` is the size up to the last of them. ``low`` and
    ``high`` each convert twelve flag bits to those of /proc/kpageflags; no flag is above
    ``highest_bit``.
    """

    flags: int
    compound_head: int
    mapping: int
    mapcount: int
    refcount: int
    second_flags: int
    entire_mapcount: int
    large_mapcount: int | None
    pages_mapped: int | None
    hugetlb_dtor: int | None
    hugetlb_dtor_value: int
    folio_bytes: int
    low: U64
    high: U64
    copied_mask: np.uint64
    head: np.uint64
    lru: np.uint64
    young: np.uint64
    swapcache: np.uint64
    slab: np.uint64
    hwpoison: np.uint64
    large_rmappable: np.uint64
    double_map: np.uint64
    hugetlb_flag: np.uint64
    hugetlb_type: TypeTest | None
    types: dict[str, TypeTest]
    highest_bit: int

    def copied(self, flags: U64) -> U64:
        """Return the bits of /proc/kpageflags that are copies of ``flags`` (u64[n])."""
        # numpy indexes with i64 twice as fast as with u64.
        bits: U64 = self.high[(flags >> np.uint64(_HALF) & _HALF_MASK).view(np.int64)]
        bits |= self.low[(flags & _HALF_MASK).view(np.int64)]
        return bits

    def behind(self, wanted: np.uint64) -> int:
        """Return the flags that the bits ``wanted`` of /proc/kpageflags are made from."""
        flags = np.uint64(1) << np.arange(2 * _HALF, dtype=np.uint64)
        own = {"swapcache": self.swapcache, "hwpoison": self.hwpoison, "young": self.young}
        found = flags[self.copied(flags) & wanted != 0].tolist()
        found += [int(mask) for name, mask in own.items() if wanted & kpf(name)]
        return reduce(or_, found, 0)

    def is_hugetlb(self, page_type: U32, second_flags: U64, folio: U8) -> Bool:
        """Return which folios are hugetlb: by page type, by flag (6.6), or by destructor (6.1)."""
        if self.hugetlb_type is not None:
            return self.hugetlb_type.test(page_type)
        by_flag: Bool = second_flags & self.hugetlb_flag != 0
        if self.hugetlb_flag or self.hugetlb_dtor is None:
            return by_flag
        by_dtor: Bool = folio[:, self.hugetlb_dtor] == self.hugetlb_dtor_value
        return by_dtor

    @property
    def records_mapped(self) -> bool:
        """Return whether a large folio records that any of its pages is mapped (since 6.2)."""
        return self.large_mapcount is not None or self.pages_mapped is not None

    def is_mapped(self, folio: NDArray[np.int32]) -> Bool:
        """Return which large folios (i32[n, folio_bytes / 4]) are mapped, wholly or in part."""
        if self.large_mapcount is not None:
            return folio[:, self.large_mapcount // 4] >= 0
        mapped: Bool = folio[:, self.entire_mapcount // 4] >= 0
        if self.pages_mapped is not None:
            mapped |= folio[:, self.pages_mapped // 4] > 0
        return mapped


def page_layout(btf: Btf) -> Layout:
    """Read the layout from ``btf``; raises NotInBtf, which names what it lacks."""
    bits = _flag_bits(btf)

    def flag(name: str) -> np.uint64:
        return np.uint64(1 << bits[name]) if name in bits else np.uint64(0)

    low, high = _tables(bits)
    entire = _second_page(btf, ("folio", "_entire_mapcount"), ("page", "compound_mapcount"))
    if entire is None:
        raise NotInBtf("folio._entire_mapcount")
    # folio_mapped() tests _large_mapcount since 6.10; from 6.2 to 6.9 it tested _nr_pages_mapped.
    large = _second_page(btf, ("folio", "_large_mapcount"))
    mapped = _second_page(btf, ("folio", "_nr_pages_mapped"))
    types = _type_tests(btf)
    hugetlb_type, hugetlb_flag = types.pop("huge", None), flag("PG_hugetlb")
    # It is asked for only where it is needed: to find that a name is missing takes 0.7 ms, because
    # BTF has to be searched to its end.
    by_dtor = hugetlb_type is None and not hugetlb_flag
    dtor = _second_page(btf, ("page", "compound_dtor")) if by_dtor else None
    last = max(entire, large or 0, mapped or 0, dtor or 0)
    return Layout(
        flags=btf.offset("page", "flags"),
        compound_head=btf.offset("page", "compound_head"),
        # Release by release, members move from struct page to struct folio, which overlays it.
        mapping=btf.offset("folio", "mapping"),
        mapcount=btf.offset("page", "_mapcount"),
        refcount=btf.offset("page", "_refcount"),
        low=low,
        high=high,
        copied_mask=np.bitwise_or.reduce([flag(name) for name in (*_COPIED, "PG_swapcache")]),
        head=flag("PG_head"),
        lru=flag("PG_lru"),
        young=flag("PG_young"),
        swapcache=flag("PG_swapcache") | flag("PG_swapbacked"),
        slab=flag("PG_slab"),
        hwpoison=flag("PG_hwpoison"),
        large_rmappable=flag("PG_large_rmappable"),
        double_map=flag("PG_double_map"),
        hugetlb_flag=hugetlb_flag,
        hugetlb_type=hugetlb_type,
        types=types,
        highest_bit=bits["__NR_PAGEFLAGS"] - 1,
        second_flags=btf.size("page") + btf.offset("page", "flags"),
        entire_mapcount=entire,
        large_mapcount=large,
        pages_mapped=mapped,
        hugetlb_dtor=dtor,
        hugetlb_dtor_value=btf.enumerator("HUGETLB_PAGE_DTOR") if dtor is not None else 0,
        folio_bytes=max(last // 8 * 8 + 8, 2 * btf.size("page")),
    )


def _flag_bits(btf: Btf) -> dict[str, int]:
    bits = btf.enumerators("pageflags")
    wrong = [name for name, bit in bits.items() if not 0 <= bit < 64]
    if wrong or "__NR_PAGEFLAGS" not in bits:
        raise NotInBtf(f"bit below 64 for {', '.join(wrong) or '__NR_PAGEFLAGS'}")
    return bits


def _tables(bits: dict[str, int]) -> tuple[U64, U64]:
    # For every value of each half of the flags word, the kpageflags bits that it stands for.
    tables = np.zeros((2, 1 << _HALF), np.uint64)
    values = np.arange(1 << _HALF)
    for name, copy in _COPIED.items():
        if name in bits:
            if bits[name] >= 2 * _HALF:
                raise NotInBtf(f"bit below {2 * _HALF} for {name}")
            half, bit = divmod(bits[name], _HALF)
            tables[half][values >> bit & 1 == 1] |= kpf(copy)
    return tables[0], tables[1]


def _second_page(btf: Btf, *candidates: tuple[str, str]) -> int | None:
    # The offset from the first page of the first candidate that this kernel has: struct folio spans
    # all pages, while struct page's members for tail pages count from the second page.
    for struct, path in candidates:
        if btf.has(struct, path):
            return btf.offset(struct, path) + (btf.size("page") if struct == "page" else 0)
    return None


def _type_tests(btf: Btf) -> dict[str, TypeTest]:
    try:
        enum = btf.enumerators("pagetype")
    except NotInBtf:
        enum = _OLD_TYPES
    tests = {}
    for name, copy in _TYPES.items():
        if f"PGTY_{name}" in enum:
            # 6.12: the top byte holds one number, no longer a bit per type.
            number = (enum[f"PGTY_{name}"] & 0xFF) << 24
            tests[copy] = TypeTest(np.uint32(0xFF000000), np.uint32(number))
        elif f"PG_{name}" in enum:
            # Before that, all bits were set except the type's own.
            if "PAGE_TYPE_BASE" not in enum:
                raise NotInBtf("PAGE_TYPE_BASE")
            base = enum["PAGE_TYPE_BASE"] & 0xFFFFFFFF
            bit = enum[f"PG_{name}"] & 0xFFFFFFFF
            tests[copy] = TypeTest(np.uint32(base | bit), np.uint32(base))
    return tests
