"""One address through tables laid out by hand, with expected values worked out on paper.

The address 0x7f12_3456_7abc is, from the top, slots 254, 72, 418 and 359, and byte 0xabc:
0xfe << 39 | 0x48 << 30 | 0x1a2 << 21 | 0x167 << 12 | 0xabc.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagewalk.model.columns import Flag
from pagewalk.model.errors import BadTable
from pagewalk.model.soft import SwapTypes
from pagewalk.pagetables.arch import ARCHES
from pagewalk.pagetables.decode import Why
from pagewalk.pagetables.format import Arch, Era
from pagewalk.pagetables.trace import Trace, hole_around, trace
from pagewalk.pagetables.walk import walk_tables
from tests.memory import DATA, PAGE, TABLE, Memory, chain
from tests.pagetables.test_walk_properties import EDGES, FIVE, FOUR, GRAPHS, laid_out

ADDR = 0x7F12_3456_7ABC
PGD, PUD, PMD, PTE, BYTE = 254, 72, 418, 359, 0xABC
# Tables at 0x100000, 0x101000, 0x102000 (see chain), the page table at 0x200000.
ROOT, PTES = 0x10_0000, 0x20_0000
# RAM ends with frame 0xfffff; types of a kernel with everything: marker 31, migration 28 to 30.
ERA = Era((6, 18), 52, max_pfn=0xF_FFFF,
    swap=SwapTypes.counted(hwpoison=1, migration=3, device=0, marker=1),
)
X86 = ARCHES["x86_64"].on(4, ERA)
NX, PSE, FRAME = 1 << 63, 0x80, 0x000F_FFFF_FFFF_F000
ALL = Flag.WRITE | Flag.USER | Flag.EXEC


def tables(*, pte: int = 0, **above: int) -> Memory:
    """Lay out tables for ADDR; ``pgd``, ``pud`` and ``pmd`` replace an entry above the PTE."""
    memory = Memory()
    chain(memory, ROOT, PTES, (PGD, PUD, PMD))
    memory.table(PTES, {PTE: pte})
    for name, table, slot in (("pgd", 0, PGD), ("pud", 1, PUD), ("pmd", 2, PMD)):
        if name in above:
            memory.table(ROOT + table * PAGE, {slot: above[name]})
    return memory


def follow(memory: Memory, addr: int = ADDR, arch: Arch = X86) -> Trace:
    return trace(arch, ROOT, memory.read_tables, addr)


def test_the_address_has_the_slots_in_the_docstring() -> None:
    assert PGD << 39 | PUD << 30 | PMD << 21 | PTE << 12 | BYTE == ADDR


def test_every_level_has_its_table_slot_and_entry() -> None:
    found = follow(tables(pte=DATA | 0x1234_5000))
    assert [(s.level.name, s.table, s.slot, s.at, s.entry) for s in found.steps] == [
        # an entry's address is its table's plus 8 per slot: 254 * 8 = 0x7f0, 72 * 8 = 0x240 ...
        ("PGD", 0x10_0000, 254, 0x10_07F0, 0x10_1067),
        ("PUD", 0x10_1000, 72, 0x10_1240, 0x10_2067),
        ("PMD", 0x10_2000, 418, 0x10_2D10, 0x20_0067),
        ("PTE", 0x20_0000, 359, 0x20_0B38, 0x8000_0000_1234_5067),
    ]
    assert [step.below for step in found.steps] == [0x10_1000, 0x10_2000, 0x20_0000, None]
    assert (found.present, found.pfn, found.phys) == (True, 0x12345, 0x1234_5ABC)
    assert found.last.rights == Flag.WRITE | Flag.USER


def test_only_the_tables_on_the_path_are_read() -> None:
    memory = tables(pte=DATA)
    follow(memory)
    assert memory.asked == [0x10_0000, 0x10_1000, 0x10_2000, 0x20_0000]


def test_five_levels() -> None:
    # slot 3 of a PGD on top; the P4D is what the PGD was: 3 << 48 | ADDR
    memory = Memory()
    chain(memory, ROOT, PTES, (3, PGD, PUD, PMD))
    memory.table(PTES, {PTE: DATA | 0x1234_5000})
    found = follow(memory, 3 << 48 | ADDR, ARCHES["x86_64"].on(5, ERA))
    assert [step.level.name for step in found.steps] == ["PGD", "P4D", "PUD", "PMD", "PTE"]
    assert [step.slot for step in found.steps] == [3, PGD, PUD, PMD, PTE]
    assert found.phys == 0x1234_5ABC


@pytest.mark.parametrize(
    ("level", "entry", "frame", "phys"),
    [
        # 2 MiB at 0x40000000: the offset is the low 21 bits of ADDR, 0x167abc
        ("pmd", 0x4000_0000 | DATA | PSE, 0x4_0167, 0x4016_7ABC),
        # the same, with PAT (bit 12), which is not part of the frame
        ("pmd", 0x4000_0000 | DATA | PSE | 1 << 12, 0x4_0167, 0x4016_7ABC),
        # 1 GiB at 0x80000000: the low 30 bits, 0x34567abc
        ("pud", 0x8000_0000 | DATA | PSE, 0xB_4567, 0xB456_7ABC),
    ],
)
def test_the_offset_in_a_huge_page_is_longer(
    level: str, entry: int, frame: int, phys: int
) -> None:
    found = follow(tables(**{level: entry}))
    assert found.last.level.name == level.upper()
    assert (found.pfn, found.phys) == (frame, phys)
    assert found.start + found.offset == ADDR


def test_a_table_removes_rights_from_everything_below() -> None:
    # the PUD entry has no write bit, the PMD entry forbids execution
    found = follow(tables(pte=0x1234_5067, pud=0x10_2065, pmd=NX | PTES | TABLE))
    wanted = [ALL, Flag.USER | Flag.EXEC, Flag.USER, Flag.USER]
    assert [step.rights for step in found.steps] == wanted
    assert found.last.taken == Flag.WRITE | Flag.EXEC
    assert Flag.WRITE not in found.last.flags


def test_a_prot_none_page_has_its_frame_inverted() -> None:
    # ~0x12345000 in bits 12 to 51, bit 8 and no bit 0
    found = follow(tables(pte=~0x1234_5000 & FRAME | 0x100))
    assert found.phys == 0x1234_5ABC
    assert Flag.PROT_NONE in found.last.flags
    assert found.last.rights == Flag(0)


@pytest.mark.parametrize(
    ("above", "level", "start", "size"),
    [
        # a slot of the PGD is 512 GiB, of the PUD 1 GiB, of the PMD 2 MiB, of the PTE 4 KiB
        ({"pgd": 0}, "PGD", 0x7F00_0000_0000, 1 << 39),
        ({"pud": 0}, "PUD", 0x7F12_0000_0000, 1 << 30),
        ({"pmd": 0}, "PMD", 0x7F12_3440_0000, 1 << 21),
        ({}, "PTE", 0x7F12_3456_7000, 1 << 12),
        # accessed and dirty alone, which an erratum may set, are empty too
        ({"pmd": 0x60}, "PMD", 0x7F12_3440_0000, 1 << 21),
    ],
)
def test_an_empty_slot_ends_the_walk(
    above: dict[str, int], level: str, start: int, size: int
) -> None:
    found = follow(tables(**above))
    assert found.none and not found.present
    assert found.phys is None
    assert (found.last.level.name, found.start, found.last.size) == (level, start, size)


def test_a_swap_entry_has_type_and_offset() -> None:
    # type 1 in bits 59 to 63; offset 5, inverted, in bits 9 to 58
    found = follow(tables(pte=1 << 59 | (~5 & (1 << 50) - 1) << 9))
    assert dict(found.last.says) | {"bits": ""} == {
        "kind": "swap", "type": 1, "offset": 5, "bits": "",
    }
    assert Flag.SWAP in found.last.flags
    assert (found.phys, found.last.rights) == (None, Flag(0))


@pytest.mark.parametrize(
    ("above", "level", "why"),
    [
        # there are no huge pages at the PGD
        ({"pgd": 0x10_1000 | TABLE | PSE}, "PGD", Why.RESERVED),
        # a PUD leaf that is not aligned to 1 GiB
        ({"pud": 0x4020_0000 | DATA | PSE}, "PUD", Why.RESERVED),
        # a table beyond the last frame of RAM, and one in RAM that cannot be read
        ({"pud": 0x1_0000_0000 | TABLE}, "PUD", Why.TABLE),
        ({"pud": 0x0DEA_D000 | TABLE}, "PUD", Why.TABLE),
        # the root again, and itself
        ({"pmd": ROOT | TABLE}, "PMD", Why.CYCLE),
        ({"pud": ROOT + PAGE | TABLE}, "PUD", Why.CYCLE),
        # an ordinary page beyond RAM
        ({"pte": 0x1_0000_0000 | DATA}, "PTE", Why.FRAME),
    ],
)
def test_what_no_kernel_writes_is_a_doubt(above: dict[str, int], level: str, why: Why) -> None:
    found = follow(tables(**above))
    assert (found.last.level.name, found.last.doubt) == (level, why)
    assert not found.present
    assert (found.phys, found.last.below) == (None, None)


def test_a_device_page_may_be_beyond_ram() -> None:
    # bit 9, special
    assert follow(tables(pte=0x1_0000_0000 | DATA | 0x200)).phys == 0x1_0000_0ABC


def test_without_a_root_there_is_nothing_to_say() -> None:
    with pytest.raises(BadTable, match="PGD"):
        follow(Memory())


def test_the_kernel_half_has_the_same_root() -> None:
    # 0xffff888000001abc is slots 273, 0, 0 and 1; a page of the kernel has no user bit
    memory = Memory()
    chain(memory, ROOT, PTES, (273, 0, 0))
    memory.table(PTES, {1: 0x1163 | NX, 2: ~0x2000 & FRAME | 0x62})
    found = follow(memory, 0xFFFF_8880_0000_1ABC)
    assert [step.slot for step in found.steps] == [273, 0, 0, 1]
    assert found.phys == 0x1ABC
    assert found.last.rights == Flag.WRITE
    # one that was removed from the direct map (set_memory_np) is not a swap entry
    gone = follow(memory, 0xFFFF_8880_0000_2000)
    assert gone.last.kind == "not present"
    assert gone.phys is None


# A random address in random tables ends as it does in a walk of its page alone.
@settings(max_examples=60, deadline=None)
@given(GRAPHS, EDGES, st.booleans())
def test_a_trace_ends_where_the_walk_ends(
    graph: list[dict[int, int]], edge: int, five: bool
) -> None:
    arch = FIVE if five else FOUR
    addr = edge % arch.user_end
    read = laid_out(graph).read_tables
    last = trace(arch, 0x1000, read, addr).last
    page = addr & -PAGE
    batches = list(walk_tables(arch, 0x1000, read, np.array([[page, page + PAGE]], np.uint64)))
    (batch,) = batches
    number = last.level.number
    if last.doubt is not None:
        assert [row.tolist() for row in (batch.doubts.level, batch.doubts.entry,
                                         batch.doubts.why)] == [[number], [last.entry],
                                                                [last.doubt]]
    elif last.kind == "none":
        assert batch.holes.level.tolist() == [number]
    else:
        assert batch.leaves.entry.tolist() == [last.entry]
        assert batch.leaves.flags.tolist() == [int(last.flags)]


# Pages 3 and 10 in ADDR's page table are present, and page 0 in the next one.
def sparse() -> Memory:
    memory = Memory()
    chain(memory, ROOT, PTES, (PGD, PUD, PMD))
    memory.table(PTES, {3: DATA | 0x1000, 10: DATA | 0x2000})
    memory.table(ROOT + 2 * PAGE, {PMD: PTES | TABLE, PMD + 1: PTES + PAGE | TABLE})
    memory.table(PTES + PAGE, {0: DATA | 0x3000})
    return memory


FIRST = ADDR & -(1 << 21)


@pytest.mark.parametrize(
    ("page", "start", "end", "hole"),
    [
        (5, 0, 512, (4, 10)),
        (4, 0, 512, (4, 10)),
        (9, 0, 512, (4, 10)),
        # the VMA ends before the next page
        (5, 5, 8, (5, 8)),
        (0, 0, 512, (0, 3)),
        # past the end of the page table
        (200, 0, 1024, (11, 512)),
        (600, 0, 1024, (513, 1024)),
        # past the ends of tables above
        (-5, -(1 << 20), 512, (-(1 << 20), 3)),
    ],
)
def test_a_hole_extends_from_page_to_page(
    page: int, start: int, end: int, hole: tuple[int, int]
) -> None:
    read = sparse().read_tables
    at = [FIRST + number * PAGE for number in (page, start, end, *hole)]
    assert hole_around(X86, ROOT, read, at[0] + 5, at[1], at[2]) == (at[3], at[4])
