"""The lines of an armed recorder."""

from __future__ import annotations

from pagewalk.history.armed import Written
from pagewalk.history.glance import Glance
from pagewalk.history.trigger import KILL, NEAR, Trigger
from pagewalk.proc.cgroup_numbers import GroupNumbers
from pagewalk.proc.kmsg import Kill
from pagewalk.render.armed_words import clock, written

MIB = 1 << 20
AT = 1_764_225_296_000_000_000  # 2025-11-27T06:34:56Z
NUMBERS = GroupNumbers(current=60 * MIB, limit=64 * MIB, stat={"inactive_file": 2 * MIB})
TRIGGER = Trigger(NEAR, "/shop", 2, ("event",), 0.9, Glance(AT, 0, NUMBERS, 0, ()))


def test_a_recording_is_one_line() -> None:
    assert written(Written(TRIGGER, "/var/a.parquet", 92_400_000, 3)) == (
        "06:34:56.000Z near: 61440 KiB charged of 65536 KiB, 59392 KiB without page cache;"
        " 3 processes in a.parquet after 92 ms")


def test_who_was_killed_is_in_it() -> None:
    kill = Kill(7, "a\nb", 1, 2, 3, "/shop", True)
    one = TRIGGER._replace(reason=KILL, kills=(kill,), events={"oom_kill": 1})
    assert "; killed: a\\nb (7); " in written(Written(one, "a", 0, 1))
    # the log could not be read
    assert "; killed: 1 process; " in written(Written(one._replace(kills=None), "a", 0, 1))
    assert "; killed: 2 processes; " in written(
        Written(one._replace(kills=(), events={"oom_kill": 2}), "a", 0, 1))


def test_of_a_group_that_is_gone_no_amount_is_told() -> None:
    one = TRIGGER._replace(told=("removed",), now=TRIGGER.now._replace(numbers=GroupNumbers()))
    assert "near: the cgroup is gone; no process in a.parquet" in written(
        Written(one, "a.parquet", 0, 0))


def test_the_time_is_utc_to_the_millisecond() -> None:
    assert clock(AT + 7_999_999) == "06:34:56.007Z"


def test_without_a_limit() -> None:
    now = TRIGGER.now._replace(numbers=GroupNumbers(current=MIB))
    assert "1024 KiB charged; 1 process in" in written(
        Written(TRIGGER._replace(now=now), "a", 0, 1))


def test_what_could_not_be_recorded_is_no_process_that_is_not_there() -> None:
    one = Written(TRIGGER, "a.parquet", 0, 0, ((7, "permission denied"), (9, "it is huge")))
    assert written(one).endswith("; no process in a.parquet after 0 ms; 2 could not be recorded;"
                                 " process 7: permission denied")
