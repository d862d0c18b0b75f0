"""Condense struct pages to a word each: what accounting needs of a page."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pagewalk.btf import Btf
from pagewalk.kmem import asm
from pagewalk.kmem.asm import FP, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, Line
from pagewalk.kmem.counter import count_entry, whole
from pagewalk.kmem.direct import (
    FIRST,
    INNER,
    OUTER,
    SECOND,
    SLOTS,
    TABLE,
    TABLES,
    THIRD,
    Casts,
    cast,
    close,
    find_casts,
    frame_shifts,
    index,
    load_table,
    loop,
    start,
    stop,
)
from pagewalk.kmem.directmap import MemMap
from pagewalk.kmem.layout import Layout
from pagewalk.kmem.struct_page import COUNT_SHIFT, FLAG_BITS, INITIALISED, KIND_SHIFT
from pagewalk.kmem.syscall import Array, create_array, load_program
from pagewalk.pages import I64, U64
from pagewalk.paging import Arch

_WORDS = TABLES * SLOTS
_COPIED, _CONDENSED = 16, 8  # words that a step of a loop takes: a step costs a call

ALL_FLAGS = (1 << FLAG_BITS) - 1

_PAGES, _EMPTY, _TABLE_PLACE = FIRST, SECOND, THIRD


class Condenser:
    """Condense struct pages to a word each (see struct_page.FLAG_BITS)."""

    def __init__(self, btf: Btf, arch: Arch, layout: Layout, mem_map: MemMap) -> None:
        """Load the programs; raises LookupError, OSError."""
        if mem_map.size & mem_map.size - 1 or layout.highest_bit >= FLAG_BITS:
            raise LookupError("struct page of a usual shape")
        self._input = create_array(8 * _WORDS, "pagewalk_in")
        self._output = create_array(8 * _WORDS, "pagewalk_out")
        self._head = create_array(16, "pagewalk_hd")
        maps = (self._input, self._output, self._head)
        make = (find_casts(btf), arch, layout, mem_map)
        self._frames = load_program(_of_frames(*make, *maps), "pagewalk_frame")
        self._tables = load_program(_of_tables(*make, *maps), "pagewalk_ptes")
        self._words = [array.data.view(np.uint64) for array in maps]
        self._shift = np.uint64(arch.page_shift)

    def of_tables(self, addresses: U64) -> Iterator[tuple[int, I64, U64]]:
        """Yield (first, pages i64[k], words u64[k, 512]) for the tables of ``addresses`` (u64[n]).

        ``pages`` are as TableCounter.count has them; where they are not -1, a word stands for each
        entry, 0 for an empty one; of the flags those only that accounting needs. A view that the
        next step overwrites.
        """
        given, words, head = self._words
        for first in range(0, len(addresses), TABLES):
            here = addresses[first : first + TABLES]
            given[: len(here)] = here
            head[0] = len(here)
            self._tables.run()
            counted = given[: len(here)].view(np.int64)
            yield first, whole(counted), words[: len(here) * SLOTS].reshape(-1, SLOTS)

    def of_frames(self, pfns: U64) -> Iterator[tuple[int, U64]]:
        """Yield (first, words u64[k]) for the frames ``pfns`` (u64[n], frame 0 apart), with all
        flags. A view that the next step overwrites."""
        given, words, head = self._words
        for first in range(0, len(pfns), _WORDS):
            here = pfns[first : first + _WORDS]
            np.left_shift(here, self._shift, out=given[: len(here)])
            head[0] = -(-len(here) // _CONDENSED)
            self._frames.run()
            yield first, words[: len(here)]

    def close(self) -> None:
        """Give back the programs and their maps."""
        close(self._frames, self._tables, self._input, self._output, self._head)


def _of_frames(
    casts: Casts, arch: Arch, layout: Layout, mem_map: MemMap, given: Array, words: Array,
    head: Array,
) -> bytes:
    body = [*index(R9, 8 * _CONDENSED, _WORDS // _CONDENSED), asm.constant(R8, mem_map.base)]
    for word in range(_CONDENSED):
        body += [asm.move(R1, R6), asm.add(R1, R9), asm.load_u64(R1, R1, 8 * word)]
        body += _condense(casts, arch, layout, mem_map, ALL_FLAGS, word)
    return asm.assemble(*start(given, words, head), *loop(casts, OUTER, "frames", body), *stop())


def _of_tables(
    casts: Casts, arch: Arch, layout: Layout, mem_map: MemMap, given: Array, words: Array,
    head: Array,
) -> bytes:
    # Each table's entries are counted and copied to where the words are to stand; then, if nothing
    # in it is odd, each is replaced by its word. The count takes the place of the address.
    copy: list[Line] = [
        *index(R1, 8 * _COPIED, SLOTS // _COPIED),
        *_place(),
        asm.load_u64(R2, FP, TABLE),
        asm.add(R1, R2),
        *cast(casts),
        asm.add(R9, R7),
        asm.constant(R3, sum(arch.plain(arch))),
        asm.load_u64(R4, FP, _PAGES),
        asm.load_u64(R5, FP, _EMPTY),
    ]
    for word in range(_COPIED):
        copy += [asm.load_u64(R1, R0, 8 * word), asm.store_u64(R9, 8 * word, R1)]
        copy += count_entry(arch, word)
    copy += [asm.store_u64(FP, _PAGES, R4), asm.store_u64(FP, _EMPTY, R5)]
    condense = [*index(R1, 8 * _CONDENSED, SLOTS // _CONDENSED), *_place()]
    flags = int(layout.head | layout.swapcache | layout.slab | layout.hwpoison)
    for word in range(_CONDENSED):
        condense += [asm.move(R1, R7), asm.add(R1, R9), asm.load_u64(R1, R1, 8 * word)]
        condense += _condense(casts, arch, layout, mem_map, flags, word)
    table: list[Line] = [
        *index(R9, 8, TABLES),
        *load_table(),
        asm.store_u64(FP, _TABLE_PLACE, R9),
        asm.move_imm(R1, 0),
        asm.store_u64(FP, _PAGES, R1),
        asm.store_u64(FP, _EMPTY, R1),
        asm.constant(R8, arch.last_ram_frame),
        asm.move_imm(R3, SLOTS // _COPIED),
        *loop(casts, INNER, "copy", copy),
        asm.load_u64(R1, FP, _PAGES),
        asm.load_u64(R2, FP, _EMPTY),
        asm.left_imm(R2, 32),
        asm.or_(R2, R1),
        asm.load_u64(R9, FP, _TABLE_PLACE),
        asm.move(R4, R6),
        asm.add(R4, R9),
        asm.store_u64(R4, 0, R2),
        # Read back: a number that is compared and yet known would make the verifier walk the
        # loop that counted it, count by count.
        asm.load_u64(R1, R4, 0),
        asm.move(R2, R1),
        asm.right_imm(R2, 32),
        asm.and_imm(R1, 2 * SLOTS - 1),
        asm.add(R1, R2),
        asm.jump_ne_imm(R1, SLOTS, "odd"),
        asm.constant(R8, mem_map.base),
        asm.move_imm(R3, SLOTS // _CONDENSED),
        *loop(casts, INNER, "condense", condense),
        asm.Label("odd"),
    ]
    return asm.assemble(*start(given, words, head), *loop(casts, OUTER, "table", table), *stop())


def _place() -> list[Line]:
    # r9 = r1, bytes into a table, as bytes into the output
    return [
        asm.load_u64(R9, FP, _TABLE_PLACE),
        asm.and_imm(R9, 8 * (TABLES - 1)),
        asm.left_imm(R9, SLOTS.bit_length() - 1),
        asm.or_(R9, R1),
    ]


def _condense(
    casts: Casts, arch: Arch, layout: Layout, mem_map: MemMap, flags: int, word: int
) -> list[Line]:
    # The struct page of the entry r1, as one word into place r9 + word of the output.
    left, right = frame_shifts(arch)
    known, done = f"known {word}", f"done {word}"
    half: list[Line] = [] if layout.mapcount % 8 == 0 else [asm.right_imm(R4, 32)]
    return [
        asm.jump_eq_imm(R1, 0, done),
        asm.left_imm(R1, left),
        asm.right_imm(R1, right),
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
        asm.Label(done),
        asm.move(R2, R7),
        asm.add(R2, R9),
        asm.store_u64(R2, 8 * word, R1),
    ]
