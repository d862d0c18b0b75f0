"""Walks over tables laid out by hand, with the expected ranges worked out above each table."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.model.columns import U64, Flag
from pagewalk.model.errors import BadRequest
from pagewalk.pagetables.arch import ARCHES
from pagewalk.pagetables.decode import Entries, Why
from pagewalk.pagetables.format import Arch, Era
from pagewalk.pagetables.walk import walk_tables
from tests.memory import DATA, PAGE, SLOTS, TABLE, Memory, chain
from tests.swept import swept

KIB4, MIB2, GIB1, GIB512 = 1 << 12, 1 << 21, 1 << 30, 1 << 39
ALL = Flag.WRITE | Flag.USER | Flag.EXEC
X86 = ARCHES["x86_64"].on(4, Era((6, 18), 52))
# Where the tables are: root tables from 1 MiB on, page tables from 2 MiB on.
ROOT, PTES = 0x10_0000, 0x20_0000


def ranges(*pairs: tuple[int, int]) -> U64:
    return np.array(pairs, np.uint64).reshape(-1, 2)


def walked(
    memory: Memory, root: int, wanted: U64, arch: Arch = X86, batch: int = 1 << 17, retries: int = 0
) -> list[Entries]:
    found = walk_tables(arch, root, memory.read_tables, wanted, batch=batch, retries=retries)
    return list(found)


def leaves(batches: list[Entries]) -> list[tuple[int, int, int]]:
    """(address, shift, frame) of every leaf, in the order they came."""
    return [
        row
        for b in batches
        for row in zip(
            b.leaves.addr.tolist(), b.leaves.shift.tolist(), b.leaves.pfn.tolist(), strict=True
        )
    ]


def flags(batches: list[Entries]) -> list[Flag]:
    return [Flag(word) for b in batches for word in b.leaves.flags.tolist()]


def holes(batches: list[Entries]) -> list[tuple[int, int, int]]:
    """(address, size, level) of every hole, in the order they came."""
    return [
        row
        for b in batches
        for row in zip(
            b.holes.addr.tolist(), b.holes.size.tolist(), b.holes.level.tolist(), strict=True
        )
    ]


def doubts(batches: list[Entries]) -> list[tuple[int, int, int, int, Why]]:
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
    # Pages at slots 0, 1, 2, 3 and 9. Two adjacent ranges, and a separate one:
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
    # the table of PGD 7 is outside these ranges
    assert memory.asked == [ROOT, ROOT + PAGE, ROOT + 2 * PAGE, PTES]


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


def test_an_empty_range_finds_nothing_and_reads_nothing() -> None:
    memory, root = one_table({0: 0x7000 | DATA})
    assert walked(memory, root, ranges()) == []
    assert not swept(X86, root, memory.read_tables, ranges()).size
    assert memory.reads == []


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (ranges((0x2000, 0x3000), (0x1000, 0x2000)), "out of order"),
        (ranges((0x1000, 0x3000), (0x2000, 0x4000)), "overlap"),
        (ranges((0x1000, 0x1000)), "empty"),
        (ranges((0x1000, 0x1800)), "part of a page of 4096 bytes"),
        # the vsyscall page is above the user half
        (ranges((0xFFFF_FFFF_FF60_0000, 0xFFFF_FFFF_FF60_1000)), "end at 0x800000000000"),
    ],
)
def test_impossible_ranges_are_refused_at_once(wanted: U64, says: str) -> None:
    memory, root = one_table({})
    with pytest.raises(BadRequest, match=says):
        walk_tables(X86, root, memory.read_tables, wanted)


def test_five_levels_and_the_number_of_levels_that_exist() -> None:
    # PGD 1, P4D 2, PUD 3, PMD 4, PTE 5:
    # 1 << 48 | 2 << 39 | 3 << 30 | 4 << 21 | 5 << 12 = 0x1_0100_c080_5000.
    # Around it, in [1 << 48, 2 << 48): P4D 0..1 none, 2 the table, 3..511 none.
    memory = Memory()
    root = chain(memory, ROOT, memory.table(PTES, {5: 0xABC_D000 | DATA}), (1, 2, 3, 4))
    five = X86.on(5, Era((6, 18), 52))
    found = walked(memory, root, ranges((1 << 48, 2 << 48)), five)
    assert leaves(found) == [(0x1_0100_C080_5000, 12, 0xABCD)]
    p4d = [hole for hole in holes(found) if hole[2] == 4]
    assert p4d == [
        (1 << 48, 2 << 39, 4),
        (0x1_0180_0000_0000, 509 << 39, 4),
    ]
    with pytest.raises(BadRequest, match="no 3-level page tables; give one of 4, 5"):
        X86.on(3, Era((6, 18), 52))


def test_huge_leaves_at_the_pmd_and_the_pud() -> None:
    # PUD 0 is a 1 GiB page at frame 0x40000 with PAT (bit 12) set, PUD 1 a table:
    #   PMD 0 is a 2 MiB page at frame 0x200, PMD 1 a table with one page, PMD 2..511 none.
    # 0x80 is PSE; PAT must not leak into the frame.
    memory = Memory()
    memory.table(PTES, {0: 0x9000 | DATA})
    memory.table(ROOT + 2 * PAGE, {0: 0x20_0000 | 0x1000 | 0x80 | DATA, 1: PTES | TABLE})
    memory.table(ROOT + PAGE, {0: 0x4000_0000 | 0x1000 | 0x80 | DATA, 1: ROOT + 2 * PAGE | TABLE})
    memory.table(ROOT, {0: ROOT + PAGE | TABLE})
    found = walked(memory, ROOT, ranges((0, 2 * GIB1)))
    assert leaves(found) == [
        (0, 30, 0x40000),
        (GIB1, 21, 0x200),
        (GIB1 + MIB2, 12, 9),
    ]
    assert [Flag.HUGE in word for word in flags(found)] == [True, True, False]
    assert holes(found) == [
        (GIB1 + MIB2 + KIB4, MIB2 - KIB4, 1),
        (GIB1 + 2 * MIB2, GIB1 - 2 * MIB2, 2),
    ]


def test_a_huge_leaf_that_a_range_cuts_comes_in_aligned_pieces() -> None:
    # A 2 MiB page at frame 0x200, of which two ranges want [4 KiB, 16 KiB) and [1 MiB, 2 MiB):
    #   4 KiB at 0x1000 (frame 0x201), 8 KiB at 0x2000 (frame 0x202), 1 MiB (frame 0x300).
    memory = Memory()
    root = chain(memory, ROOT, 0x20_0000, (0, 0, 0))
    memory.tables[ROOT + 2 * PAGE][0] |= np.uint64(0x80)
    found = walked(memory, root, ranges((0x1000, 0x4000), (0x10_0000, 0x20_0000)))
    assert leaves(found) == [(0x1000, 12, 0x201), (0x2000, 13, 0x202), (0x10_0000, 20, 0x300)]
    assert all(Flag.HUGE in word for word in flags(found))
    assert holes(found) == []


@pytest.mark.parametrize(
    ("level", "taken", "left"),
    [
        # an entry of that level (1 the PUD's, 2 the PMD's) without write, without user, with NX
        (1, TABLE & ~0x2, Flag.USER | Flag.EXEC),
        (1, TABLE & ~0x4, Flag.WRITE | Flag.EXEC),
        (2, TABLE | 1 << 63, Flag.WRITE | Flag.USER),
        (2, TABLE & ~0x2, Flag.USER | Flag.EXEC),
        # page-table isolation sets NX in the kernel's copy of the PGD: no right is lost
        (0, TABLE | 1 << 63, ALL),
        (0, TABLE & ~0x2, Flag.USER | Flag.EXEC),
    ],
)
def test_a_table_entry_takes_rights_away(level: int, taken: int, left: Flag) -> None:
    memory, root = one_table({0: 0x7000 | TABLE})
    slot = (1, 2, 3)[level]
    table = memory.tables[ROOT + level * PAGE]
    table[slot] = int(table[slot]) & ~TABLE | taken
    # a second way down keeps all its rights
    memory.table(PTES + PAGE, {0: 0x8000 | TABLE})
    memory.table(ROOT + 4 * PAGE, {0: PTES + PAGE | TABLE})
    memory.table(ROOT + 3 * PAGE, {0: ROOT + 4 * PAGE | TABLE})
    memory.tables[ROOT][0] = ROOT + 3 * PAGE | TABLE
    found = walked(memory, root, ranges((0, 1 << 47)))
    assert [word & ALL for word in flags(found)] == [ALL, left]


def test_a_leaf_cannot_give_back_a_right_and_can_take_one() -> None:
    memory, root = one_table({0: 0x7000 | TABLE & ~0x2, 1: 0x8000 | TABLE | 1 << 63})
    memory.tables[ROOT + PAGE][2] &= np.uint64(~0x4 & (1 << 64) - 1)
    found = walked(memory, root, ranges((BASE, BASE + 0x2000)))
    assert [word & ALL for word in flags(found)] == [Flag.EXEC, Flag.WRITE]


def test_a_table_outside_ram_is_a_doubt_and_the_walk_goes_on() -> None:
    # PMD 0 points to a page that cannot be read, PMD 1 beyond 40 address bits, PMD 2 to a good one.
    outside, beyond = 0x666_6000 | TABLE, 1 << 40 | TABLE
    memory, root = one_table({0: 0x7000 | DATA})
    memory.table(ROOT + 2 * PAGE, {0: outside, 1: beyond, 2: PTES | TABLE})
    base = 0x80_8000_0000
    arch = X86.on(4, Era((6, 18), 40))
    wanted = ranges((base, base + 0x3000), (base + 0x5000, base + 2 * MIB2 + 0x1000))
    found = walked(memory, root, wanted, arch)
    assert leaves(found) == [(base + 2 * MIB2, 12, 7)]
    assert holes(found) == []
    assert doubts(found) == [
        (base, 0x3000, 2, outside, Why.TABLE),
        (base + 0x5000, MIB2 - 0x5000, 2, outside, Why.TABLE),
        (base + MIB2, MIB2, 2, beyond, Why.TABLE),
    ]
    # an address beyond the address bits is not even read
    assert 1 << 40 not in memory.asked


def test_a_root_outside_ram_is_one_doubt_above_the_top_level() -> None:
    memory = Memory()
    found = walked(memory, 0x5000, ranges((0x1000, 0x3000)))
    assert doubts(found) == [(0x1000, 0x2000, 6, 0x5000, Why.TABLE)]


def test_a_cycle_is_a_doubt_and_a_table_used_twice_is_not() -> None:
    # PMD 0 points to the root again, PMD 1 to its own table, PMD 2 and 3 to the same PTE table.
    memory, root = one_table({0: 0x7000 | DATA})
    up, own = ROOT | TABLE, ROOT + 2 * PAGE | TABLE
    memory.table(ROOT + 2 * PAGE, {0: up, 1: own, 2: PTES | TABLE, 3: PTES | TABLE})
    base = 0x80_8000_0000
    found = walked(memory, root, ranges((base, base + 3 * MIB2 + 0x1000)))
    assert leaves(found) == [(base + 2 * MIB2, 12, 7), (base + 3 * MIB2, 12, 7)]
    assert doubts(found) == [
        (base, MIB2, 2, up, Why.CYCLE),
        (base + MIB2, MIB2, 2, own, Why.CYCLE),
    ]


def test_an_impossible_frame_is_a_doubt_unless_it_is_special() -> None:
    # RAM ends with frame 0xffff. Slot 0 is its last frame, slot 1 the next, slot 2 the next in a
    # PFN map (bit 9), slot 3 a PFN map's too, beyond the 40 address bits.
    arch = X86.on(4, Era((6, 18), 40, max_pfn=0xFFFF))
    past, far = 0x1000_0000 | DATA, 1 << 40 | 0x200 | DATA
    memory, root = one_table({0: 0xFFF_F000 | DATA, 1: past, 2: past | 0x200, 3: far})
    found = walked(memory, root, ranges((BASE, BASE + 0x4000)), arch)
    assert leaves(found) == [(BASE, 12, 0xFFFF), (BASE + 0x2000, 12, 0x10000)]
    assert doubts(found) == [
        (BASE + 0x1000, 0x1000, 1, past, Why.FRAME),
        (BASE + 0x3000, 0x1000, 1, far, Why.FRAME),
    ]


def test_a_page_beyond_ram_is_a_page_where_memory_may_be_a_device() -> None:
    # As above, but the machine has a device zone: only the address bits limit a page. A table must
    # still be in RAM.
    arch = X86.on(4, Era((6, 18), 40, max_pfn=0xFFFF, devices=True))
    past, far = 0x1000_0000 | DATA, 1 << 40 | DATA
    memory, root = one_table({0: 0xFFF_F000 | DATA, 1: past, 2: far})
    memory.tables[ROOT + 2 * PAGE][4] = 0x1000_0000 | TABLE
    found = walked(memory, root, ranges((BASE, BASE + MIB2 + 0x1000)), arch)
    assert leaves(found) == [(BASE, 12, 0xFFFF), (BASE + 0x1000, 12, 0x10000)]
    assert doubts(found) == [
        (BASE + 0x2000, 0x1000, 1, far, Why.FRAME),
        (BASE + MIB2, 0x1000, 2, 0x1000_0000 | TABLE, Why.TABLE),
    ]


def test_a_torn_table_is_walked_again_and_only_there() -> None:
    # PMD 3's table reads as 0xff bytes the first time, then as a page in slot 1. A word of all
    # ones has bit 0, so its frame is 2^40 - 1: beyond RAM.
    memory, root = one_table({})
    torn, good = np.full(SLOTS, (1 << 64) - 1, np.uint64), {1: 0x7000 | DATA}
    memory.table(PTES + PAGE, {0: 0x8000 | DATA})
    memory.tables[ROOT + 2 * PAGE][4] = PTES + PAGE | TABLE
    memory.table(PTES, good)
    memory.later[PTES], memory.tables[PTES] = memory.tables[PTES], torn
    arch = X86.on(4, Era((6, 18), 52, max_pfn=0xFFFF))
    wanted = ranges((BASE, BASE + MIB2 + 0x1000))
    found = walked(memory, root, wanted, arch, retries=1)
    assert leaves(found) == [(BASE + 0x1000, 12, 7), (BASE + MIB2, 12, 8)]
    assert holes(found) == [(BASE, 0x1000, 1), (BASE + 0x2000, MIB2 - 0x2000, 1)]
    assert doubts(found) == []
    assert memory.reads == [
        [ROOT],
        [ROOT + PAGE],
        [ROOT + 2 * PAGE],
        [PTES, PTES + PAGE],
        [ROOT],
        [ROOT + PAGE],
        [ROOT + 2 * PAGE],
        [PTES],
    ]


def test_a_table_that_stays_torn_is_reported_after_the_last_retry() -> None:
    memory, root = one_table({3: (1 << 51) | DATA})
    arch = X86.on(4, Era((6, 18), 52, max_pfn=0xFFFF))
    found = walked(memory, root, ranges((BASE, BASE + MIB2)), arch, retries=2)
    assert doubts(found) == [(BASE + 0x3000, 0x1000, 1, (1 << 51) | DATA, Why.FRAME)]
    assert memory.reads.count([PTES]) == 3


def test_batches_are_bounded_and_in_order() -> None:
    # Three PTE tables of 512 pages, a 2 MiB page between the first and the second: 1537 leaves.
    # With at most 512 per batch no batch may hold more, and the addresses must still ascend.
    memory, root = one_table({})
    for i in range(3):
        memory.table(PTES + i * PAGE, [(0x1000 + 512 * i + k) * PAGE | DATA for k in range(512)])
    memory.table(
        ROOT + 2 * PAGE,
        {
            3: PTES | TABLE,
            4: 0x20_0000 | 0x80 | DATA,
            5: PTES + PAGE | TABLE,
            6: PTES + 2 * PAGE | TABLE,
        },
    )
    whole = walked(memory, root, ranges((BASE, BASE + 4 * MIB2)))
    assert [len(b.leaves) for b in whole] == [1537]
    for bound in (1, 100, 512, 600):
        parts = walked(memory, root, ranges((BASE, BASE + 4 * MIB2)), batch=bound)
        assert max(len(b.leaves) for b in parts) <= bound
        assert leaves(parts) == leaves(whole)
    addresses = [row[0] for row in leaves(whole)]
    assert addresses == sorted(addresses)
    assert (BASE + MIB2, 21, 0x200) in leaves(whole)


def test_few_tables_are_held_however_large_the_target() -> None:
    # 512 PMD tables share 512 PTE tables: 512 * 512 * 512 pages, 512 GiB. The first batch must
    # come after one group of tables per level, not after all 262,144.
    memory = Memory()
    for i in range(512):
        memory.table(0x1000_0000 + i * PAGE)
        memory.table(0x2000_0000 + i * PAGE, [0x1000_0000 + k * PAGE | TABLE for k in range(512)])
    memory.tables[0x1000_0000][0] = 0x7000 | DATA
    memory.table(ROOT + PAGE, [0x2000_0000 + k * PAGE | TABLE for k in range(512)])
    memory.table(ROOT, {0: ROOT + PAGE | TABLE})
    first = next(walk_tables(X86, ROOT, memory.read_tables, ranges((0, GIB512)), batch=1 << 13))
    assert leaves([first])[0] == (0, 12, 7)
    # 2^13 leaves are 16 tables of 512 slots: one group at each of four levels
    assert [len(call) for call in memory.reads] == [1, 1, 16, 16]
