"""What a status file tells of a process, and how full a group is, on paper."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from pagewalk.history.glance import (
    Member,
    fullness,
    hard_to_reclaim,
    parse_member,
    read_member,
    size,
)
from pagewalk.proc.cgroup_numbers import GroupNumbers
from tests.samples import MEMBER

MIB = 1 << 20


def test_our_own_status() -> None:
    member = read_member(os.getpid())
    assert member is not None
    assert member.name == Path("/proc/self/comm").read_text().rstrip("\n")
    # what psutil reads a moment later differs by what this test itself does meanwhile
    assert abs(member.anon + member.file + member.shmem - psutil.Process().memory_info().rss) < MIB


def test_a_status_file() -> None:
    assert parse_member(7, MEMBER) == Member(
        7, "a\\nb c", 10892 << 10, 9216 << 10, 4 << 10, 512 << 10)


def test_kernel_threads_and_processes_that_have_ended() -> None:
    assert parse_member(2, b"Name:\tkthreadd\nUmask:\t0000\nState:\tS (sleeping)\n") is None
    assert read_member((1 << 22) + 1) is None  # PID_MAX_LIMIT


def test_swap_counts_as_well() -> None:
    assert size(Member(1, "x", 1, 2, 4, 8)) == 15


def test_page_cache_is_not_hard_to_reclaim() -> None:
    stat = {"active_file": 20 * MIB, "inactive_file": 10 * MIB}
    assert hard_to_reclaim(GroupNumbers(current=60 * MIB, stat=stat), 2) == 30 * MIB
    total = {f"total_{name}": amount for name, amount in stat.items()}
    assert hard_to_reclaim(GroupNumbers(current=60 * MIB, stat={**total, **stat}), 1) == 30 * MIB
    assert hard_to_reclaim(GroupNumbers(), 2) is None
    # what is charged, and what of it is cache, are two readings
    assert hard_to_reclaim(GroupNumbers(current=MIB, stat=stat), 2) == 0


def test_a_group_is_as_full_as_of_its_nearest_limit() -> None:
    numbers = GroupNumbers(current=48 * MIB, limit=64 * MIB)
    assert fullness(numbers, 2) == (0.75, 64 * MIB)
    assert fullness(numbers._replace(high=50 * MIB), 2) == (0.96, 50 * MIB)
    assert fullness(numbers._replace(limit=None), 2) is None
    both = numbers._replace(both=72 * MIB, both_limit=80 * MIB)
    assert fullness(both, 1) == (0.9, 80 * MIB)
