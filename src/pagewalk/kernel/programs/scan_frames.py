"""Make runs of frames that are alike in the kernel, without copying any struct page out.

The rows are those of structs/frame_runs.read_runs, which says what each word means and makes them
from copies. The program looks at one frame a step, or at a whole free block or large folio whose
pages cannot differ, and writes a row where the words are not those of the run under way.
"""

from __future__ import annotations

import numpy as np

from pagewalk.kernel.bpf import asm
from pagewalk.kernel.bpf.asm import R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, Label, Line
from pagewalk.kernel.bpf.syscall import create_array
from pagewalk.kernel.programs import loops
from pagewalk.kernel.programs.folio_words import of_folio
from pagewalk.kernel.programs.frame_words import (
    END,
    FIVE,
    HEAD,
    NEXT,
    PFN,
    ROWS,
    RUN,
    STRUCT_PAGE,
    WORDS,
    go_on_behind,
    jump_if_type,
    load_memcg,
    mappings,
    set_bits,
    signed_half,
    words,
)
from pagewalk.kernel.programs.loops import Casts
from pagewalk.kernel.structs.direct_map import MemMap
from pagewalk.kernel.structs.frame_layout import FrameLayout
from pagewalk.kernel.structs.frame_runs import BLANK, BLOCK, CHUNK, TORN, UNLISTED, RawRuns
from pagewalk.kernel.structs.page_layout import FLAG_BITS

# Frames a run of the program, which may not be preempted: about a fifth of a millisecond.
STEPS = 1 << 13

_ROW = 6  # a row's place is a multiple of 64 bytes

class FrameScanner:
    """Makes the runs of up to CHUNK frames in the kernel."""

    def __init__(self, casts: Casts, layout: FrameLayout, mem_map: MemMap) -> None:
        """Load the program; raises LookupError, OSError."""
        _check(layout, mem_map)
        self._place = create_array(8 * WORDS, "pagewalk_place")
        self._rows = create_array(CHUNK << _ROW, "pagewalk_rows")
        maps = (self._place, self._rows)
        code = _program(casts, layout, mem_map, *(array.fd for array in maps))
        self._program = loops.load(code, "pagewalk_runs", *maps)

    def runs(self, first: int, last: int) -> RawRuns:
        """Return the runs of frames [``first``, ``last``), at most CHUNK, within one chunk.

        TORN are those whose folio changed. A struct page that cannot be read is BLANK: whether it
        can be is for the caller to ask.
        """
        place = self._place.data.view(np.uint64)
        place[:] = 0
        place[NEXT // 8], place[END // 8] = first, last
        place[RUN[0] // 8] = np.uint64(0xFFFFFFFFFFFFFFFF)  # no frame's state
        while place[NEXT // 8] < last:
            self._program.run()
        count = int(place[ROWS // 8])
        rows = self._rows.data.view(np.uint64).reshape(-1, (1 << _ROW) // 8)[:count]
        columns = [rows[:, n].copy() for n in range(6)]
        pfn = columns[0].view(np.int64)
        pages = np.diff(pfn, append=last)
        state, number, memcg, object_, extra = columns[1:]
        return RawRuns(pfn, pages, state, number.astype(np.int32), memcg, object_, extra)

    def close(self) -> None:
        """Close the program and its maps."""
        loops.close(self._program, self._place, self._rows)


def _check(layout: FrameLayout, mem_map: MemMap) -> None:
    page = layout.page
    ends = [page.entire_mapcount, page.large_mapcount, page.pages_mapped, page.hugetlb_dtor]
    reach = max(end for end in ends if end is not None)
    usual = mem_map.size == STRUCT_PAGE and not page.double_map and page.highest_bit < FLAG_BITS
    if not usual or reach >= 8 * loops.CAST_WORDS:  # a cast covers two struct pages
        raise LookupError("struct page with the usual layout")


def _program(
    casts: Casts, layout: FrameLayout, mem_map: MemMap, place_fd: int, rows_fd: int
) -> bytes:
    body = [
        *_look(casts, layout),
        *_lone(layout),
        *_compare(),
        *_blank_and_reserved(layout),
        *_free_block(layout),
        *of_folio(casts, layout),
        Label("next"),
        asm.move_imm(R9, 0),
    ]
    return asm.assemble(
        asm.map_value(R6, place_fd),
        asm.map_value(R7, rows_fd),
        asm.constant(R8, mem_map.base),
        asm.move_imm(R1, 0),
        asm.store_u64(R6, HEAD, R1),
        asm.move_imm(R2, 0),
        asm.move_imm(R3, STEPS),
        *loops.loop(casts, loops.OUTER, "frames", body),
        *loops.stop(),
    )


def _look(casts: Casts, layout: FrameLayout) -> list[Line]:
    # The next frame: r9 is the address of its struct page, r0 the struct page, r1 its flags,
    # r2 compound_head, r3 mapping, r4 _mapcount. Then what kind of frame it is.
    page = layout.page
    return [
        asm.load_u64(R1, R6, NEXT),
        asm.load_u64(R2, R6, END),
        asm.jump_ge(R1, R2, "frames end"),
        asm.store_u64(R6, PFN, R1),
        asm.move(R9, R1),
        asm.left_imm(R9, STRUCT_PAGE.bit_length() - 1),
        asm.add(R9, R8),
        asm.add_imm(R1, 1),
        asm.store_u64(R6, NEXT, R1),
        asm.move(R1, R9),
        *loops.cast(casts),
        asm.load_u64(R1, R0, page.flags),
        asm.load_u64(R2, R0, page.compound_head),
        asm.load_u64(R3, R0, page.mapping),
        asm.load_u64(R4, R0, page.mapcount & ~7),
        asm.move(R5, R1),
        asm.or_(R5, R2),
        asm.or_(R5, R3),
        asm.or_(R5, R4),
        asm.jump_eq_imm(R5, 0, "blank"),
        *signed_half(R4, page.mapcount),
        asm.jump_set_imm(R1, int(layout.reserved), "reserved"),
        *jump_if_type(R4, layout.types["buddy"], R5, "buddy"),
        asm.jump_set_imm(R2, 1, "tail"),
        asm.jump_set_imm(R1, int(layout.page.head), "head"),
    ]


def _lone(layout: FrameLayout) -> list[Line]:
    # A frame of its own; falls through to the comparison.
    return [
        *words(layout, "lone", _unlisted(layout)),
        Label("lone plain"),
        *mappings(R4, "lone mapped"),
        Label("lone typed"),
        *load_memcg(layout),
    ]


def _unlisted(layout: FrameLayout) -> list[Line]:
    # r5 |= UNLISTED, if the frame has no references (r2) and its list node is empty or alone
    return [
        asm.jump_ne_imm(R2, 0, "lone alone"),
        asm.load_u64(R1, R0, layout.lru),
        asm.load_u64(R2, R0, layout.lru + 8),
        asm.jump_ne(R1, R2, "lone alone"),
        asm.jump_eq_imm(R1, 0, "unlisted"),
        asm.move(R2, R9),
        asm.add_imm(R2, layout.lru),
        asm.jump_ne(R1, R2, "lone alone"),
        Label("unlisted"),
        *set_bits(UNLISTED),
    ]


def _compare() -> list[Line]:
    # A row begins where the five words are not those of the run under way.
    return [
        Label("compare"),
        *(
            line
            for word, register in zip(RUN, FIVE, strict=True)
            for line in (asm.load_u64(R0, R6, word), asm.jump_ne(R0, register, "differs"))
        ),
        asm.jump("next"),
        Label("differs"),
        asm.load_u64(R9, R6, ROWS),
        asm.move(R0, R9),
        asm.add_imm(R0, 1),
        asm.store_u64(R6, ROWS, R0),
        asm.and_imm(R9, CHUNK - 1),
        asm.left_imm(R9, _ROW),
        asm.add(R9, R7),
        asm.load_u64(R0, R6, PFN),
        asm.store_u64(R9, 0, R0),
        *(asm.store_u64(R6, word, reg) for word, reg in zip(RUN, FIVE, strict=True)),
        *(asm.store_u64(R9, 8 * n, register) for n, register in enumerate(FIVE, 1)),
        asm.jump("next"),
    ]


def _blank_and_reserved(layout: FrameLayout) -> list[Line]:
    nothing = [asm.move_imm(register, 0) for register in FIVE[1:]]
    rest = nothing[1:]
    return [
        Label("blank"),
        asm.constant(R5, int(BLANK)),
        *nothing,
        asm.jump("compare"),
        Label("torn"),
        asm.constant(R5, int(TORN)),
        *nothing,
        asm.jump("compare"),
        Label("reserved"),
        asm.move_imm(R5, int(layout.reserved)),
        *mappings(R4, "reserved mapped"),
        *rest,
        asm.jump("compare"),
    ]


def _free_block(layout: FrameLayout) -> list[Line]:
    # Only a free block's first page says that it is one, and how large.
    return [
        Label("buddy"),
        asm.move(R5, R1),
        asm.and_imm(R5, int(layout.kept)),
        asm.load_u64(R3, R0, layout.private),
        asm.move(R2, R3),
        asm.jump_lt_imm(R2, BLOCK.bit_length(), "order"),
        asm.move_imm(R2, BLOCK.bit_length() - 1),
        Label("order"),
        asm.load_u64(R1, R6, PFN),
        *go_on_behind(),
        asm.move_imm(R1, 0),
        asm.move_imm(R2, 0),
        asm.jump("compare"),
    ]
