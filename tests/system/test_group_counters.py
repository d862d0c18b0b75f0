"""A cgroup by its counters: what each version calls them, and what they add up to."""

from __future__ import annotations

import pytest

from pagewalk.proc.cgroup_numbers import GroupNumbers
from pagewalk.system.group_counters import charged_from, of_files, parts_from

ONE = {"rss": 9, "total_rss": 100, "total_rss_huge": 40, "total_cache": 70, "total_shmem": 20,
       "total_swapcached": 3, "total_inactive_file": 30, "total_active_file": 15, "total_dirty": 5}
TWO = {"anon": 100, "anon_thp": 40, "file": 70, "shmem": 20, "swapcached": 3, "kernel": 50,
       "pagetables": 10, "kernel_stack": 8, "slab_reclaimable": 7, "slab_unreclaimable": 6,
       "vmalloc": 4, "percpu": 2, "zswap": 1, "inactive_file": 30, "active_file": 15,
       "file_dirty": 5}
USERS = {"anon": 60, "anon_huge": 40, "file": 50, "shmem": 20}


def test_version_1_counts_all_below_in_total_and_the_kernels_as_one() -> None:
    assert parts_from(GroupNumbers(kmem=50, stat=ONE), 1) == {**USERS, "kernel_other": 50}


def test_version_2_tells_parts_of_the_kernels() -> None:
    assert parts_from(GroupNumbers(stat=TWO), 2) == {
        **USERS, "page_tables": 10, "kernel_stack": 8, "slab_reclaimable": 7,
        "slab_unreclaimable": 6, "vmalloc": 4, "kernel_other": 50 - 35 - 3}


def test_version_2_charges_more_than_pages() -> None:
    numbers = GroupNumbers(stat={**TWO, "sock": 9, "hugetlb": 11})
    parts, charged = parts_from(numbers, 2), charged_from(numbers, 2)
    assert parts is not None and charged == {
        **parts, "percpu": 2, "zswap": 1, "sock": 9, "hugetlb": 11}
    # each kind once: processes and files, the kernel's own, and what is in neither
    assert sum(charged.values()) == 100 + 70 + 50 + 9 + 11


def test_version_1_has_all_of_that_in_the_kernels() -> None:
    numbers = GroupNumbers(kmem=50, stat=ONE)
    assert charged_from(numbers, 1) == parts_from(numbers, 1)


def test_without_memory_stat_nothing_is_said() -> None:
    assert charged_from(GroupNumbers(current=5), 2) is None
    assert parts_from(GroupNumbers(current=5), 2) is None
    assert of_files(GroupNumbers(current=5), 2) is None


@pytest.mark.parametrize(("version", "stat"), [(1, ONE), (2, TWO)])
def test_clean_files_are_those_on_the_lists_that_are_not_dirty(
    version: int, stat: dict[str, int]
) -> None:
    assert of_files(GroupNumbers(stat=stat), version) == 40


def test_counters_that_moved_meanwhile_never_give_less_than_nothing() -> None:
    parts = parts_from(GroupNumbers(stat={"anon": 4, "anon_thp": 8, "kernel": 1, "percpu": 2}), 2)
    assert parts == {"anon_huge": 8}
