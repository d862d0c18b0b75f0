"""Condense struct pages to a word each: what accounting needs of a page."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pagewalk.btf import Btf
from pagewalk.kmem import asm
from pagewalk.kmem.asm import FP, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, Line
from pagewalk.kmem.direct import (
    FIRST,
    INNER,
    OUTER,
    SECOND,
    SLOTS,
    TABLE,
    TABLES,
    Casts,
    cast,
    close,
    find_casts,
    frame_shifts,
    index,
    load,
    load_table,
    loop,
    start,
    stop,
)
from pagewalk.kmem.directmap import MemMap
from pagewalk.kmem.layout import Layout
from pagewalk.kmem.struct_page import COUNT_SHIFT, FLAG_BITS, INITIALISED, KIND_SHIFT
from pagewalk.kmem.syscall import Array, create_array
from pagewalk.pages import U64, Bool
from pagewalk.paging import Arch

_WORDS = TABLES * SLOTS
_UNROLLED = 16  # words that a step of a loop takes: a step costs a call

ALL_FLAGS = (1 << FLAG_BITS) - 1

_PLACE, _ENTRIES = FIRST, SECOND


class Condenser:
    """Condense struct pages to a word each (see struct_page.FLAG_BITS)."""

    def __init__(self, btf: Btf, arch: Arch, layout: Layout, mem_map: MemMap) -> None:
        """Load the programs; raises LookupError, OSError."""
        if mem_map.size & mem_map.size - 1 or layout.highest_bit >= FLAG_BITS:
            raise LookupError("struct page of a usual shape")
        casts = find_casts(btf)
        self._input = create_array(8 * _WORDS, "pagewalk_in")
        self._output = create_array(8 * _WORDS, "pagewalk_out")
        self._head = create_array(16, "pagewalk_hd")
        maps = (self._input, self._output, self._head)
        make = (casts, arch, layout, mem_map)
        self._frames = load(_of_frames(*make, *maps), "pagewalk_frame", *maps)
        self._tables = load(_of_tables(*make, *maps), "pagewalk_ptes", self._frames, *maps)
        self._words = [array.data.view(np.uint64) for array in maps]
        self._shift = np.uint64(arch.page_shift)

    def of_tables(self, addresses: U64) -> Iterator[tuple[int, Bool, U64]]:
        """Yield (first, plain bool[k], words u64[k, 512]) for the tables of ``addresses`` (u64[n]).

        Where a table is ``plain``, which it is with ordinary pages of RAM and empty slots, a word
        stands for each entry, 0 for an empty one; of the flags those only that accounting needs. A
        view that the next step overwrites. Memory that cannot be read is a table of empty slots.
        """
        given, words, head = self._words
        for first in range(0, len(addresses), TABLES):
            here = addresses[first : first + TABLES]
            given[: len(here)] = here
            head[0] = len(here)
            self._tables.run()
            plain = given[: len(here)] == 0
            yield first, plain, words[: len(here) * SLOTS].reshape(-1, SLOTS)

    def of_frames(self, pfns: U64) -> Iterator[tuple[int, U64]]:
        """Yield (first, words u64[k]) for the frames ``pfns`` (u64[n], frame 0 apart), with all
        flags. A view that the next step overwrites."""
        given, words, head = self._words
        for first in range(0, len(pfns), _WORDS):
            here = pfns[first : first + _WORDS]
            np.left_shift(here, self._shift, out=given[: len(here)])
            head[0] = -(-len(here) // _UNROLLED)
            self._frames.run()
            yield first, words[: len(here)]

    def close(self) -> None:
        """Give back the programs and their maps."""
        close(self._frames, self._tables, self._input, self._output, self._head)


def _of_frames(
    casts: Casts, arch: Arch, layout: Layout, mem_map: MemMap, given: Array, words: Array,
    head: Array,
) -> bytes:
    left, right = frame_shifts(arch)
    body = [
        *index(R9, 8 * _UNROLLED, _WORDS // _UNROLLED),
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
            asm.left_imm(R1, left),
            asm.right_imm(R1, right),
            *_condense(casts, layout, mem_map, ALL_FLAGS, word),
        ]
    begin = [*start(given, words, head), asm.constant(R8, mem_map.base)]
    return asm.assemble(*begin, *loop(casts, OUTER, "frames", body), *stop())


def _of_tables(
    casts: Casts, arch: Arch, layout: Layout, mem_map: MemMap, given: Array, words: Array,
    head: Array,
) -> bytes:
    # A table with something odd in it is left at once, with a mark in place of its address.
    bits_set, bits_clear = arch.plain(arch)
    left, right = frame_shifts(arch)
    body: list[Line] = [
        *index(R1, 8 * _UNROLLED, SLOTS // _UNROLLED),
        asm.load_u64(R9, FP, _PLACE),
        asm.and_imm(R9, 8 * (TABLES - 1)),
        asm.left_imm(R9, SLOTS.bit_length() - 1),
        asm.or_(R9, R1),
        asm.add(R9, R7),
        asm.load_u64(R2, FP, TABLE),
        asm.add(R1, R2),
        asm.store_u64(FP, _ENTRIES, R1),
    ]
    flags = int(layout.head | layout.swapcache | layout.slab | layout.hwpoison)
    for word in range(_UNROLLED):
        body += [
            asm.load_u64(R1, FP, _ENTRIES),
            *cast(casts),
            asm.load_u64(R1, R0, 8 * word),
            asm.jump_eq_imm(R1, 0, f"done {word}"),
            asm.constant(R3, bits_set | bits_clear),
            asm.move(R2, R1),
            asm.and_(R2, R3),
            asm.jump_ne_imm(R2, bits_set, "odd"),
            asm.left_imm(R1, left),
            asm.right_imm(R1, right),
            asm.constant(R3, arch.last_ram_frame),
            asm.jump_gt(R1, R3, "odd"),
            *_condense(casts, layout, mem_map, flags, word),
        ]
    odd = [asm.Label("odd"), asm.load_u64(R9, FP, _PLACE), *_mark(1)]
    table: list[Line] = [
        *index(R9, 8, TABLES),
        *load_table(),
        asm.store_u64(FP, _PLACE, R9),
        *_mark(0),
        asm.move_imm(R3, SLOTS // _UNROLLED),
        *loop(casts, INNER, "entries", body, odd),
    ]
    begin = [*start(given, words, head), asm.constant(R8, mem_map.base)]
    return asm.assemble(*begin, *loop(casts, OUTER, "table", table), *stop())


def _mark(value: int) -> list[Line]:
    # the number at r9 in the input = value
    return [
        asm.and_imm(R9, 8 * (TABLES - 1)),
        asm.move(R1, R6),
        asm.add(R1, R9),
        asm.move_imm(R2, value),
        asm.store_u64(R1, 0, R2),
    ]


def _condense(
    casts: Casts, layout: Layout, mem_map: MemMap, flags: int, word: int
) -> list[Line]:
    # The struct page of frame r1, as one word into place `word` at r9; 0 from "done" on.
    known = f"known {word}"
    half: list[Line] = [] if layout.mapcount % 8 == 0 else [asm.right_imm(R4, 32)]
    return [
        asm.left_imm(R1, mem_map.size.bit_length() - 1),
        asm.add(R1, R8),
        *cast(casts),
        asm.load_u64(R1, R0, layout.flags),
        asm.load_u64(R2, R0, layout.compound_head),
        asm.load_u64(R3, R0, layout.mapping),
        asm.load_u64(R4, R0, layout.mapcount & ~7),
        *half,
        asm.move_imm(R5, 0),
        asm.jump_eq_imm(R1, 0, known),
        asm.move_imm(R5, int(INITIALISED)),
        asm.Label(known),
        asm.and_imm(R1, flags),
        asm.or_(R1, R5),
        asm.and_imm(R2, 1),
        asm.left_imm(R2, FLAG_BITS + 1),
        asm.or_(R1, R2),
        asm.and_imm(R3, 3),
        asm.left_imm(R3, KIND_SHIFT),
        asm.or_(R1, R3),
        asm.left_imm(R4, COUNT_SHIFT),
        asm.or_(R1, R4),
        asm.Label(f"done {word}"),
        asm.store_u64(R9, 8 * word, R1),
    ]
