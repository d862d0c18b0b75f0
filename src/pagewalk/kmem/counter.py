"""Count the pages of whole page tables inside the kernel, where nothing in them is odd."""

from __future__ import annotations

import numpy as np

from pagewalk.btf import Btf
from pagewalk.kmem import asm
from pagewalk.kmem.asm import FP, R0, R1, R5, R6, R7, R8, R9, Line
from pagewalk.kmem.direct import (
    CAST_WORDS,
    FIRST,
    OUTER,
    SECOND,
    SLOTS,
    TABLE,
    THIRD,
    Casts,
    cast,
    close,
    find_casts,
    frame_shifts,
    index,
    load,
    loop,
    start,
    stop,
)
from pagewalk.kmem.lanes import LANES, share
from pagewalk.kmem.syscall import Array, create_array
from pagewalk.pages import I64, U64
from pagewalk.paging import Arch

# Tables a run, half a millisecond of a CPU; so many are worth waking a second one.
_TABLES = 1024
_SHARED = 128
# Slots that a step of the inner loop takes. It is a loop that the verifier walks step by step:
# short enough for that, and for the CPU to keep it decoded.
_UNROLLED = 64

_GIVEN, _PLACE, _COUNTS = FIRST, SECOND, THIRD


class TableCounter:
    """Count whole page tables that hold ordinary pages and empty slots only."""

    def __init__(self, btf: Btf, arch: Arch) -> None:
        """Load the program; raises LookupError, OSError."""
        casts = find_casts(btf)
        self._given = create_array(8 * _TABLES * LANES, "pagewalk_tab")
        self._counts = create_array(8 * _TABLES * LANES, "pagewalk_cnt")
        maps = (self._given, self._counts)
        self._program = load(_counter(casts, arch, *maps), "pagewalk_count", *maps)
        self._words = [array.data.view(np.uint64).reshape(LANES, -1) for array in maps]

    def count(self, addresses: U64) -> I64:
        """Return how many pages each table at ``addresses`` (u64[n], kernel addresses) maps.

        -1 where something in it is neither an ordinary page of RAM nor nothing, or where nothing
        is in it at all, which is what unreadable memory looks like.
        """
        empty = np.empty(len(addresses), np.uint64)

        def count_some(lane: int, here: slice) -> None:
            given, counts = (words[lane, : here.stop - here.start] for words in self._words)
            given[:] = addresses[here]
            self._program.run_with(lane, len(given))
            empty[here] = counts

        share(count_some, len(addresses), _TABLES, _SHARED)
        pages = SLOTS - empty.view(np.int64)
        return np.where((pages > 0) & (pages <= SLOTS), pages, -1)

    def close(self) -> None:
        """Give back the program and its maps."""
        close(self._program, self._given, self._counts)


# Whether an entry is odd is asked of all of a table at once: of what all have, and of what any has.
def _counter(casts: Casts, arch: Arch, given: Array, counts: Array) -> bytes:
    bits_set, bits_clear = arch.plain(arch)
    left, right = frame_shifts(arch)
    highest = (arch.last_ram_frame + 1 << right) - 1  # of an entry, shifted left by `left`
    entries: list[Line] = []
    empty: list[Line] = []
    for word in range(_UNROLLED):
        if word % CAST_WORDS == 0:
            entries += [
                asm.load_u64(R1, FP, TABLE),
                asm.add_imm(R1, 8 * word),
                *cast(casts),
                asm.constant(R5, highest),
            ]
        entries += [
            asm.load_u64(R1, R0, 8 * (word % CAST_WORDS)),
            asm.jump_eq_imm(R1, 0, f"empty {word}"),
            asm.and_(R6, R1),
            asm.or_(R7, R1),
            asm.left_imm(R1, left),
            asm.jump_gt(R1, R5, "odd"),
            asm.Label(f"next {word}"),
        ]
        empty += [
            asm.Label(f"empty {word}"),
            asm.add_imm(R8, 1),
            asm.jump(f"next {word}"),
        ]
    # The verifier would follow a count from a 0 that it knows: it does not know what a map holds.
    table: list[Line] = [
        *index(R9, 8, _TABLES),
        asm.store_u64(FP, _PLACE, R9),
        asm.load_u64(R1, FP, _GIVEN),
        asm.add(R1, R9),
        asm.load_u64(R1, R1, 0),
        asm.store_u64(FP, TABLE, R1),
        asm.load_u64(R1, FP, _COUNTS),
        asm.add(R1, R9),
        asm.move_imm(R7, 0),
        asm.store_u64(R1, 0, R7),
        asm.load_u64(R8, R1, 0),
        asm.move_imm(R6, -1),
        asm.move_imm(R9, 0),
        asm.Label("entries"),
        *entries,
        asm.load_u64(R1, FP, TABLE),
        asm.add_imm(R1, 8 * _UNROLLED),
        asm.store_u64(FP, TABLE, R1),
        asm.add_imm(R9, 1),
        asm.jump_lt_imm(R9, SLOTS // _UNROLLED, "entries"),
        asm.constant(R1, bits_set),
        asm.and_(R6, R1),
        asm.jump_ne(R6, R1, "odd"),
        asm.constant(R1, bits_clear),
        asm.and_(R7, R1),
        asm.jump_eq_imm(R7, 0, "plain"),
        asm.Label("odd"),
        asm.move_imm(R8, -1),
        asm.Label("plain"),
        asm.load_u64(R9, FP, _PLACE),
        asm.and_imm(R9, 8 * (_TABLES - 1)),
        asm.load_u64(R1, FP, _COUNTS),
        asm.add(R1, R9),
        asm.store_u64(R1, 0, R8),
    ]
    return asm.assemble(
        *start(given, counts),
        asm.store_u64(FP, _GIVEN, R6),
        asm.store_u64(FP, _COUNTS, R7),
        *loop(casts, OUTER, "table", table, empty),
        *stop(),
    )
