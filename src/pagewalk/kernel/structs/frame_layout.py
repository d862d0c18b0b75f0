"""How struct page says what a frame is used for: offsets, masks and page types from BTF.

page_layout has what accounting of mapped pages needs; this adds what only a frame of the kernel's
own, a free one or a charged one has.
"""

from typing import NamedTuple

import numpy as np

from pagewalk.kernel.structs.btf import Btf
from pagewalk.kernel.structs.page_layout import Layout, TypeTest, page_layout
from pagewalk.model.errors import NotInBtf

# The flags that tell what a frame is, or how it could be reclaimed; the others only cut runs short.
KEPT = (
    "PG_writeback", "PG_dirty", "PG_lru", "PG_active", "PG_slab", "PG_reserved", "PG_swapbacked",
    "PG_unevictable", "PG_mlocked", "PG_swapcache", "PG_hwpoison",
)  # fmt: skip
# Page types: the name in enum pagetype, without PGTY_ or PG_.
TYPES = (
    "buddy", "offline", "table", "guard", "hugetlb", "slab", "zsmalloc", "unaccepted",
    "large_kmalloc",
)  # fmt: skip
# Macros in include/linux/page-flags.h up to 6.9, so not in BTF.
_OLD_TYPES = {
    "PG_buddy": 0x80, "PG_offline": 0x100, "PG_table": 0x200, "PG_guard": 0x400,
    "PAGE_TYPE_BASE": 0xF0000000,
}  # fmt: skip


class FrameLayout(NamedTuple):
    """Byte offsets in struct page and struct slab, masks of flags, and page type tests.

    ``page`` is the layout that accounting uses. ``memcg`` is None on a kernel without memory
    cgroups. ``types`` has only those that this kernel has. ``compound_order`` is where a large
    folio's order is, from its first page, up to 6.5; later it is the low byte of its second page's
    flags, and this is None.
    """

    page: Layout
    size: int
    memcg: int | None
    lru: int
    private: int
    slab_cache: int
    slab_counters: int
    compound_order: int | None
    kept: np.uint64
    reserved: np.uint64
    swap_cache: np.uint64
    swapbacked: np.uint64
    types: dict[str, TypeTest]


def frame_layout(btf: Btf) -> FrameLayout:
    """Read the layout from ``btf``; raises NotInBtf, which names what it lacks."""
    bits = btf.enumerators("pageflags")

    def flags(*names: str) -> np.uint64:
        return np.uint64(sum({1 << bits[name] for name in names if name in bits}))

    old = btf.has("page", "compound_order")
    return FrameLayout(
        page=page_layout(btf),
        size=btf.size("page"),
        memcg=_memcg(btf),
        lru=btf.offset("page", "lru"),
        private=btf.offset("page", "private"),
        slab_cache=btf.offset("slab", "slab_cache"),
        slab_counters=btf.offset("slab", "counters"),
        compound_order=btf.size("page") + btf.offset("page", "compound_order") if old else None,
        kept=flags(*KEPT),
        reserved=flags("PG_reserved"),
        swap_cache=flags("PG_swapcache", "PG_swapbacked"),
        swapbacked=flags("PG_swapbacked"),
        types=_types(btf),
    )


def _memcg(btf: Btf) -> int | None:
    # Where slabs keep their vector of owners under a name of its own, its place is the same.
    for struct in ("page", "folio"):
        if btf.has(struct, "memcg_data"):
            return btf.offset(struct, "memcg_data")
    return None


def _types(btf: Btf) -> dict[str, TypeTest]:
    try:
        enum = btf.enumerators("pagetype")
    except NotInBtf:
        enum = _OLD_TYPES
    found = {}
    for name in TYPES:
        if f"PGTY_{name}" in enum:  # 6.12: a number in the top byte
            number = (enum[f"PGTY_{name}"] & 0xFF) << 24
            found[name] = TypeTest(np.uint32(0xFF000000), np.uint32(number))
        elif f"PG_{name}" in enum:  # before: all bits set except the type's own
            base = enum["PAGE_TYPE_BASE"] & 0xFFFFFFFF
            bit = enum[f"PG_{name}"] & 0xFFFFFFFF
            found[name] = TypeTest(np.uint32(base | bit), np.uint32(base))
    if "buddy" not in found:
        raise NotInBtf("page type buddy")
    return found
