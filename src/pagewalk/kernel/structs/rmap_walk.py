"""The VMAs that may map a frame, by the kernel's own reverse map (rmap_walk, mm/rmap.c).

A folio's mapping word leads to them: that of a file to its address_space, whose tree i_mmap has all
VMAs of the file; that of an anonymous folio to its anon_vma, whose tree has the VMAs of the process
that made it and of its children; that of a KSM folio to a node with a chain of those. A VMA that
may map a frame need not do so: the page tables tell. Nothing is locked.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.kernel.readers.memory import PAGE, read_word
from pagewalk.kernel.structs.direct_map import DirectMap
from pagewalk.kernel.structs.gather import gather, in_direct_map
from pagewalk.kernel.structs.interval_tree import ANON_VMA, I_MMAP, overlapping
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.struct_page import FrameMap, read_heads
from pagewalk.kernel.structs.vmas import RawVmas, read_at
from pagewalk.model.columns import U64, Bool
from pagewalk.model.errors import NotInBtf

# include/linux/page-flags.h: the low two bits of a folio's mapping word
_KIND, _FILE, _ANON, _KSM = 3, 0, 1, 3
_TAIL = 1
# ksm_max_page_sharing is 256 unless it was changed (mm/ksm.c)
_MOST_ITEMS = 1 << 14
_LAST_PAGE = (1 << 64) - 1


class Candidates(NamedTuple):
    """VMAs (``vma``) that may map the frame, at ``addr`` (u64), in the mm_struct at ``mm`` (u64).

    They are by mm and address. If it is not ``complete``, there are more than were to be looked at.
    """

    vma: RawVmas
    mm: U64
    addr: U64
    complete: bool


class _Page(NamedTuple):
    # A page: its folio's mapping word, and its own place in the file, in pages.
    mapping: int
    offset: int


def candidates(
    frames: FrameMap, direct_map: DirectMap, pfn: int, most: int
) -> Candidates | None:
    """Return the VMAs that may map frame ``pfn``, of at most ``most`` that are looked at.

    None for a frame that no reverse map has: one of the kernel's, a free one. Raises OSError when
    it changes while it is read, NotInBtf.
    """
    kernel, page = frames.kernel, _read_page(frames, pfn)
    kind, at = page.mapping & _KIND, page.mapping & ~_KIND
    if not in_direct_map(direct_map, np.array([at], np.uint64))[0]:
        return None
    if kind == _KSM:
        return _ksm(kernel, direct_map, at, most)
    offset = np.array([page.offset], np.uint64)
    if kind == _ANON:
        where = ("anon_vma", at, "rb_root.rb_root.rb_node")
    elif kind == _FILE and is_page_cache(kernel, direct_map, at):
        where = ("address_space", at, "i_mmap.rb_root.rb_node")
    else:
        return None
    tree = ANON_VMA if kind == _ANON else I_MMAP
    root = np.array([kernel.field(*where)], np.uint64)
    found = overlapping(kernel, direct_map, tree, root, offset, offset, most)
    vma, mm, there = read_at(kernel, found.vma)
    # vma_address(), mm/internal.h
    addr = vma.start + (offset * np.uint64(PAGE) - vma.offset)
    return _inside(vma, mm, addr, there & in_direct_map(direct_map, mm), found.complete)


def _inside(vma: RawVmas, mm: U64, addr: U64, there: Bool, complete: bool) -> Candidates:
    # Those whose VMA has that address, each once.
    rows = np.flatnonzero(there & (vma.start <= addr) & (addr < vma.end))
    _, first = np.unique(np.stack([mm[rows], addr[rows]]), axis=1, return_index=True)
    rows = rows[first]
    return Candidates(RawVmas(*(column[rows] for column in vma)), mm[rows], addr[rows], complete)


def is_page_cache(kernel: Kernel, direct_map: DirectMap, mapping: int) -> bool:
    """Return whether there is an inode whose address_space is at ``mapping``."""
    host = kernel.field("address_space", mapping, "host")
    if not in_direct_map(direct_map, np.array([host], np.uint64))[0]:
        return False
    own = host + kernel.btf.offset("inode", "i_data")
    return mapping in (own, kernel.field("inode", host, "i_mapping"))


def _read_page(frames: FrameMap, pfn: int) -> _Page:
    kernel, base, size = frames.kernel, frames.mem_map.base, frames.mem_map.size
    at = base + pfn * size
    compound = read_word(kernel.memory, at + frames.layout.compound_head)
    head = at if not compound & _TAIL else compound - _TAIL
    heads, data, errno = read_heads(frames, np.array([head], np.uint64))
    if errno[0]:
        raise OSError(int(errno[0]), "a struct page cannot be read")
    words = data.view(np.uint64)[0]
    index = int(words[kernel.btf.offset("folio", "index") // 8])
    if _counts_huge_pages(kernel):
        types, second = data.view(np.uint32), words[frames.layout.second_flags // 8]
        kind = types[:, frames.layout.mapcount // 4]
        if frames.layout.is_hugetlb(kind, second[np.newaxis], data)[0]:
            index <<= _order(kernel, int(heads[0]), int(second))
    inside = pfn - (int(heads[0]) - base) // size
    # a folio that was split or freed meanwhile may say anything
    return _Page(int(words[frames.layout.mapping // 8]), index + inside & _LAST_PAGE)


def _counts_huge_pages(kernel: Kernel) -> bool:
    # Up to 6.6 the index of a hugetlb folio counts pages of its own size; the function that
    # converted it went with that.
    try:
        kernel.btf.function_id("hugetlb_basepage_index")
    except NotInBtf:
        return False
    return True


def _order(kernel: Kernel, head: int, second_flags: int) -> int:
    # Of a large folio: in its second page; since 6.6 the low byte of that page's flags.
    if kernel.btf.has("page", "compound_order"):
        return kernel.field("page", head + kernel.btf.size("page"), "compound_order")
    return second_flags & 0xFF


def _ksm(kernel: Kernel, direct_map: DirectMap, node: int, most: int) -> Candidates:
    # rmap_walk_ksm(), mm/ksm.c: each item has an address, and the anon_vma of the VMA that had it
    # when it was merged; what was forked since has it at the same address.
    anon, at, complete = _ksm_items(kernel, direct_map, node)
    trees, _ = gather(kernel, "anon_vma", anon, ("rb_root.rb_root.rb_node",))
    found = overlapping(
        kernel, direct_map, ANON_VMA, trees["rb_root.rb_root.rb_node"],
        np.zeros_like(at), np.full_like(at, _LAST_PAGE), most)
    vma, mm, there = read_at(kernel, found.vma)
    there &= in_direct_map(direct_map, mm)
    return _inside(vma, mm, at[found.row], there, complete and found.complete)


def _ksm_items(kernel: Kernel, direct_map: DirectMap, node: int) -> tuple[U64, U64, bool]:
    # anon_vma and address of each item of a stable node, and if that is all of them.
    offset = kernel.btf.offset("ksm_rmap_item", "hlist")
    link = kernel.field("ksm_stable_node", node, "hlist.first")
    found: list[tuple[int, int]] = []
    while in_direct_map(direct_map, np.array([link], np.uint64))[0] and len(found) < _MOST_ITEMS:
        item = kernel.fields(
            "ksm_rmap_item", link - offset, ("anon_vma", "address", "hlist.next"))
        found.append((item["anon_vma"], item["address"] & -PAGE))
        link = item["hlist.next"]
    columns = np.array(found, np.uint64).reshape(-1, 2)
    columns = columns[in_direct_map(direct_map, columns[:, 0])]
    return columns[:, 0].copy(), columns[:, 1].copy(), not link
