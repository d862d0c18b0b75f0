"""Count the pages of whole page tables inside the kernel, where nothing in them is odd."""

from __future__ import annotations

import numpy as np

from pagewalk.btf import Btf
from pagewalk.kmem import asm
from pagewalk.kmem.asm import FP, R0, R1, R2, R3, R4, R5, R7, R8, R9, Line
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
from pagewalk.kmem.syscall import Array, create_array
from pagewalk.pages import I64, U64
from pagewalk.paging import Arch

_PAGES, _EMPTY = FIRST, SECOND
_UNROLLED = 16  # all the words that a cast gives, for a step of a loop costs a call


class TableCounter:
    """Count whole page tables that hold ordinary pages and empty slots only."""

    def __init__(self, btf: Btf, arch: Arch) -> None:
        """Load the program; raises LookupError, OSError."""
        casts = find_casts(btf)
        self._tables = create_array(8 * TABLES, "pagewalk_tab")
        self._counts = create_array(8 * TABLES, "pagewalk_cnt")
        self._head = create_array(16, "pagewalk_hd")
        maps = (self._tables, self._counts, self._head)
        self._program = load(_counter(casts, arch, *maps), "pagewalk_count", *maps)
        self._words = [array.data.view(np.uint64) for array in maps]
        self._words[2][1] = arch.last_ram_frame

    def count(self, addresses: U64) -> I64:
        """Return how many pages each table at ``addresses`` (u64[n], kernel addresses) maps.

        -1 where something in it is neither an ordinary page of RAM nor nothing, or where nothing
        is in it at all, which is what unreadable memory looks like.
        """
        tables, counts, head = self._words
        found = np.empty(len(addresses), np.int64)
        for first in range(0, len(addresses), TABLES):
            here = addresses[first : first + TABLES]
            tables[: len(here)] = here
            head[0] = len(here)
            self._program.run()
            found[first : first + len(here)] = counts[: len(here)].view(np.int64)
        pages, empty = found & 0xFFFF, found >> 32
        return np.where((pages + empty == SLOTS) & (pages > 0), pages, -1)

    def close(self) -> None:
        """Give back the program and its maps."""
        close(self._program, self._tables, self._counts, self._head)


def _counter(casts: Casts, arch: Arch, tables: Array, counts: Array, head: Array) -> bytes:
    bits_set, bits_clear = arch.plain(arch)
    left, right = frame_shifts(arch)
    one: list[Line] = []
    for word in range(_UNROLLED):
        one += [
            asm.load_u64(R1, R0, 8 * word),
            asm.jump_ne_imm(R1, 0, f"some {word}"),
            asm.add_imm(R5, 1),
            asm.jump(f"next {word}"),
            asm.Label(f"some {word}"),
            asm.move(R2, R1),
            asm.and_(R2, R3),
            asm.jump_ne_imm(R2, bits_set, f"next {word}"),
            asm.left_imm(R1, left),
            asm.right_imm(R1, right),
            asm.jump_gt(R1, R8, f"next {word}"),
            asm.add_imm(R4, 1),
            asm.Label(f"next {word}"),
        ]
    entries: list[Line] = [
        *index(R1, 8 * _UNROLLED, SLOTS // _UNROLLED),
        asm.load_u64(R2, FP, TABLE),
        asm.add(R1, R2),
        *cast(casts),
        asm.constant(R3, bits_set | bits_clear),
        asm.load_u64(R4, FP, _PAGES),
        asm.load_u64(R5, FP, _EMPTY),
        *one,
        asm.store_u64(FP, _PAGES, R4),
        asm.store_u64(FP, _EMPTY, R5),
    ]
    table: list[Line] = [
        *index(R9, 8, TABLES),
        *load_table(),
        asm.move_imm(R1, 0),
        asm.store_u64(FP, _PAGES, R1),
        asm.store_u64(FP, _EMPTY, R1),
        asm.move_imm(R3, SLOTS // _UNROLLED),
        *loop(casts, INNER, "entries", entries),
        asm.load_u64(R1, FP, _EMPTY),
        asm.left_imm(R1, 32),
        asm.load_u64(R2, FP, _PAGES),
        asm.or_(R1, R2),
        asm.move(R2, R7),
        asm.add(R2, R9),
        asm.store_u64(R2, 0, R1),
    ]
    return asm.assemble(*start(tables, counts, head), *loop(casts, OUTER, "table", table), *stop())
