"""The words of a page of a large folio, from the folio's first two struct pages."""

from __future__ import annotations

from pagewalk.kernel.bpf import asm
from pagewalk.kernel.bpf.asm import R0, R1, R2, R3, R4, R5, R6, R8, R9, Label, Line
from pagewalk.kernel.programs import loops
from pagewalk.kernel.programs.frame_words import (
    FIVE,
    FOLIO,
    HEAD,
    OWN,
    SAME,
    STRUCT_PAGE,
    count_references,
    go_on_behind,
    jump_if_type,
    load_byte,
    load_i32,
    load_memcg,
    mappings,
    set_bits,
    words,
)
from pagewalk.kernel.programs.loops import Casts
from pagewalk.kernel.structs.frame_layout import FrameLayout
from pagewalk.kernel.structs.frame_runs import FOLIO_ORDER, HUGETLB, LARGE, SOME, WHOLE
from pagewalk.proc.frames import LARGEST_ORDER


def of_folio(casts: Casts, layout: FrameLayout) -> list[Line]:
    """Compare a page of a large folio: its folio's words, which are kept, and its own count."""
    head, flags, state, kept = layout.page.head, layout.page.flags, FOLIO[0], FOLIO[2:]
    return [
        Label("tail"),
        asm.move(R9, R2),
        asm.add_imm(R9, -1),
        Label("head"),
        asm.store_u64(R6, OWN, R4),
        asm.load_u64(R1, R6, HEAD),
        asm.jump_eq(R1, R9, "known"),
        *_find_head(casts, layout),
        asm.load_u64(R1, R0, flags),
        asm.move(R2, R1),
        asm.and_imm(R2, int(head)),
        asm.jump_eq_imm(R2, 0, "torn"),
        asm.load_u64(R3, R0, layout.page.mapping),
        *load_i32(R4, layout.page.mapcount),
        *words(layout, "folio", []),
        *_facts(layout),
        Label("known"),
        asm.load_u64(R4, R6, FOLIO[1]),
        asm.load_u64(R1, R6, SAME),
        asm.jump_ne_imm(R1, 0, "same"),
        asm.load_u64(R5, R6, OWN),
        *mappings(R5, "mapped"),
        asm.add(R4, R5),
        Label("same"),
        asm.load_u64(R5, R6, state),
        *(asm.load_u64(reg, R6, at) for reg, at in zip(FIVE[2:], kept, strict=True)),
        asm.jump("compare"),
    ]


def _find_head(casts: Casts, layout: FrameLayout) -> list[Line]:
    # r0 = the struct page of the head, which r9 should be the address of: its second page says so.
    # The structs of an optimised hugetlb folio's tails are one page of structs mapped repeatedly,
    # the first of which looks like a head (page_fixed_fake_head): there it says where the head is.
    look = [
        asm.move(R1, R9),
        *loops.cast(casts),
        asm.load_u64(R2, R0, layout.size + layout.page.compound_head),
        asm.move(R1, R9),
        asm.add_imm(R1, 1),
    ]
    return [
        *look,
        asm.jump_eq(R1, R2, "found"),
        asm.jump_set_imm(R2, 1, "fake"),
        asm.jump("torn"),
        Label("fake"),
        asm.move(R9, R2),
        asm.add_imm(R9, -1),
        *look,
        asm.jump_ne(R1, R2, "torn"),
        Label("found"),
    ]


def _facts(layout: FrameLayout) -> list[Line]:
    # Keeps the words of a folio: those of its head (r5, r2, r3, and r4 where it has a type), and
    # what its second page says.
    state, count, memcg = FOLIO[:3]
    hugetlb = layout.page.hugetlb_type
    return [
        Label("folio typed"),
        *_keep_object(),
        *([] if hugetlb is None else jump_if_type(R4, hugetlb, R1, "hugetlb")),
        asm.move_imm(R3, 1),
        asm.jump("counted"),
        Label("folio plain"),
        *_keep_object(),
        *_jump_if_hugetlb(layout),
        asm.jump("rest"),
        Label("hugetlb"),
        *set_bits(HUGETLB),
        *count_references(layout, "hugetlb"),
        Label("rest"),
        *_mapped_facts(layout),
        Label("counted"),
        asm.store_u64(R6, count, R4),
        asm.store_u64(R6, SAME, R3),
        *_order(layout),
        *load_memcg(layout),
        asm.store_u64(R6, memcg, R1),
        asm.store_u64(R6, state, R5),
        asm.store_u64(R6, HEAD, R9),
        asm.jump_eq_imm(R3, 0, "known"),
        asm.move(R1, R9),
        asm.subtract(R1, R8),
        asm.right_imm(R1, STRUCT_PAGE.bit_length() - 1),
        *go_on_behind(),
    ]


def _keep_object() -> list[Line]:
    return [asm.store_u64(R6, FOLIO[3], R2), asm.store_u64(R6, FOLIO[4], R3)]


def _jump_if_hugetlb(layout: FrameLayout) -> list[Line]:
    # Where it is no page type: a flag (6.6), or before that a destructor.
    page = layout.page
    if page.hugetlb_type is not None:
        return []
    if page.hugetlb_flag:
        flag = int(page.hugetlb_flag)
        return [asm.load_u64(R1, R0, page.second_flags), asm.jump_set_imm(R1, flag, "hugetlb")]
    if page.hugetlb_dtor is None:
        return []
    return [
        *load_byte(R1, page.hugetlb_dtor),
        asm.jump_eq_imm(R1, page.hugetlb_dtor_value, "hugetlb"),
    ]


def _mapped_facts(layout: FrameLayout) -> list[Line]:
    # r5 |= what mappings there are, r4 = how often the folio is mapped as a whole; r3 = 1 if no
    # page of it is mapped, so that none has a count of its own
    page = layout.page
    mapped: list[Line] = []
    if page.large_mapcount is not None:
        mapped += [*load_i32(R1, page.large_mapcount), asm.jump_signed_gt_imm(R1, -1, "some")]
    else:
        mapped += [asm.jump_signed_gt_imm(R4, 0, "some")]
        if page.pages_mapped is not None:
            mapped += [*load_i32(R1, page.pages_mapped), asm.jump_signed_gt_imm(R1, 0, "some")]
    return [
        *load_i32(R4, page.entire_mapcount),
        asm.add_imm(R4, 1),
        asm.jump_signed_gt_imm(R4, 0, "whole"),
        asm.jump("parts"),
        Label("whole"),
        *set_bits(WHOLE),
        Label("parts"),
        asm.move_imm(R3, 1),
        *mapped,
        asm.jump("counted"),
        Label("some"),
        *set_bits(SOME),
        asm.move_imm(R3, 0),
    ]


def _order(layout: FrameLayout) -> list[Line]:
    # r2 = the folio's order, which r5 gets too
    offset = layout.page.second_flags if layout.compound_order is None else layout.compound_order
    return [
        *load_byte(R2, offset),
        asm.jump_gt_imm(R2, LARGEST_ORDER, "torn"),
        *set_bits(LARGE),
        asm.move(R1, R2),
        asm.left_imm(R1, int(FOLIO_ORDER)),
        asm.or_(R5, R1),
    ]
