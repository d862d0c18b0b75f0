"""Whole tables counted, with the expected sums worked out above each table."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.model.columns import U64, Flag
from pagewalk.model.soft import SwapTypes
from pagewalk.pagetables.count import Memo
from pagewalk.pagetables.format import LEVEL_NAMES, Arch, Era
from tests import swept as kinds
from tests.memory import DATA, PAGE, SLOTS, TABLE, Memory
from tests.pagetables.test_walk import BASE, GIB1, GIB512, MIB2, PTES, ROOT, X86, one_table, ranges
from tests.swept import swept

# Types 24 hwpoison, 25..27 migration, 28..30 device, 31 marker; offsets are stored inverted.
ALL_TYPES = Era((6, 18), 52, swap=SwapTypes.counted(hwpoison=1, migration=3, device=3, marker=1))


def counted(
    memory: Memory, root: int, wanted: U64, arch: Arch = X86, retries: int = 0
) -> tuple[list[dict[int, int]], dict[str, int]]:
    """(bytes by kind of each range, tables read by level), both without their zeros."""
    found = swept(arch, root, memory.read_tables, wanted, retries=retries)
    tables = {LEVEL_NAMES[n]: count for n, count in enumerate(found.tables) if count}
    return [found.of(row) for row in range(len(wanted))], tables


def test_counts_of_whole_and_partial_tables() -> None:
    # Three PTE tables in a row: full; 100 pages from slot 0 on; empty.
    # Range 0 is the first table and 50 pages of the second, range 1 the next 60 slots of it
    # (50 pages, 10 empty), range 2 the rest of it (402 empty), the third and 2 MiB without a table.
    full = [(0x1000 + k) * PAGE | DATA for k in range(512)]
    memory, root = one_table({})
    for i, entries in enumerate((full, full[:100], [])):
        memory.table(PTES + i * PAGE, entries)
    memory.table(ROOT + 2 * PAGE, {3 + i: PTES + i * PAGE | TABLE for i in range(3)})
    a, b = BASE + MIB2 + 50 * PAGE, BASE + MIB2 + 110 * PAGE
    sizes, tables = counted(memory, root, ranges((BASE, a), (a, b), (b, BASE + 4 * MIB2)))
    assert sizes == [
        {kinds.PAGE: 562 * PAGE},
        {kinds.PAGE: 50 * PAGE, kinds.EMPTY: 10 * PAGE},
        {kinds.EMPTY: (402 + 512) * PAGE, kinds.PMD_NONE: MIB2},
    ]
    assert tables == {"PGD": 1, "PUD": 1, "PMD": 1, "PTE": 3}


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        (0x7000 | DATA, kinds.PAGE),
        # PROT_NONE, its frame 7 inverted
        (0x000F_FFFF_FFFF_8120, kinds.PAGE),
        (0x8000_0000_03B3_4225, kinds.SPECIAL),
        (0x07FF_FFFF_FFFF_C000, kinds.SOFT | Flag.SWAP),
        (24 << 59 | ((1 << 50) - 1 - 7) << 9, kinds.SOFT | Flag.HWPOISON),
        (25 << 59 | ((1 << 50) - 1 - 7) << 9, kinds.SOFT | Flag.MIGRATION),
        (28 << 59 | ((1 << 50) - 1 - 7) << 9, kinds.SOFT | Flag.DEVICE),
        (0xFFFF_FFFF_FFFF_FC00, kinds.MARKER),
        (0xFFFF_FFFF_FFFF_FA00, kinds.POISON),
        (0xFFFF_FFFF_FFFF_F600, kinds.GUARD),
        # an erratum's bits in an empty slot
        (0x60, kinds.EMPTY),
        # PSE in a swap entry
        (0x07FF_FFFF_FFFF_C080, kinds.DOUBT),
    ],
)
def test_each_kind_is_counted_in_an_otherwise_plain_table(word: int, kind: int) -> None:
    # 512 pages, one of which is the odd word, in a range that covers the table.
    memory, root = one_table(dict.fromkeys(range(512), 0x1000 | DATA) | {9: word})
    sizes, _ = counted(memory, root, ranges((BASE, BASE + MIB2)), X86.on(4, ALL_TYPES))
    expected = {kinds.PAGE: 511 * PAGE}
    expected[kind] = expected.get(kind, 0) + PAGE
    assert sizes == [expected]


def test_an_unknown_software_type_is_counted_as_such() -> None:
    memory, root = one_table({9: 24 << 59 | ((1 << 50) - 1 - 7) << 9})
    sizes, _ = counted(memory, root, ranges((BASE, BASE + MIB2)))
    assert sizes == [{kinds.SOFT: PAGE, kinds.EMPTY: 511 * PAGE}]


def test_counts_of_huge_leaves_and_of_every_hole() -> None:
    # PGD 0: PUD 0 a 1 GiB page; PUD 1 -> PMD 0 a 2 MiB page, PMD 1 one in a PFN map, PMD 2 on
    # none; PUD 2 on none. PGD 1 on none: up to 2 TiB, PGD 1..3.
    memory = Memory()
    memory.table(ROOT + 2 * PAGE, {0: 0x20_0000 | 0x80 | DATA, 1: 0x40_0000 | 0x280 | DATA})
    memory.table(ROOT + PAGE, {0: 0x4000_0000 | 0x80 | DATA, 1: ROOT + 2 * PAGE | TABLE})
    memory.table(ROOT, {0: ROOT + PAGE | TABLE})
    sizes, tables = counted(memory, ROOT, ranges((0, 4 * GIB512)))
    assert sizes == [
        {
            kinds.HUGE: GIB1 + MIB2,
            kinds.HUGE_SPECIAL: MIB2,
            kinds.PMD_NONE: 510 * MIB2,
            kinds.PUD_NONE: 510 * GIB1,
            kinds.PGD_NONE: 3 * GIB512,
        }
    ]
    assert tables == {"PGD": 1, "PUD": 1, "PMD": 1}


def test_a_frame_past_ram_is_found_in_a_plain_table_too() -> None:
    # Frames 0x1001..0x1200; where RAM ends with 0x11ff, only slot 511 is in doubt. Even the good
    # ones ORed together are 0x13ff, so a table must not be rejected for its OR.
    memory, root = one_table({k: (0x1001 + k) * PAGE | DATA for k in range(512)})
    wanted = ranges((BASE, BASE + MIB2))
    for last, bad in ((0x11FF, 1), (0x1200, 0)):
        arch = X86.on(4, Era((6, 18), 52, max_pfn=last))
        found = swept(arch, root, memory.read_tables, wanted)
        assert found.size[0, kinds.PAGE] == (512 - bad) * PAGE
        assert found.doubts.addr.tolist() == [BASE + 511 * PAGE][:bad]


def test_doubts_are_counted_again_into_their_own_range() -> None:
    # Two ranges share a table that is unreadable at first; the second time it has a page in each.
    memory, root = one_table({})
    memory.later[PTES] = memory.tables[PTES]
    memory.later[PTES][[0, 300]] = 0x7000 | DATA
    memory.tables[PTES] = np.full(SLOTS, (1 << 64) - 1, np.uint64)
    middle = BASE + 256 * PAGE
    sizes, tables = counted(memory, root, ranges((BASE, middle), (middle, BASE + MIB2)), retries=1)
    assert sizes == [{kinds.PAGE: PAGE, kinds.EMPTY: 255 * PAGE}] * 2
    # a table walked twice is one table
    assert tables == {"PGD": 1, "PUD": 1, "PMD": 1, "PTE": 1}


def test_a_memo_is_used_where_no_upper_table_changed_and_only_there() -> None:
    memory, root = one_table({0: 0x7000 | DATA})
    wanted, memo = ranges((BASE, BASE + 2 * MIB2)), Memo()

    def sizes() -> list[int]:
        found = swept(X86, root, memory.read_tables, wanted, memo=memo).of(0)
        return [found.get(kind, 0) // PAGE for kind in (kinds.PAGE, kinds.EMPTY, kinds.PMD_NONE)]

    assert sizes() == [1, 511, 512]
    kept = memo.levels
    assert sizes() == [1, 511, 512]
    assert memo.levels is kept and len(kept) == 3
    memory.tables[PTES][5] = 0x8000 | DATA  # a PTE table is always read
    assert sizes() == [2, 510, 512]
    memory.table(0x66_6000, {0: 0x9000 | DATA})
    memory.tables[ROOT + 2 * PAGE][4] = 0x66_6000 | TABLE
    assert sizes() == [3, 1021, 0]
    memory.tables[ROOT + 2 * PAGE][3] = 0
    assert sizes() == [1, 511, 512]


def test_an_unreadable_page_table_is_counted_as_doubt_and_the_others_as_they_are() -> None:
    memory, root = one_table({0: 0x7000 | DATA})
    memory.tables[ROOT + 2 * PAGE][4] = 0x66_6000 | TABLE
    found = swept(X86, root, memory.read_tables, ranges((BASE, BASE + 2 * MIB2)))
    assert found.of(0) == {kinds.PAGE: PAGE, kinds.EMPTY: 511 * PAGE, kinds.DOUBT: MIB2}
    assert found.doubts.entry.tolist() == [0x66_6000 | TABLE]
    assert found.doubts.level.tolist() == [2]


def test_a_table_that_begins_below_the_first_range_is_not_counted_whole() -> None:
    # 512 pages, of which the range leaves out the first; the range goes on past the table.
    memory, root = one_table(dict.fromkeys(range(512), 0x1000 | DATA))
    sizes, _ = counted(memory, root, ranges((BASE + PAGE, BASE + 2 * MIB2)))
    assert sizes == [{kinds.PAGE: 511 * PAGE, kinds.PMD_NONE: MIB2}]
