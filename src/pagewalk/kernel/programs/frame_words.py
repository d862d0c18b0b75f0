"""The words that say what a frame is, made from its struct page in registers.

structs/frame_runs says what each word means.
"""

from __future__ import annotations

import numpy as np

from pagewalk.kernel.bpf import asm
from pagewalk.kernel.bpf.asm import R0, R1, R2, R3, R4, R5, R6, Label, Line
from pagewalk.kernel.structs.frame_layout import FrameLayout
from pagewalk.kernel.structs.frame_runs import KIND_SHIFT, REFS_SHIFT
from pagewalk.kernel.structs.page_layout import TypeTest
from pagewalk.kernel.structs.struct_page import FIRST_TYPE

# The program's map of words. Where it is: the frame it looks at, the next, the end; and how many
# rows there are.
PFN, NEXT, END, ROWS = 0, 8, 16, 24
# The words of the run under way: state, count, memcg, object, extra.
RUN = (32, 40, 48, 56, 64)
# The folio looked at last: the address of its head, the same five words, and whether its count is
# that of each page, or to be added to their own.
HEAD, FOLIO, SAME = 72, (80, 88, 96, 104, 112), 120
OWN = 128  # the _mapcount of the page itself
WORDS = 17

# The registers in which the five words are passed on.
FIVE = (R5, R4, R1, R2, R3)

STRUCT_PAGE = 64


def words(layout: FrameLayout, name: str, unlisted: list[Line]) -> list[Line]:
    """r5 = state, r2 = object, r3 = extra of the struct page at r0

    Its flags, mapping and type are in r1, r3 and r4. Ends at "typed" with r4 = count, or at "plain"
    with r4 as it was.
    """
    return [
        asm.move(R5, R1),
        asm.and_imm(R5, int(layout.kept)),
        *_jump_if_slab(layout, f"{name} slab"),
        asm.jump_signed_gt_imm(R4, FIRST_TYPE, f"{name} untyped"),
        asm.move_imm(R2, 0),
        asm.move_imm(R3, 0),
        asm.jump(f"{name} typed"),
        Label(f"{name} slab"),
        asm.load_u64(R2, R0, layout.slab_cache),
        asm.load_u64(R3, R0, layout.slab_counters),
        *([asm.move_imm(R4, 0)] if layout.page.slab else []),
        asm.jump(f"{name} typed"),
        Label(f"{name} untyped"),
        asm.move(R2, R3),
        asm.jump_set_imm(R2, 3, f"{name} tagged"),
        asm.jump_ne_imm(R2, 0, f"{name} object"),
        *count_references(layout, name),
        *unlisted,
        asm.jump(f"{name} alone"),
        Label(f"{name} tagged"),
        asm.and_imm(R2, 3),
        asm.left_imm(R2, int(KIND_SHIFT)),
        asm.or_(R5, R2),
        Label(f"{name} alone"),
        asm.move_imm(R2, 0),
        Label(f"{name} object"),
        asm.move_imm(R3, 0),
        asm.jump(f"{name} plain"),
    ]


def _jump_if_slab(layout: FrameLayout, target: str) -> list[Line]:
    if layout.page.slab:
        return [asm.jump_set_imm(R1, int(layout.page.slab), target)]
    return jump_if_type(R4, layout.types["slab"], R2, target)


def count_references(layout: FrameLayout, name: str) -> list[Line]:
    """r5 |= the references of the struct page at r0, two for any more; r2 is their number"""
    return [
        *load_i32(R2, layout.page.refcount),
        asm.jump_signed_gt_imm(R2, 1, f"{name} many"),
        asm.jump_signed_gt_imm(R2, -1, f"{name} few"),
        asm.move_imm(R2, 0),
        asm.jump(f"{name} few"),
        Label(f"{name} many"),
        asm.move_imm(R2, 2),
        Label(f"{name} few"),
        asm.move(R3, R2),
        asm.left_imm(R3, int(REFS_SHIFT)),
        asm.or_(R5, R3),
    ]


def mappings(register: int, label: str) -> list[Line]:
    """register = how often a page with that _mapcount is mapped by itself"""
    return [
        asm.jump_signed_gt_imm(register, -1, label),
        asm.move_imm(register, -1),
        Label(label),
        asm.add_imm(register, 1),
    ]


def load_memcg(layout: FrameLayout) -> list[Line]:
    """r1 = who is charged, of the struct page at r0"""
    return [asm.move_imm(R1, 0) if layout.memcg is None else asm.load_u64(R1, R0, layout.memcg)]


def set_bits(bits: np.uint64) -> list[Line]:
    """r5 |= bits"""
    return [asm.constant(R1, int(bits)), asm.or_(R5, R1)]


def load_i32(register: int, offset: int) -> list[Line]:
    """register = the i32 at r0 + offset"""
    return [asm.load_u64(register, R0, offset & ~7), *signed_half(register, offset)]


def signed_half(register: int, offset: int) -> list[Line]:
    """register = the i32 at ``offset``, from the u64 that it is part of"""
    up: list[Line] = [asm.left_imm(register, 32)] if offset % 8 == 0 else []
    return [*up, asm.signed_right_imm(register, 32)]


def load_byte(register: int, offset: int) -> list[Line]:
    """register = the u8 at r0 + offset"""
    return [
        asm.load_u64(register, R0, offset & ~7),
        asm.right_imm(register, 8 * (offset % 8)),
        asm.and_imm(register, 0xFF),
    ]


def jump_if_type(register: int, test: TypeTest, scratch: int, target: str) -> list[Line]:
    """if the _mapcount in ``register`` is of this type goto target"""
    # Types have the highest bit set, in mask and value: extending the sign changes no result.
    mask, value = (int(number.view(np.int32)) for number in test)
    return [
        asm.move(scratch, register),
        asm.and_imm(scratch, mask),
        asm.jump_eq_imm(scratch, value, target),
    ]


def go_on_behind() -> list[Line]:
    """next = the first frame behind a block of order r2 at frame r1"""
    return [
        asm.move_imm(R0, 1),
        asm.left(R0, R2),
        asm.add(R1, R0),
        asm.store_u64(R6, NEXT, R1),
    ]
