"""Objects that a process holds: how much of them it maps, and what is freed when it ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pagewalk.account import holdings
from pagewalk.account.holdings import Holding
from pagewalk.account.table import Table
from pagewalk.model.columns import READ, SHARED, WRITE, Backing, State, VMAs
from pagewalk.model.facts import Facts
from pagewalk.proc.objects import Object
from tests import by_hand
from tests.by_hand import HERE, ONCE, PAGE, Row

DEV, INODE = 1 << 32 | 5, 77
FIRST, SECOND = 0x10_0000, 0x20_0000
MEMFD = Object(DEV, INODE, "/memfd:x (deleted)", 8 * PAGE, linked=False)
FILE = Object(DEV, 78, "/dev/shm/y", 3 * PAGE, linked=True)


def vmas(second_offset: int = 0, perms: int = READ | WRITE | SHARED) -> VMAs:
    """Return two VMAs of four pages that map the object MEMFD, from its start and elsewhere."""
    of = by_hand.vmas([
        (FIRST, 4, perms, 0, Backing.SHMEM, MEMFD.name),
        (SECOND, 4, perms, second_offset, Backing.SHMEM, MEMFD.name),
    ])
    return replace(of, dev=np.full(2, DEV, np.uint64), inode=np.full(2, INODE, np.uint64))


def page(addr: int, pfn: int, mapcount: int) -> Row:
    flags = ONCE if mapcount == 1 else HERE
    return (addr, PAGE, State.SHMEM, flags, pfn, ("swapbacked",), mapcount)


# Two frames: one mapped by both VMAs and by nothing else, one by the first VMA only.
ROWS = [page(FIRST, 1, 2), page(FIRST + PAGE, 2, 1), page(SECOND, 1, 2)]


def table(
    objects: list[tuple[Object, bool | None]],
    rows: list[Row] | None = None,
    of: VMAs | None = None,
    *,
    frames: bool = True,
    everything: bool = True,
    facts: Facts = by_hand.FACTS,
) -> Table:
    of = vmas() if of is None else of
    walk = by_hand.walk([by_hand.pages(rows or ROWS, of, frames=frames)], of, frames=frames,
                        objects=objects, all_objects=everything, facts=facts)
    return by_hand.by_vma(walk)


def amounts(found: Table) -> tuple[int | None, ...]:
    return (found.totals["distinct"], found.totals["freed"], found.unmapped)


def test_objects_that_end_with_the_process_are_freed_mapped_or_not() -> None:
    found = table([(MEMFD, True)])
    assert amounts(found) == (2 * PAGE, 8 * PAGE, 6 * PAGE)
    assert found.holdings == [Holding(MEMFD.name, 8 * PAGE, 2 * PAGE, 6 * PAGE, True)]
    # Each frame is in the first VMA that maps it; unmapped ones are in none.
    assert found.columns["distinct"] is not None and found.columns["freed"] is not None
    assert found.columns["distinct"].tolist() == found.columns["freed"].tolist() == [2 * PAGE, 0]


def test_objects_that_stay_are_not_freed() -> None:
    found = table([(MEMFD, False), (FILE, False)])
    assert amounts(found) == (2 * PAGE, 0, 9 * PAGE)


def test_a_page_that_another_process_maps_is_not_freed() -> None:
    found = table([(MEMFD, True)], [page(FIRST, 1, 3), page(SECOND, 1, 3)])
    assert amounts(found) == (PAGE, 7 * PAGE, 7 * PAGE)


def test_freed_is_withheld_unless_it_is_known_whether_an_object_ends() -> None:
    found = table([(MEMFD, None)])
    assert amounts(found) == (2 * PAGE, None, 6 * PAGE)
    assert found.columns["freed"] is None
    # If all of it is mapped, and by others too, it does not matter.
    small = MEMFD._replace(resident=PAGE)
    assert amounts(table([(small, None)], [page(FIRST, 1, 2)])) == (PAGE, 0, 0)


def test_where_an_object_may_be_missing_freed_and_unmapped_are_withheld() -> None:
    assert amounts(table([], everything=False)) == (2 * PAGE, None, None)
    assert table([(FILE, False)], everything=False).unmapped is None


def test_without_frames_mappings_that_do_not_overlap_give_the_same() -> None:
    found = table([(MEMFD, True)], of=vmas(4 * PAGE), frames=False)
    assert amounts(found) == (None, None, 5 * PAGE)
    assert amounts(table([(MEMFD, True)], frames=False)) == (None, None, None)
    private = vmas(4 * PAGE, READ | WRITE)
    assert table([(MEMFD, True)], of=private, frames=False).holdings is None


def test_part_of_a_process_does_not_show_what_the_process_does_not_map() -> None:
    walk = by_hand.walk([by_hand.pages(ROWS, vmas())], vmas(), objects=[(MEMFD, True)],
                        covered=np.array([4 * PAGE, 0]))
    part = by_hand.by_vma(walk)
    assert (part.holdings, part.unmapped, part.totals["freed"]) == (None, None, 2 * PAGE)


def test_a_kernel_without_mapcounts_gives_neither() -> None:
    config = frozenset({"CONFIG_NO_PAGE_MAPCOUNT"})
    found = table([(MEMFD, True)], facts=by_hand.FACTS._replace(read_config=lambda: config))
    assert amounts(found)[:2] == (None, None)
    assert holdings.NO_PAGE_MAPCOUNT in found.outcome.withheld
