"""Count the pages of whole page tables inside the kernel, if they have only ordinary entries."""

from __future__ import annotations

import numpy as np

from pagewalk.kernel.bpf import asm
from pagewalk.kernel.bpf.asm import FP, R0, R1, R2, R5, R6, R7, R8, R9, Line
from pagewalk.kernel.bpf.syscall import Array, create_array
from pagewalk.kernel.programs import loops
from pagewalk.kernel.programs.loops import FIRST, OUTER, SECOND, SLOTS, TABLE, THIRD, Casts
from pagewalk.model.columns import I64, U64
from pagewalk.pagetables.format import Arch

_TABLES = 1024
_RUN = 256
# Slots per step of the inner loop. The verifier walks this loop step by step: it is short enough
# for that, and for the CPU to keep it decoded.
_UNROLLED = 64

_GIVEN, _PLACE, _COUNTS = FIRST, SECOND, THIRD

_COLLECT: list[Line] = [asm.move(R2, R1), asm.add(R2, R5), asm.or_(R7, R2)]


class TableCounter:
    """Counts whole page tables that have only ordinary pages and empty slots."""

    def __init__(self, casts: Casts, arch: Arch) -> None:
        """Load the program; raises OSError."""
        self._given = create_array(8 * _TABLES, "pagewalk_tab")
        self._counts = create_array(8 * _TABLES, "pagewalk_cnt")
        maps = (self._given, self._counts)
        self._program = loops.load(_counter(casts, arch, *maps), "pagewalk_count", *maps)
        self._words = [array.data.view(np.uint64) for array in maps]

    def count(self, addresses: U64) -> I64:
        """Return how many pages each table at ``addresses`` (u64[n], kernel addresses) maps.

        -1 if an entry is neither an ordinary page of RAM nor empty, or if all are empty, which is
        what unreadable memory looks like.
        """
        pages = np.empty(len(addresses), np.uint64)
        for first in range(0, len(addresses), _TABLES):
            here = addresses[first : first + _TABLES]
            given, counts = (words[: len(here)] for words in self._words)
            given[:] = here
            loops.run(self._program, len(here), _RUN)
            pages[first : first + len(here)] = counts
        return np.where(pages == 0, -1, pages.view(np.int64))

    def close(self) -> None:
        """Close the program and its maps."""
        loops.close(self._program, self._given, self._counts)


def _counter(casts: Casts, arch: Arch, given: Array, counts: Array) -> bytes:
    # No branch depends on an entry, because the verifier would follow both ways of each. r7
    # collects the bits that any entry has after adding `beyond`, which carries out of the bits for
    # frames of RAM if a frame is beyond them.
    present, special = arch.plain()
    frames = int(arch.last_ram_frame).bit_length()
    beyond = (1 << frames) - 1 - arch.last_ram_frame << arch.page_shift
    odd = special | arch.frame_mask >> arch.page_shift + frames << arch.page_shift + frames
    # Most tables are full: r6, the bits that all entries have, shows it.
    full = [*_COLLECT, asm.and_(R6, R1)]
    table: list[Line] = [
        *loops.index(R9, 8, _TABLES),
        asm.store_u64(FP, _PLACE, R9),
        asm.load_u64(R1, FP, _GIVEN),
        asm.add(R1, R9),
        asm.load_u64(R1, R1, 0),
        asm.store_u64(FP, TABLE, R1),
        asm.move_imm(R6, -1),
        asm.move_imm(R7, 0),
        *_each(casts, "full", beyond, full),
        asm.constant(R1, odd),
        asm.and_(R7, R1),
        asm.move_imm(R8, 0),
        asm.jump_ne_imm(R7, 0, "known"),
        asm.move_imm(R8, SLOTS),
        asm.constant(R1, present),
        asm.and_(R6, R1),
        asm.jump_ne_imm(R6, 0, "known"),
        *_count_partly(casts, beyond, odd, present),
        asm.Label("known"),
        asm.load_u64(R9, FP, _PLACE),
        asm.and_imm(R9, 8 * (_TABLES - 1)),
        asm.load_u64(R1, FP, _COUNTS),
        asm.add(R1, R9),
        asm.store_u64(R1, 0, R8),
    ]
    return asm.assemble(
        *loops.start(given, counts),
        asm.store_u64(FP, _GIVEN, R6),
        asm.store_u64(FP, _COUNTS, R7),
        *loops.loop(casts, OUTER, "table", table),
        *loops.stop(),
    )


def _count_partly(casts: Casts, beyond: int, odd: int, present: int) -> list[Line]:
    # Otherwise r8 counts present entries, and r6 collects the bits of the others.
    partly: list[Line] = [
        *_COLLECT,
        asm.move(R2, R1),
        asm.right_imm(R2, present.bit_length() - 1),
        asm.and_imm(R2, 1),
        asm.add(R8, R2),
        asm.add_imm(R2, -1),
        asm.and_(R2, R1),
        asm.or_(R6, R2),
    ]
    return [
        # The verifier would track a count that starts from a known 0; it does not know map values.
        asm.load_u64(R9, FP, _PLACE),
        asm.load_u64(R1, FP, _COUNTS),
        asm.add(R1, R9),
        asm.store_u64(R1, 0, R7),
        asm.load_u64(R8, R1, 0),
        *_each(casts, "partly", beyond, partly),
        asm.constant(R1, odd),
        asm.and_(R7, R1),
        asm.or_(R6, R7),
        asm.jump_eq_imm(R6, 0, "known"),
        asm.move_imm(R8, 0),
    ]


def _each(casts: Casts, label: str, constant: int, lines: list[Line]) -> list[Line]:
    """for r1 in the entries of the table: lines, with ``constant`` in r5; clobbers r9"""
    entries: list[Line] = []
    for word in range(_UNROLLED):
        if word % loops.CAST_WORDS == 0:
            entries += [
                asm.load_u64(R1, FP, TABLE),
                asm.add_imm(R1, 8 * word),
                *loops.cast(casts),
                asm.constant(R5, constant),
            ]
        entries += [asm.load_u64(R1, R0, 8 * (word % loops.CAST_WORDS)), *lines]
    return [
        asm.move_imm(R9, 0),
        asm.Label(label),
        *entries,
        *_add_to_table(8 * _UNROLLED),
        asm.add_imm(R9, 1),
        asm.jump_lt_imm(R9, SLOTS // _UNROLLED, label),
        *_add_to_table(-8 * SLOTS),
    ]


def _add_to_table(size: int) -> list[Line]:
    return [
        asm.load_u64(R1, FP, TABLE),
        asm.add_imm(R1, size),
        asm.store_u64(FP, TABLE, R1),
    ]
