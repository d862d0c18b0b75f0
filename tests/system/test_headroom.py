"""What could be reclaimed: every page is in one amount."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from pagewalk.model.frames import FOLIO_MAPPED, Backing, Kind
from pagewalk.proc.cgroup_numbers import GroupNumbers
from pagewalk.system.census import Count
from pagewalk.system.headroom import clean_files, headroom, lazyfree, protected, swap_room
from pagewalk.system.ram import NO_LABELS, Labels
from tests.system.by_hand import Run, frames, memcgs
from tests.system.test_census import RUNS

CASES = {
    "free": [Run(Kind.BUDDY, 1), Run(Kind.DEFERRED, 1), Run(Kind.CPU_LIST, 1),
             Run(Kind.UNACCEPTED, 1)],
    "clean_unmapped": [Run(Kind.FILE, 1, ("lru",)), Run(Kind.FILE, 1, ("lru", "active"))],
    # reclaim takes a folio or leaves it: one that is mapped in part has to be unmapped first
    "clean_mapped": [Run(Kind.FILE, 1, ("lru",), mapcount=1),
                     Run(Kind.FILE, 1, ("lru",), facts=FOLIO_MAPPED)],
    "lazyfree": [Run(Kind.ANON, 1, ("lru",), mapcount=1)],
    "dirty": [Run(Kind.FILE, 1, ("lru", "dirty")), Run(Kind.FILE, 1, ("lru", "writeback"), 1)],
    "swappable": [Run(kind, 1, ("lru", "swapbacked"), mapcount)
                  for kind in (Kind.ANON, Kind.KSM, Kind.SHMEM, Kind.SWAP_CACHE)
                  for mapcount in (0, 1)],
    "locked": [Run(Kind.FILE, 1, ("lru", "unevictable")), Run(Kind.ANON, 1, ("mlocked",)),
               Run(Kind.SHMEM, 1, ("lru", "swapbacked", "unevictable"))],
    "hugetlb": [Run(Kind.HUGETLB, 1)],
    "kernel": [Run(kind, 1) for kind in (
        Kind.SLAB, Kind.LARGE_KMALLOC, Kind.PAGE_TABLE, Kind.ZSMALLOC, Kind.RESERVED, Kind.KERNEL,
        Kind.BLOCK_TAIL, Kind.UNKNOWN, Kind.OFFLINE, Kind.GUARD)],
    "held": [Run(Kind.FILE, 1), Run(Kind.ANON, 1, ("swapbacked",)), Run(Kind.SHMEM, 1)],
}  # fmt: skip
PAIRS = [(name, run) for name, runs in CASES.items() for run in runs]


@pytest.mark.parametrize(("name", "run"), PAIRS)
def test_a_page_is_one_amount(name: str, run: Run) -> None:
    count = Count(9)
    count.add(frames(run))
    found = headroom(count.census, NO_LABELS)._asdict()
    assert {key: pages for key, pages in found.items() if pages} == {name: 1}


@pytest.mark.parametrize(("backing", "name"), [
    (Backing.WRITTEN, "dirty"), (Backing.KEPT, "locked"), (Backing.UNTOLD, "dirty"),
])
def test_what_is_dirty_where_nothing_is_written_never_goes(backing: Backing, name: str) -> None:
    count = Count(9, backing=lambda _: np.array([backing.value], np.uint8))
    count.add(frames(Run(Kind.FILE, 3, ("lru", "dirty"))))
    found = headroom(count.census, NO_LABELS)
    assert (getattr(found, name), sum(found)) == (3, 3)


def test_only_slabs_of_caches_that_shrink_are_reclaimable() -> None:
    count = Count(9, lambda _: np.array([1, 2, 0]))
    count.add(frames(Run(Kind.SLAB, 3), Run(Kind.SLAB, 4), Run(Kind.SLAB, 5)))
    found = headroom(count.census, Labels(("", "", ""), -1, 1, 2))
    assert (found.slab_reclaimable, found.kernel) == (3, 9)


@given(RUNS)
def test_amounts_add_up(runs: list[Run]) -> None:
    count = Count(9)
    count.add(frames(*runs))
    assert sum(headroom(count.census, NO_LABELS)) == sum(run.pages for run in runs)


@given(RUNS)
def test_what_goes_at_once_of_a_group_is_in_the_same_amounts(runs: list[Run]) -> None:
    count = Count(9)
    count.add(frames(*runs))
    census = count.census
    found = headroom(census, NO_LABELS)
    assert census.count(clean_files(census)) == found.clean_mapped + found.clean_unmapped
    assert census.count(lazyfree(census)) == found.lazyfree


def test_memory_min_protects_what_groups_right_below_use_up_to_it() -> None:
    # /a uses 40 of its 50, /b 60 of which 20 are protected; /b/c cannot protect more than /b does
    groups = memcgs(("/", -1, False, 200, -1), ("/a", 0, False, 40, -1), ("/b", 0, False, 60, -1),
                    ("/b/c", 2, False, 30, -1), ("/d", 0, False, 70, -1))
    assert protected(groups, 0) == 0
    groups = replace(groups, minimum=np.array([0, 50, 20, 1 << 62, 0]))
    assert [protected(groups, row) for row in range(5)] == [60, 0, 30, 0, 0]


@pytest.mark.parametrize(("room", "groups"), [
    (100, []),
    (100, [{}]),
    (100, [{"swap_limit": 200, "swap_current": 50}]),
    (30, [{"swap_limit": 80, "swap_current": 50}, {"swap_limit": 90}]),
    (0, [{"swap_limit": 80, "swap_current": 20}, {"swap_limit": 10, "swap_current": 30}]),
    # version 1: of 60 for both, memory may have 40, and 5 are in swap already
    (15, [{"limit": 40, "current": 30, "both": 35, "both_limit": 60}]),
    (0, [{"limit": 60, "current": 30, "both": 30, "both_limit": 60}]),
    (20, [{"current": 40, "both": 40, "both_limit": 60}]),
])
def test_room_in_swap_is_bounded_by_each_group(room: int, groups: list[dict[str, int]]) -> None:
    assert swap_room(100, [GroupNumbers(**numbers) for numbers in groups]) == room
