"""All groups beside one another: what is below a group is included."""

from __future__ import annotations

import numpy as np

from pagewalk.kernel.structs.slabs import Caches, Charged
from pagewalk.model.columns import I64
from pagewalk.model.frames import Kind
from pagewalk.proc.cgroup_numbers import GroupNumbers
from pagewalk.system.census import Count
from pagewalk.system.group_table import (
    ROOT_INODE,
    amounts_of,
    caches_of,
    counted_amounts,
    counted_groups,
    usage_of,
)
from pagewalk.system.survey import Survey
from tests.system.by_hand import Run, frames, memcgs

GROUPS = memcgs(("/", -1, False, 9, -1), ("/a", 0, False, 8, -1), ("/a/x", 1, False, 7, -1),
                ("/b", 0, True, 6, -1))


def column(*numbers: int) -> I64:
    return np.array(numbers, np.int64)


def survey() -> Survey:
    count = Count(9, lambda _: column(2, 3, 3, 3, 4, 0))
    count.add(frames(
        Run(Kind.ANON, 1, ("lru", "swapbacked"), 1), Run(Kind.FILE, 2, ("lru",)),
        Run(Kind.FILE, 4, ("lru", "dirty"), 1), Run(Kind.PAGE_TABLE, 8),
        Run(Kind.SHMEM, 16, ("lru", "swapbacked")), Run(Kind.FILE, 32, ("lru",)),
    ))
    caches = Caches(column(10, 20).astype(np.uint64), column(64, 192), column(64, 192),
                    np.array([True, False]), ("dentry", None))
    objects = Charged(column(-1, 2, 2, 3), column(10, 10, 20, 10).astype(np.uint64),
                      column(1, 2, 3, 4), column(1000, 72, 600, 80))
    return Survey(GROUPS, count.census, objects, caches, np.zeros(0, np.uint64))


def test_amounts_are_those_of_all_below() -> None:
    found = amounts_of(survey(), 1000)
    # The root: 8 of /a, and of /b, which was removed, what was found: 16 pages and 80 bytes.
    assert found.usage.tolist() == [8 + 16000 + 80, 8, 7, 6]
    assert found.anon.tolist() == [1000, 1000, 0, 0]
    assert found.file.tolist() == [6000, 6000, 6000, 0]
    assert found.shmem.tolist() == [16000, 0, 0, 16000]
    assert found.kernel.tolist() == [8752, 8672, 8672, 80]  # an owner that is not known: nobody's
    assert found.unmapped.tolist() == [18000, 2000, 2000, 16000]
    assert found.reclaimable.tolist() == [2152, 2072, 2072, 80]


def test_the_largest_caches_of_a_group_come_first() -> None:
    assert caches_of(survey(), 2) == [("not readable", 600), ("dentry", 72)]
    assert caches_of(survey(), 1) == []


def test_by_counters_the_root_has_what_is_charged_below_it() -> None:
    numbers = [GroupNumbers(), GroupNumbers(current=7, limit=9, stat={"anon": 3, "anon_thp": 1}),
               GroupNumbers(current=5, stat={"file": 4, "shmem": 1, "kernel": 2})]
    parent = column(-1, 0, 0)
    inode = column(ROOT_INODE, 7, 8).astype(np.uint64)
    usage = usage_of(inode, parent, numbers)
    groups = counted_groups(inode, parent, ("/", "/a", "/b"), usage, numbers)
    assert (groups.usage.tolist(), groups.limit.tolist()) == ([12, 7, 5], [-1, 9, -1])
    found = counted_amounts(usage, parent, numbers, 2)
    assert (found.anon.tolist(), found.file.tolist(), found.shmem.tolist(), found.kernel.tolist()
            ) == ([3, 3, 0], [3, 0, 3], [1, 0, 1], [2, 0, 2])
    assert found.unmapped is None and found.reclaimable is None
    # version 1 tells what the machine uses; a group that only a container sees as "/" its own
    numbers[0] = GroupNumbers(current=99)
    assert usage_of(inode, parent, numbers).tolist() == [12, 7, 5]
    assert usage_of(inode + np.uint64(9), parent, numbers).tolist() == [99, 7, 5]
