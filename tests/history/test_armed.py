"""What the armed recorder makes of counts, and of the kernel's log (a pipe of packets)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pagewalk.history.armed import Armed, Recorder
from pagewalk.history.glance import Glance, glance
from pagewalk.history.kills import Kills
from pagewalk.history.record import Made
from pagewalk.history.trigger import FULL, KILL, NEAR, Trigger
from pagewalk.history.waiting import EVENT, LOOK, OOM, REMOVED, Waiting
from pagewalk.proc.cgroup_numbers import GroupNumbers, numbers_in
from tests.armed_by_hand import NOW, TRIGGER
from tests.proc.test_kmsg import FOUND, KILLED, WHY

GROUP = "/a/b"


def test_a_kill_that_is_logged_while_something_else_is_recorded_is_not_lost(
    tmp_path: Path,
) -> None:
    made: list[Trigger] = []

    def write(path: str, trigger: Trigger, pids: list[int]) -> Made:
        made.append(trigger)
        return Made(path, 0, 0, 0, 0, 0, (), (), ())

    (tmp_path / "cgroup.procs").touch()
    group = os.open(tmp_path, os.O_RDONLY)
    # It returns what was written at once, as /dev/kmsg does.
    log, kernel = os.pipe2(os.O_NONBLOCK | os.O_DIRECT)
    recorder = Recorder(GROUP, group, Waiting(group, 2, GROUP), Armed(str(tmp_path)), write,
                        lambda said: None, Kills(log, GROUP), None)
    before = TRIGGER.before
    assert before is not None
    recorder.then = before.numbers
    try:
        os.write(kernel, b"6,1,2,-;" + WHY)
        recorder.record(NEAR, set(), before, 0)  # between the two records of a kill
        os.write(kernel, b"3,2,3,-;" + KILLED)
        recorder.record(NEAR, set(), before, 0)  # before that is counted
        recorder.record(KILL, set(), TRIGGER.now, 0)
        recorder.record(NEAR, set(), TRIGGER.now._replace(numbers=NOW), 0)
    finally:
        for fd in (log, kernel, group):
            os.close(fd)
    assert [trigger.kills for trigger in made] == [(), (FOUND,), (FOUND,), ()]
    assert [trigger.events.get("oom_kill") for trigger in made] == [None, None, 1, None]


@pytest.mark.parametrize("when", ["before it looks", "while it looks", "never"])
def test_who_was_killed_while_the_group_was_looked_at_is_not_missing(
    tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was killed is none any more when its group is looked at."""
    made: list[Trigger] = []

    def write(path: str, trigger: Trigger, pids: list[int]) -> Made:
        made.append(trigger)
        return Made(path, 0, 0, 0, 0, 0, (), (), ())

    def kill() -> None:
        (tmp_path / "memory.events").write_text("oom 1\noom_kill 1\n")

    def look() -> Glance:
        found = glance(group, 2)
        if when == "while it looks":
            kill()
        return found

    (tmp_path / "cgroup.procs").touch()
    (tmp_path / "memory.events").write_text("oom 1\noom_kill 0\n")
    group = os.open(tmp_path, os.O_RDONLY)
    recorder = Recorder(GROUP, group, Waiting(group, 2, GROUP), Armed(str(tmp_path)), write,
                        lambda said: None, None, None)
    recorder.seen = recorder.then = GroupNumbers(events={"oom": 0, "oom_kill": 0})
    recorder.first = TRIGGER.before
    monkeypatch.setattr(recorder, "glance", look)
    if when == "before it looks":
        kill()
    try:
        assert recorder.reported({OOM})
    finally:
        os.close(group)
    [trigger] = made
    if when == "never":
        assert trigger.reason == FULL
    else:
        assert trigger.reason == KILL and trigger.before == TRIGGER.before


def test_a_kill_that_came_too_soon_after_another_is_recorded_later(tmp_path: Path) -> None:
    made: list[Trigger] = []
    said: list[object] = []

    def write(path: str, trigger: Trigger, pids: list[int]) -> Made:
        made.append(trigger)
        return Made(path, 0, 0, 0, 0, 0, (), (), ())

    def killed(count: int) -> None:
        (tmp_path / "memory.events").write_text(f"oom 1\noom_kill {count}\n")

    (tmp_path / "cgroup.procs").touch()
    killed(0)
    group = os.open(tmp_path, os.O_RDONLY)
    recorder = Recorder(GROUP, group, Waiting(group, 2, GROUP), Armed(str(tmp_path)), write,
                        said.append, None, None)
    recorder.seen = recorder.then = GroupNumbers(events={"oom": 0, "oom_kill": 0})
    recorder.first = early = TRIGGER.before
    try:
        killed(1)
        assert recorder.reported({EVENT})
        recorder.last = early
        for count in (2, 3):
            killed(count)
            assert not recorder.reported({EVENT})
        # Another recording in between tells of it too, and takes nothing away.
        recorder.record(NEAR, set(), recorder.glance(), 0)
        assert made.pop().events == {"oom_kill": 2}
        assert not recorder.reported({LOOK})
        recorder.made[KILL] -= recorder.how.at_most_s
        assert recorder.reported({LOOK}) and not recorder.reported({LOOK})
    finally:
        os.close(group)
    assert [(one.reason, one.events.get("oom_kill")) for one in made] == [(KILL, 1), (KILL, 2)]
    assert [one.before for one in made] == [early, early]  # none looked at what it was before
    assert len([one for one in said if "another within 60 s" in str(one)]) == 1


def test_what_is_owed_is_waited_for_no_longer_than_it_has_to_be(tmp_path: Path) -> None:
    waited: list[float | None] = []

    class Told(Waiting):
        def wait(self, timeout_s: float | None = None, only: tuple[str, ...] = ()) -> set[str]:
            waited.append(timeout_s)
            if len(waited) in (1, 2):
                (tmp_path / "memory.events").write_text(f"oom_kill {len(waited)}\n")
            return {EVENT} if len(waited) < 3 else {LOOK} if len(waited) < 5 else {REMOVED}

    def write(path: str, trigger: Trigger, pids: list[int]) -> Made:
        return Made(path, 0, 0, 0, 0, 0, (), (), ())

    (tmp_path / "cgroup.procs").touch()
    (tmp_path / "memory.events").write_text("oom_kill 0\n")
    group = os.open(tmp_path, os.O_RDONLY)
    try:
        recorder = Recorder(GROUP, group, Told(group, 2, GROUP), Armed(str(tmp_path)), write,
                            lambda said: None, None, None)
        recorder.seen = numbers_in(group, 2)
        recorder.watch()
    finally:
        os.close(group)
    # It is looked at once more after what was recorded, and what was not; then what is owed is due.
    assert waited[1] is not None and waited[2] is not None
    assert waited[3] is not None and 50 < waited[3] <= 60 and waited[4] is not None
