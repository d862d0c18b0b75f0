"""The layout of struct page, from BTF written by hand, as on 6.1, 6.6, 6.12 and later."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.kernel.structs.btf import Btf
from pagewalk.kernel.structs.page_layout import page_layout
from pagewalk.model.bits import kpf
from pagewalk.model.errors import NotInBtf
from tests.kernel import btf_writer
from tests.kernel.btf_writer import BtfWriter

PAGE = 64  # sizeof(struct page)
FLAGS = {"PG_locked": 0, "PG_lru": 5, "PG_head": 6, "PG_swapcache": 10, "PG_swapbacked": 17,
         "__NR_PAGEFLAGS": 23}


def btf(
    flags: dict[str, int], page: dict[str, int], folio: dict[str, int],
    **enums: dict[str, int],
) -> Btf:
    """Return a BTF with struct page and struct folio, with members at the given offsets."""
    w = BtfWriter()
    word = w.integer("unsigned long", 8)
    for name, size, members in (("page", PAGE, page), ("folio", 4 * PAGE, folio)):
        rows = [(member, word, 8 * at) for member, at in members.items()]
        w.members(name, size, *rows, kind=btf_writer.STRUCT)
    w.enum("pageflags", **flags)
    for name, values in enums.items():
        w.enum(name, **values)
    return Btf(w.blob())


MEMBERS = {"flags": 0, "compound_head": 8, "_mapcount": 48, "_refcount": 52}
FOLIO = {"mapping": 24, "_entire_mapcount": PAGE + 20}


def test_offsets_and_bits() -> None:
    layout = page_layout(btf(FLAGS, MEMBERS, FOLIO))
    assert (layout.flags, layout.compound_head, layout.mapcount, layout.refcount) == (0, 8, 48, 52)
    assert (layout.mapping, layout.entire_mapcount) == (24, PAGE + 20)
    assert layout.second_flags == PAGE
    assert (layout.head, layout.lru) == (1 << 6, 1 << 5)
    assert layout.swapcache == 1 << 10 | 1 << 17  # folio_test_swapcache() tests both
    assert layout.highest_bit == 22
    assert (layout.slab, layout.young, layout.double_map) == (0, 0, 0)  # this kernel has none
    assert layout.folio_bytes == 2 * PAGE
    words = np.array([0, 1, 1 << 5 | 1 << 17, 1 << 6], np.uint64)
    told = [0, kpf("locked"), kpf("lru") | kpf("swapbacked"), 0]  # PG_head is per page
    assert layout.copied(words).tolist() == told


def test_behind_a_bit_of_kpageflags_are_the_flags_it_is_made_from() -> None:
    layout = page_layout(btf(FLAGS | {"PG_hwpoison": 21}, MEMBERS, FOLIO))
    assert layout.behind(kpf("swapbacked", "lru", "anon", "ksm")) == 1 << 17 | 1 << 5
    assert layout.behind(kpf("swapcache")) == 1 << 10 | 1 << 17
    assert layout.behind(kpf("hwpoison")) == 1 << 21
    assert layout.behind(kpf("anon", "dirty")) == 0  # not a flag; a flag that is not there


def test_the_newest_way_to_see_whether_a_folio_is_mapped_is_used() -> None:
    blind = page_layout(btf(FLAGS, MEMBERS, FOLIO))
    assert not blind.records_mapped
    pages = page_layout(btf(FLAGS, MEMBERS, FOLIO | {"_nr_pages_mapped": PAGE + 24}))
    assert pages.records_mapped
    both = FOLIO | {"_nr_pages_mapped": PAGE + 24, "_large_mapcount": PAGE + 28}
    newest = page_layout(btf(FLAGS, MEMBERS, both))
    folio = np.full((2, newest.folio_bytes // 4), 7, np.int32)
    folio[:, newest.large_mapcount // 4] = [-1, 0]  # type: ignore[operator]
    assert newest.is_mapped(folio).tolist() == [False, True]
    folio = np.full((3, pages.folio_bytes // 4), -1, np.int32)
    folio[:, (PAGE + 24) // 4] = [0, 1, 0]
    folio[:, (PAGE + 20) // 4] = [-1, -1, 0]
    assert pages.is_mapped(folio).tolist() == [False, True, True]


def test_hugetlb_is_recognised_by_type_by_flag_or_by_destructor() -> None:
    types, more = np.array([0xF4000000, 0xFFFFFFFF], np.uint32), np.array([0, 1 << 8], np.uint64)
    pages = np.zeros((2, 2 * PAGE), np.uint8)
    by_type = page_layout(btf(FLAGS, MEMBERS, FOLIO, pagetype={"PGTY_hugetlb": 0xF4}))
    assert by_type.is_hugetlb(types, more, pages).tolist() == [True, False]
    by_flag = page_layout(btf(FLAGS | {"PG_hugetlb": 8}, MEMBERS, FOLIO))
    assert by_flag.is_hugetlb(types, more, pages).tolist() == [False, True]
    old = btf(FLAGS, MEMBERS | {"compound_dtor": 16, "compound_mapcount": 20},
              {"mapping": 24}, compound_dtor_id={"HUGETLB_PAGE_DTOR": 2})
    by_dtor = page_layout(old)
    pages[1, PAGE + 16] = 2
    assert by_dtor.is_hugetlb(types, more, pages).tolist() == [False, True]
    assert by_dtor.entire_mapcount == PAGE + 20  # counted from the second page


def test_a_type_is_a_number_since_6_12_and_was_a_clear_bit_before() -> None:
    words = np.array([0xF2000000, 0xF0000000 - 0x200, 0xFFFFFFFF], np.uint32)
    new = page_layout(btf(FLAGS, MEMBERS, FOLIO, pagetype={"PGTY_table": 0xF2}))
    assert new.types["pgtable"].test(words).tolist() == [True, False, False]
    words = np.array([0xFFFFFFFF - 0x200, 0xFFFFFFFF], np.uint32)
    old = page_layout(btf(FLAGS, MEMBERS, FOLIO))  # macros, which are not in BTF
    assert old.types["pgtable"].test(words).tolist() == [True, False]


def test_the_missing_member_is_named() -> None:
    with pytest.raises(NotInBtf, match="_entire_mapcount"):
        page_layout(btf(FLAGS, MEMBERS, {"mapping": 24}))
    with pytest.raises(NotInBtf, match="__NR_PAGEFLAGS"):
        page_layout(btf({"PG_locked": 0}, MEMBERS, FOLIO))
    with pytest.raises(NotInBtf, match="PG_lru"):
        page_layout(btf(FLAGS | {"PG_lru": 30}, MEMBERS, FOLIO))
