"""Translations of addresses in by_hand's process, through tables with one entry per level."""

from __future__ import annotations

from dataclasses import replace

from pagewalk.model.bits import KPF
from pagewalk.model.columns import State, VMAs
from pagewalk.model.soft import SwapTypes
from pagewalk.pagetables.arch import ARCHES
from pagewalk.pagetables.format import Arch, Era
from pagewalk.pagetables.trace import trace
from pagewalk.translate.address import holder_of
from pagewalk.translate.remarks import remarks
from pagewalk.translate.translation import Frame, Opinion, Translation
from tests.by_hand import BIG, HEAP, MEMFD, PAGE, PROGRAM, VMAS
from tests.memory import DATA, TABLE, Memory

ERA = Era((6, 18), 52, max_pfn=0xF_FFFF,
          swap=SwapTypes.counted(hwpoison=1, migration=3, device=0, marker=1))
ROOT = 0x10_0000
# Type 1, offset 5.
SWAP = (~5 & (1 << 50) - 1) << 9 | 1 << 59
# Where the translation of an address ends: (address, state, level, entry, mapcount).
CASES = {
    "page": (HEAP + 0x123, State.ANON, 1, 0x20_0000 | DATA, 1),
    "copied": (HEAP + PAGE, State.ANON, 1, 0x20_1000 | DATA & ~2, 2),
    "file": (PROGRAM + 8, State.FILE, 1, 0x10_0025, 1),
    "shared": (MEMFD + 1, State.SHMEM, 1, 0x30_0000 | DATA & ~2, 2),
    "zero": (MEMFD + PAGE, State.ZERO, 1, 0x1_0000 | 1 << 63 | 0x225, 0),
    "huge": (BIG + 0x12345, State.ANON, 2, 0x40_0000 | DATA | 0x80, 1),
    "none": (PROGRAM + 3 * PAGE, State.EMPTY, 1, 0, 0),
    "no_table": (BIG + 0x20_0000, State.NOT_MAPPED, 2, 0, 0),
    "swap": (HEAP + 3 * PAGE, State.SWAPPED, 1, SWAP, 0),
    "guard": (HEAP + 4 * PAGE, State.GUARD, 1, 0xFFFF_FFFF_FFFF_F600, 0),
    "prot_none": (HEAP + 5 * PAGE, State.ANON, 1, ~0x20_0000 & 0xF_FFFF_FFFF_F000 | 0x100, 1),
    "doubt": (HEAP, State.DOUBT, 1, 0x1_0000_0000 | DATA, 0),
    "outside": (0x1000, None, 5, 0, 0),
    "kernel": (0xFFFF_8880_0000_1000, None, 1, 0x1000 | 1 << 63 | 0x163, 0),
}


def arch(levels: int = 4) -> Arch:
    """Return the format of these tables."""
    return ARCHES["x86_64"].on(levels, ERA)


def memory(addr: int, number: int, entry: int, *, form: Arch) -> Memory:
    """Lay out the tables that lead ``addr`` to ``entry`` at level ``number``."""
    laid = Memory()
    for depth, level in enumerate(form.levels):
        here, slot = ROOT + depth * PAGE, addr >> level.shift & 511
        if level.number == number or level is form.levels[-1]:
            laid.table(here, {slot: entry})
            break
        laid.table(here, {slot: here + PAGE | TABLE})
    return laid


def found(name: str, *, levels: int = 4, vmas: VMAs = VMAS, **changes: object) -> Translation:
    """Return the translation for a case in CASES; ``changes`` sets fields of it."""
    addr, state, number, entry, mapcount = CASES[name]
    form = arch(levels)
    laid = memory(addr, number, entry, form=form)
    way = trace(form, ROOT, laid.read_tables, addr)
    row = holder_of(vmas, addr)
    kflags = sum(1 << KPF[flag] for flag in ("uptodate", "lru", "mmap", "swapbacked"))
    frame = Frame(way.pfn, kflags, mapcount) if way.present else None
    hole = (PROGRAM + 2 * PAGE, PROGRAM + 4 * PAGE) if name == "none" else None
    hole = (BIG + 0x20_0000, BIG + 0x40_0000) if name == "no_table" else hole
    plain = Translation(
        4711, "pro gram\x1b[1m", "/usr/bin/program", "ebpf", form, hex(addr), way, vmas, row, state,
        frame, hole, "/dev/zram\x1b" if name == "swap" else None, Opinion(0x1234, True), True,
    )
    changed = replace(plain, **changes)  # type: ignore[arg-type]
    return replace(changed, remarks=remarks(changed))
