"""Walks over tables laid out by hand; the expected ranges are worked out above each table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pagewalk.arch import ARCHES
from pagewalk.errors import BadRequest
from pagewalk.pages import Flag, U64
from pagewalk.paging import Arch, Era, SwapTypes
from pagewalk.pgtable import Batch, Why, walk_tables
from tests.memory import DATA, PAGE, SLOTS, TABLE, Memory, chain

KIB4, MIB2, GIB1, GIB512 = 1 << 12, 1 << 21, 1 << 30, 1 << 39
ALL = Flag.WRITE | Flag.USER | Flag.EXEC
X86 = ARCHES["x86_64"]
# Where tests put things: root tables from 1 MiB on, page tables from 2 MiB on.
ROOT, PTES = 0x10_0000, 0x20_0000


def ranges(*pairs: tuple[int, int]) -> U64:
    return np.array(pairs, np.uint64).reshape(-1, 2)


def walked(
    memory: Memory, root: int, wanted: U64, arch: Arch = X86, batch: int = 1 << 18, retries: int = 0
) -> list[Batch]:
    found = walk_tables(arch, root, memory.read_tables, wanted, batch=batch, retries=retries)
    return list(found)


def leaves(batches: list[Batch]) -> list[tuple[int, int, int]]:
    """(address, shift, frame) of every leaf, in the order they came."""
    return [
        row
        for b in batches
        for row in zip(
            b.leaves.addr.tolist(), b.leaves.shift.tolist(), b.leaves.pfn.tolist(), strict=True
        )
    ]


def flags(batches: list[Batch]) -> list[Flag]:
    return [Flag(word) for b in batches for word in b.leaves.flags.tolist()]


def holes(batches: list[Batch]) -> list[tuple[int, int, int]]:
    """(address, size, level) of every hole, in the order they came."""
    return [
        row
        for b in batches
        for row in zip(
            b.holes.addr.tolist(), b.holes.size.tolist(), b.holes.level.tolist(), strict=True
        )
    ]


def doubts(batches: list[Batch]) -> list[tuple[int, int, int, int, Why]]:
    """(address, size, level, entry, why) of every doubt, in the order they came."""
    return [
        (addr, size, level, entry, Why(why))
        for b in batches
        for addr, size, level, entry, why in zip(
            b.doubts.addr.tolist(),
            b.doubts.size.tolist(),
            b.doubts.level.tolist(),
            b.doubts.entry.tolist(),
            b.doubts.why.tolist(),
            strict=True,
        )
    ]


# Slots 1, 2 and 3 down to a PTE table: its slot i maps
# 1 * 512 GiB + 2 * 1 GiB + 3 * 2 MiB + i * 4 KiB = 0x80_8060_0000 + i * 0x1000.
BASE = 0x80_8060_0000


def one_table(entries: dict[int, int]) -> tuple[Memory, int]:
    memory = Memory()
    return memory, chain(memory, ROOT, memory.table(PTES, entries), (1, 2, 3))


def test_a_page_is_found_through_four_levels() -> None:
    # PTE slot 5 holds frame 0x12345: 0x80_8060_5000. The rest of the table is empty.
    memory, root = one_table({5: 0x1234_5000 | DATA})
    found = walked(memory, root, ranges((BASE, BASE + MIB2)))
    assert leaves(found) == [(0x80_8060_5000, 12, 0x12345)]
    assert flags(found) == [Flag.PRESENT | Flag.WRITE | Flag.USER | Flag.ACCESSED | Flag.DIRTY]
    assert holes(found) == [
        (0x80_8060_0000, 0x5000, 1),
        (0x80_8060_6000, 0x1FA000, 1),
    ]
    assert doubts(found) == []


def test_holes_carry_the_level_at_which_the_walk_ended() -> None:
    # The whole user half, [0, 0x8000_0000_0000):
    #   PGD 0 is none                 [0, 0x80_0000_0000)                        512 GiB, PGD
    #   PGD 1 -> PUD 0..1 none        [0x80_0000_0000, 0x80_8000_0000)           2 GiB, PUD
    #   PUD 2 -> PMD 0..2 none        [0x80_8000_0000, 0x80_8060_0000)           6 MiB, PMD
    #   PMD 3 -> PTE 0 a page         [0x80_8060_0000, +4 KiB)
    #            PTE 1..511 empty     [0x80_8060_1000, 0x80_8080_0000)           PTE
    #            PMD 4..511 none      [0x80_8080_0000, 0x80_c000_0000)           PMD
    #            PUD 3..511 none      [0x80_c000_0000, 0x100_0000_0000)          PUD
    #            PGD 2..255 none      [0x100_0000_0000, 0x8000_0000_0000)        PGD
    memory, root = one_table({0: 0x7000 | DATA})
    found = walked(memory, root, ranges((0, 1 << 47)))
    assert leaves(found) == [(BASE, 12, 7)]
    assert holes(found) == [
        (0, 0x80_0000_0000, 5),
        (0x80_0000_0000, 0x8000_0000, 3),
        (0x80_8000_0000, 0x60_0000, 2),
        (0x80_8060_1000, 0x1F_F000, 1),
        (0x80_8080_0000, 0x3F80_0000, 2),
        (0x80_C000_0000, 0x7F_4000_0000, 3),
        (0x100_0000_0000, 0x7F00_0000_0000, 5),
    ]


def test_only_the_ranges_are_walked_and_reported() -> None:
    # Pages at slots 0, 1, 2, 3 and 9. Two ranges that touch, and one apart:
    #   [slot 1, slot 2)   page 1
    #   [slot 2, slot 6)   pages 2 and 3, then slots 4..5 empty
    #   [slot 8, slot 9)   slot 8 empty
    memory, root = one_table({i: (0x100 + i) * PAGE | DATA for i in (0, 1, 2, 3, 9)})
    memory.table(ROOT, {1: (ROOT + PAGE) | TABLE, 7: 0x6666_6000 | TABLE})
    found = walked(
        memory,
        root,
        ranges(
            (BASE + 0x1000, BASE + 0x2000),
            (BASE + 0x2000, BASE + 0x6000),
            (BASE + 0x8000, BASE + 0x9000),
        ),
    )
    assert leaves(found) == [
        (BASE + 0x1000, 12, 0x101),
        (BASE + 0x2000, 12, 0x102),
        (BASE + 0x3000, 12, 0x103),
    ]
    assert holes(found) == [(BASE + 0x4000, 0x2000, 1), (BASE + 0x8000, 0x1000, 1)]
    # the table behind PGD 7 is none of these ranges' business
    assert sum(memory.reads, []) == [ROOT, ROOT + PAGE, ROOT + 2 * PAGE, PTES]


def test_an_upper_hole_is_cut_at_the_edges_of_every_range() -> None:
    # PMD 3 of the chain is a table, PMD 4 and 5 are none: [BASE + 2 MiB, BASE + 6 MiB).
    # Range 1 ends inside, range 2 lies inside, range 3 begins inside and ends in PMD 6, none too.
    memory, root = one_table({})
    a = BASE + MIB2
    found = walked(
        memory,
        root,
        ranges(
            (BASE, a + 0x3000), (a + 0x3000, a + 0x5000), (a + 0x10_0000, a + 2 * MIB2 + 0x1000)
        ),
    )
    assert leaves(found) == []
    assert holes(found) == [
        (BASE, MIB2, 1),
        (a, 0x3000, 2),
        (a + 0x3000, 0x2000, 2),
        (a + 0x10_0000, 0x30_1000, 2),
    ]
