"""Condense struct pages to one word each, with what accounting needs to know about a page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pagewalk.kernel.bpf import asm
from pagewalk.kernel.bpf.asm import FP, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, Line
from pagewalk.kernel.bpf.syscall import Array, create_array
from pagewalk.kernel.programs import loops
from pagewalk.kernel.programs.loops import FRAMES, SLOTS, TABLE, TABLES, Casts
from pagewalk.kernel.structs import page_layout
from pagewalk.kernel.structs.direct_map import MemMap
from pagewalk.kernel.structs.page_layout import FLAG_BITS, Layout
from pagewalk.model.columns import U64, Bool
from pagewalk.model.rules import KEPT
from pagewalk.pagetables.format import Arch

_RUN = 32  # tables
_UNROLLED = 16  # words per step of a loop: each step costs a call

ALL_FLAGS = (1 << FLAG_BITS) - 1

_PLACE, _ENTRIES, _OWN = loops.FIRST, loops.SECOND, loops.THIRD


class Condenser:
    """Condenses struct pages to one word each (see page_layout.FLAG_BITS).

    Methods return views that the next call overwrites.
    """

    def __init__(self, casts: Casts, arch: Arch, layout: Layout, mem_map: MemMap) -> None:
        """Load the programs; raises LookupError, OSError."""
        # a cast covers two struct pages, which hold what a folio says about itself
        usual = mem_map.size == 64 and layout.highest_bit < FLAG_BITS and not layout.double_map
        if not usual or layout.entire_mapcount >= 8 * loops.CAST_WORDS:
            raise LookupError("struct page with the usual layout")
        self._input = create_array(8 * FRAMES, "pagewalk_in")
        self._output = create_array(8 * FRAMES, "pagewalk_out")
        maps = (self._input, self._output)
        self.arch = arch
        frames = _of_frames(casts, layout, mem_map, *maps)
        self._frames = loops.load(frames, "pagewalk_frame", *maps)
        tables = _of_tables(casts, arch, layout, mem_map, *maps)
        self._tables = loops.load(tables, "pagewalk_ptes", self._frames, *maps)
        self._words = [array.data.view(np.uint64) for array in maps]

    def of_tables(self, addresses: U64) -> tuple[Bool, U64]:
        """Return (plain bool[n], words u64[n, 512]) for up to TABLES of ``addresses`` (u64[n]).

        A table is ``plain`` if it has only ordinary pages of RAM and empty slots. Then there is a
        word for each entry, 0 for an empty one, with only those flags that sums need. A page of a
        large folio has its folio's flags and kind, and nothing marks it as one. Memory that cannot
        be read is a table of empty slots.
        """
        given, words = self._words
        size = len(addresses)
        given[:size] = addresses
        loops.run(self._tables, size, _RUN)
        return given[:size] == 0, words[: size * SLOTS].reshape(-1, SLOTS)

    def of_frames(self, pfns: U64) -> U64:
        """Return words u64[n] for up to FRAMES of ``pfns`` (u64[n], frame 0 apart), with all
        flags."""
        given, words = (words[: len(pfns)] for words in self._words)
        given[:] = pfns
        loops.run(self._frames, -(-len(pfns) // _UNROLLED), _RUN * SLOTS // _UNROLLED)
        return words

    def close(self) -> None:
        """Close the programs and their maps."""
        loops.close(self._frames, self._tables, self._input, self._output)


def _of_frames(casts: Casts, layout: Layout, mem_map: MemMap, given: Array, words: Array) -> bytes:
    body = [
        *loops.index(R9, 8 * _UNROLLED, FRAMES // _UNROLLED),
        asm.move(R1, R6),
        asm.add(R1, R9),
        asm.store_u64(FP, _ENTRIES, R1),
        asm.add(R9, R7),
    ]
    for word in range(_UNROLLED):
        body += [
            asm.load_u64(R1, FP, _ENTRIES),
            asm.load_u64(R1, R1, 8 * word),
            asm.jump_eq_imm(R1, 0, f"done {word}"),
            *_struct_page(mem_map),
            *_condense(casts, layout, ALL_FLAGS, word),
        ]
    begin = [*loops.start(given, words), asm.constant(R8, mem_map.base)]
    return asm.assemble(*begin, *loops.loop(casts, loops.OUTER, "frames", body), *loops.stop())


def _of_tables(
    casts: Casts, arch: Arch, layout: Layout, mem_map: MemMap, given: Array, words: Array
) -> bytes:
    # Gives up a table with any other entry at once, and puts a mark in place of its address.
    body: list[Line] = [
        *loops.index(R1, 8 * _UNROLLED, SLOTS // _UNROLLED),
        asm.load_u64(R9, FP, _PLACE),
        asm.and_imm(R9, 8 * (TABLES - 1)),
        asm.left_imm(R9, SLOTS.bit_length() - 1),
        asm.or_(R9, R1),
        asm.add(R9, R7),
        asm.load_u64(R2, FP, TABLE),
        asm.add(R1, R2),
        asm.store_u64(FP, _ENTRIES, R1),
    ]
    flags = layout.behind(KEPT) | int(layout.slab)  # a slab page has no mapcount
    heads: list[Line] = []
    body += _find_struct_pages(casts, arch, layout, mem_map)
    for word in range(_UNROLLED):
        body += [
            asm.load_u64(R1, R9, 8 * word),
            asm.jump_eq_imm(R1, 0, f"done {word}"),
            *_condense(casts, layout, flags, word, _ask_head(layout, word)),
        ]
        heads += _of_head(casts, layout, mem_map, word)
    odd = [asm.Label("odd"), asm.load_u64(R9, FP, _PLACE), *_mark(1)]
    table: list[Line] = [
        *loops.index(R9, 8, TABLES),
        asm.move(R1, R6),
        asm.add(R1, R9),
        asm.load_u64(R1, R1, 0),
        asm.store_u64(FP, TABLE, R1),
        asm.store_u64(FP, _PLACE, R9),
        *_mark(0),
        asm.move_imm(R2, 0),
        asm.move_imm(R3, SLOTS // _UNROLLED),
        *loops.loop(casts, loops.INNER, "entries", body, [*heads, *odd]),
    ]
    begin = [*loops.start(given, words), asm.constant(R8, mem_map.base)]
    return asm.assemble(*begin, *loops.loop(casts, loops.OUTER, "table", table), *loops.stop())


def _find_struct_pages(casts: Casts, arch: Arch, layout: Layout, mem_map: MemMap) -> list[Line]:
    # Stores the address of each entry's struct page where its word will be, 0 for an empty entry,
    # and loads from it once. Struct pages are rarely in the cache; with so few instructions between
    # these loads, the CPU has many of the misses under way at once.
    bits_set, bits_clear = arch.plain()
    left = 64 - arch.frame_mask.bit_length()
    lines: list[Line] = []
    for word in range(_UNROLLED):
        lines += [
            asm.load_u64(R1, FP, _ENTRIES),
            *loops.cast(casts),
            asm.load_u64(R1, R0, 8 * word),
            asm.jump_eq_imm(R1, 0, f"found {word}"),
            asm.constant(R3, bits_set | bits_clear),
            asm.move(R2, R1),
            asm.and_(R2, R3),
            asm.jump_ne_imm(R2, bits_set, "odd"),
            asm.left_imm(R1, left),
            asm.right_imm(R1, left + arch.page_shift),
            asm.constant(R3, arch.last_ram_frame),
            asm.jump_gt(R1, R3, "odd"),
            *_struct_page(mem_map),
            asm.Label(f"found {word}"),
            asm.store_u64(R9, 8 * word, R1),
            *loops.cast(casts),
            asm.load_u64(R1, R0, layout.flags),
        ]
    return lines


def _mark(value: int) -> list[Line]:
    # the input's number at r9 = value
    return [
        asm.and_imm(R9, 8 * (TABLES - 1)),
        asm.move(R1, R6),
        asm.add(R1, R9),
        asm.move_imm(R2, value),
        asm.store_u64(R1, 0, R2),
    ]


def _struct_page(mem_map: MemMap) -> list[Line]:
    # r1 = the address of the struct page of frame r1
    return [asm.left_imm(R1, mem_map.size.bit_length() - 1), asm.add(R1, R8)]


def _condense(
    casts: Casts, layout: Layout, flags: int, word: int, ask: Sequence[Line] = ()
) -> list[Line]:
    # Stores the struct page at r1 as one word at position `word` of r9, 0 from "done" on.
    # `ask` finds it in r1 to r4: flags, compound_head, mapping, mapcount.
    known = f"known {word}"
    return [
        *loops.cast(casts),
        asm.load_u64(R1, R0, layout.flags),
        asm.load_u64(R2, R0, layout.compound_head),
        asm.load_u64(R3, R0, layout.mapping),
        *_load_half(R4, layout.mapcount),
        *ask,
        asm.move_imm(R5, 0),
        asm.jump_eq_imm(R1, 0, known),
        asm.move_imm(R5, int(page_layout.INITIALISED)),
        asm.Label(known),
        asm.and_imm(R1, flags),
        asm.or_(R1, R5),
        asm.and_imm(R2, 1),
        asm.left_imm(R2, FLAG_BITS + 1),
        asm.or_(R1, R2),
        asm.and_imm(R3, 3),
        asm.left_imm(R3, page_layout.KIND_SHIFT),
        asm.or_(R1, R3),
        asm.left_imm(R4, page_layout.COUNT_SHIFT),
        asm.or_(R1, R4),
        asm.Label(f"done {word}"),
        asm.store_u64(R9, 8 * word, R1),
    ]


def _load_half(register: int, offset: int) -> list[Line]:
    # register = the u32 at r0 + offset, with anything in the upper half
    half: list[Line] = [] if offset % 8 == 0 else [asm.right_imm(register, 32)]
    return [asm.load_u64(register, R0, offset & ~7), *half]


def _ask_head(layout: Layout, word: int) -> list[Line]:
    # A page of a large folio: at "large" its flags, mapping and more are taken from the head.
    return [
        asm.move(R5, R2),
        asm.and_imm(R5, 1),
        asm.jump_ne_imm(R5, 0, f"tail {word}"),
        asm.move(R5, R1),
        asm.and_imm(R5, int(layout.head)),
        asm.jump_ne_imm(R5, 0, f"head {word}"),
        asm.Label(f"folio {word}"),
    ]


def _of_head(casts: Casts, layout: Layout, mem_map: MemMap, word: int) -> list[Line]:
    # A page is also mapped wherever the whole folio is (folio_precise_page_mapcount()). The second
    # page points to the head, unless the folio is being split or freed.
    return [
        asm.Label(f"tail {word}"),
        asm.add_imm(R2, -1),
        asm.store_u64(R9, 8 * word, R2),
        asm.Label(f"head {word}"),
        asm.store_u64(FP, _OWN, R4),
        asm.load_u64(R1, R9, 8 * word),
        *loops.cast(casts),
        asm.load_u64(R1, R9, 8 * word),
        asm.add_imm(R1, 1),
        asm.load_u64(R2, R0, mem_map.size + layout.compound_head),
        asm.jump_ne(R1, R2, "odd"),
        asm.load_u64(R1, R0, layout.flags),
        asm.move(R2, R1),
        asm.and_imm(R2, int(layout.head)),
        asm.jump_eq_imm(R2, 0, "odd"),
        asm.load_u64(R3, R0, layout.mapping),
        *_load_half(R4, layout.entire_mapcount),
        asm.load_u64(R2, FP, _OWN),
        asm.add(R4, R2),
        asm.add_imm(R4, 1),
        asm.move_imm(R2, 0),
        asm.jump(f"folio {word}"),
    ]
