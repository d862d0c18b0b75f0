"""Every line of memory.stat is compared, or it is said why not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pagewalk.proc.cgroup_numbers import GroupNumbers
from pagewalk.system.group_uncompared import ALONE, COUNTS, NOT_COMPARED, UNKNOWN, not_compared

# memory.stat of Linux 6.12, and of version 1 in 6.18
SECOND = ("anon", "file", "kernel", "kernel_stack", "pagetables", "sec_pagetables", "percpu",
          "sock", "vmalloc", "shmem", "zswap", "zswapped", "file_mapped", "file_dirty",
          "file_writeback", "swapcached", "anon_thp", "file_thp", "shmem_thp", "inactive_anon",
          "active_anon", "inactive_file", "active_file", "unevictable", "slab_reclaimable",
          "slab_unreclaimable", "slab", "workingset_refault_anon", "workingset_nodereclaim",
          "pgscan", "pgsteal_kswapd", "pgfault", "thp_fault_alloc", "zswpin", "swpin_zero",
          "numa_pages_migrated")  # fmt: skip
FIRST = ("cache", "rss", "rss_huge", "shmem", "mapped_file", "dirty", "writeback",
         "workingset_refault_anon", "swap", "swapcached", "pgpgin", "pgfault", "inactive_anon",
         "active_anon", "inactive_file", "active_file", "unevictable")  # fmt: skip


def told(names: Sequence[str], version: int) -> dict[str, str]:
    return not_compared(GroupNumbers(stat=dict.fromkeys(names, 0)), version)


def test_of_version_2_only_events_and_what_the_kernel_alone_counts_is_left() -> None:
    left = told(SECOND, 2)
    assert {name for name, why in left.items() if why != COUNTS} == {
        "sec_pagetables", "percpu", "sock", "zswap", "zswapped"}
    assert {name for name, why in left.items() if why == COUNTS} == {
        "workingset_refault_anon", "workingset_nodereclaim", "pgscan", "pgsteal_kswapd", "pgfault",
        "thp_fault_alloc", "zswpin", "swpin_zero", "numa_pages_migrated"}


def test_of_version_1_the_totals_are_compared() -> None:
    left = told([*FIRST, "hierarchical_memory_limit", *(f"total_{name}" for name in FIRST)], 1)
    assert {name: why for name, why in left.items() if name.startswith("total_")} == {
        **dict.fromkeys(("total_workingset_refault_anon", "total_pgpgin", "total_pgfault"), COUNTS),
        "total_swap": NOT_COMPARED["swap"]}
    assert left["rss"] == left["cache"] == left["unevictable"] == ALONE
    assert left["hierarchical_memory_limit"] == "limits, not memory"


@pytest.mark.parametrize("version", [1, 2])
def test_a_line_that_is_new_is_not_left_out_silently(version: int) -> None:
    assert told(["new_in_linux_9"], version) == {"new_in_linux_9": UNKNOWN}
    assert not_compared(GroupNumbers(), version) == {}
