"""RAM made by hand: struct pages as bytes, in the layout of 6.18 or of 6.1, in a core file."""

from __future__ import annotations

import struct
from contextlib import ExitStack
from pathlib import Path

from pagewalk.kernel.readers.kcore import KcoreMemory
from pagewalk.kernel.structs.btf import Btf
from pagewalk.kernel.structs.direct_map import DirectMap, MemMap
from pagewalk.kernel.structs.frame_layout import FrameLayout, frame_layout
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.struct_page import FrameMap
from pagewalk.kernel.structs.zero import ZeroFrames
from pagewalk.pagetables.arch import ARCHES
from tests.kernel import btf_writer
from tests.kernel.btf_writer import BtfWriter
from tests.kernel.core_file import HIGH, core

SIZE = 64
LRU, HEAD, SWAPBACKED, RESERVED, SWAPCACHE, SLAB_FLAG = (1 << n for n in (5, 6, 17, 13, 10, 9))
FLAGS = {"PG_lru": 5, "PG_head": 6, "PG_swapcache": 10, "PG_reserved": 13, "PG_swapbacked": 17,
         "__NR_PAGEFLAGS": 23}
TYPES = {"buddy": 0xF0, "offline": 0xF1, "table": 0xF2, "guard": 0xF3, "hugetlb": 0xF4,
         "slab": 0xF5, "zsmalloc": 0xF6, "unaccepted": 0xF7, "large_kmalloc": 0xF8}
OLD_TYPES = {"buddy": 0x80, "offline": 0x100, "table": 0x200, "guard": 0x400}
PAGE = {"flags": 0, "compound_head": 8, "lru": 8, "private": 40, "_mapcount": 48, "_refcount": 52,
        "memcg_data": 56}
SECOND = {"_large_mapcount": 16, "_entire_mapcount": 24}
OLD_PAGE = {"compound_dtor": 16, "compound_order": 17, "compound_mapcount": 20}


def btf(
    new: bool, size: int = SIZE, without: tuple[str, ...] = (),
    types: dict[str, int] | None = None,
) -> Btf:  # fmt: skip
    """Return a BTF as on 6.18, or as on 6.1; ``without`` some members of struct page, or with other
    page ``types``."""
    writer = BtfWriter()
    word = writer.integer("unsigned long", 8)
    page = {name: at for name, at in PAGE.items() if name not in without}
    folio = {"mapping": 24}
    if new:
        folio |= {name: size + at for name, at in SECOND.items()}
    slab = {"slab_cache": 8 if new else 24, "counters": 40}
    structs = (("page", size, page if new else page | OLD_PAGE), ("folio", 2 * size, folio),
               ("slab", size, slab))
    for name, bytes_, members in structs:
        rows = [(member, word, 8 * at) for member, at in members.items()]
        writer.members(name, bytes_, *rows, kind=btf_writer.STRUCT)
    writer.enum("pageflags", **(FLAGS if new else FLAGS | {"PG_slab": 9}))
    if new:
        writer.enum("pagetype", **(types or {f"PGTY_{n}": value for n, value in TYPES.items()}))
    else:
        writer.enum("compound_dtor_id", HUGETLB_PAGE_DTOR=2)
    return Btf(writer.blob())


class Ram:
    """Frames from ``first`` on; all are on a per-CPU list to begin with."""

    def __init__(
        self, frames: int, *, new: bool = True, first: int = 0, size: int = SIZE
    ) -> None:
        self.new, self.first, self.size = new, first, size
        self.bytes = bytearray(size * frames)
        for pfn in range(first, first + frames):
            self.put(pfn, lru=self.place(pfn) + 0x1000, previous=self.place(pfn) + 0x2000)

    def __len__(self) -> int:
        return len(self.bytes) // self.size

    def place(self, pfn: int) -> int:
        return HIGH + pfn * self.size

    def put(self, pfn: int, **fields: int) -> None:
        """Write a struct page: 0 wherever nothing is given, and mapped by nobody."""
        at = (pfn - self.first) * self.size
        fields = {"count": -1} | fields
        self.bytes[at : at + self.size] = bytes(self.size)
        for name, value in fields.items():
            self.poke(pfn, name, value)

    def poke(self, pfn: int, name: str, value: int) -> None:
        """Write one field of a struct page."""
        at, size = FIELDS[self.new][name]
        number = value.to_bytes(size, "little", signed=value < 0)
        start = (pfn - self.first) * self.size + at
        self.bytes[start : start + size] = number

    def get(self, pfn: int, name: str) -> int:
        at, size = FIELDS[self.new][name]
        start = (pfn - self.first) * self.size + at
        return int.from_bytes(self.bytes[start : start + size], "little", signed=size == 4)

    def typed(self, pfn: int, name: str, **fields: int) -> None:
        """Write a struct page of a page type."""
        self.put(pfn, **{"count": self.type_word(name)} | fields)

    def type_word(self, name: str) -> int:
        word = TYPES[name] << 24 if self.new else 0xFFFFFFFF & ~OLD_TYPES[name]
        (signed,) = struct.unpack("<i", struct.pack("<I", word))
        return int(signed)

    def folio(self, pfn: int, order: int, *, entire: int = -1, large: int = -1,
              hugetlb: bool = False, **head: int) -> None:  # fmt: skip
        """Write a large folio: its head with the fields ``head``, and its tails."""
        if hugetlb and self.new:
            head["count"] = self.type_word("hugetlb")
        self.put(pfn, **head)
        self.poke(pfn, "flags", self.get(pfn, "flags") | HEAD)
        for tail in range(pfn + 1, pfn + (1 << order)):
            self.put(tail, compound=self.place(pfn) + 1)
        self.poke(pfn + 1, "entire", entire)
        self.poke(pfn + 1, "order", order)
        if self.new:
            self.poke(pfn + 1, "large", large)
        elif hugetlb:
            self.poke(pfn + 1, "dtor", 2)

    def open(self, path: Path) -> tuple[FrameMap, FrameLayout]:
        """Return what reads these struct pages, from a core file at ``path``."""
        path.write_bytes(core([(self.place(self.first), bytes(self.bytes))]))
        types = btf(self.new, self.size)
        layout = frame_layout(types)
        kernel = Kernel(KcoreMemory(str(path)), types, 0, ExitStack())
        zero = ZeroFrames(kernel, DirectMap(0, ARCHES["x86_64"]), 0, None)
        return FrameMap(kernel, MemMap(HIGH, self.size), layout.page, zero), layout


# Where each field is and how many bytes it has; the last ones are those of a second page.
_BOTH = {"flags": (0, 8), "compound": (8, 8), "lru": (8, 8), "previous": (16, 8),
         "mapping": (24, 8), "private": (40, 8), "counters": (40, 8), "count": (48, 4),
         "refs": (52, 4), "memcg": (56, 8)}  # fmt: skip
FIELDS = {
    True: _BOTH | {"cache": (8, 8), "order": (0, 1), "large": (16, 4), "entire": (24, 4)},
    False: _BOTH | {"cache": (24, 8), "dtor": (16, 1), "order": (17, 1), "entire": (20, 4)},
}
