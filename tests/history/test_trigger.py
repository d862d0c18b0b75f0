"""When a recording is made, and why."""

from __future__ import annotations

import pytest

from pagewalk.history.glance import Glance, Member
from pagewalk.history.trigger import FULL, KILL, NEAR, STALLED, Trigger, reason_of, rise
from pagewalk.history.waiting import (
    CRITICAL,
    CROSSED,
    EVENT,
    LOOK,
    MACHINE_PRESSURE,
    OOM,
    PRESSURE,
    RECLAIM,
)
from pagewalk.proc.cgroup_numbers import GroupNumbers

MIB = 1 << 20


def numbers(mib: int, **events: int) -> GroupNumbers:
    counted = {"max": 0, "oom": 0, "oom_kill": 0, **events}
    return GroupNumbers(current=mib * MIB, limit=100 * MIB, stat={}, events=counted)


@pytest.mark.parametrize(("told", "now", "was_near", "reason"), [
    ({LOOK}, numbers(50), False, None),
    ({LOOK}, numbers(90), False, NEAR),
    ({LOOK}, numbers(95), True, None),  # it is as it was
    ({CROSSED}, numbers(90), False, NEAR),
    ({CROSSED}, numbers(89), True, None),  # downwards
    ({RECLAIM}, numbers(92), True, None),
    ({RECLAIM, CRITICAL}, numbers(92), True, NEAR),
    ({CRITICAL}, numbers(50), False, STALLED),
    ({PRESSURE}, numbers(50), False, STALLED),
    ({MACHINE_PRESSURE}, numbers(50), False, STALLED),
    ({EVENT}, numbers(99, max=3), True, NEAR),
    ({EVENT}, numbers(50, max=3), False, None),  # the rest was page cache
    ({EVENT}, numbers(99), True, None),
    ({EVENT}, numbers(99, max=3, oom=1), True, FULL),
    ({OOM}, numbers(99), True, FULL),
    ({EVENT}, numbers(10, oom_kill=1), False, KILL),
    ({OOM, CRITICAL, CROSSED}, numbers(99, oom_kill=1), True, KILL),
])  # fmt: skip
def test_reasons(told: set[str], now: GroupNumbers, was_near: bool, reason: str | None) -> None:
    assert reason_of(told, now, numbers(10), 2, 0.9, was_near=was_near) == reason


def test_what_was_counted_before_is_no_news() -> None:
    then = numbers(99, oom=4, oom_kill=3)
    assert reason_of({LOOK}, then, then, 2, 0.9, was_near=True) is None
    assert rise(numbers(99, oom=4, oom_kill=5), then) == {"oom_kill": 2}
    # states of version 1, no counts
    assert rise(numbers(9, under_oom=1, oom_kill_disable=1), numbers(9)) == {}


def test_a_group_without_limit_is_never_near() -> None:
    now = GroupNumbers(current=95 * MIB, events={})
    assert reason_of({CROSSED}, now, now, 2, 0.9, was_near=False) is None


def glance(*pids: int, processes: int | None = None) -> Glance:
    members = tuple(Member(pid, "x", 0, 0, 0, 0) for pid in pids)
    return Glance(0, 0, numbers(9), len(members) if processes is None else processes, members)


def test_who_is_gone() -> None:
    trigger = Trigger(KILL, "/a", 2, (), 0.9, glance(2), glance(1, 2))
    assert [one.pid for one in trigger.gone] == [1]
    # not all are listed
    assert trigger._replace(now=glance(2, processes=9)).gone == ()
    assert trigger._replace(before=None).gone == ()
