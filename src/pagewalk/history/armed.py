"""The armed recorder: waits for a cgroup to be in trouble, and records it before it is too late."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from pagewalk.history.glance import Glance, Member, fullness, glance, pids_inside
from pagewalk.history.kept import called, file_name, prune
from pagewalk.history.kills import Kills
from pagewalk.history.record import Made
from pagewalk.history.resident import lock_memory
from pagewalk.history.trigger import ARMED, FULL, HELD, KILL, STALLED, Trigger, reason_of, rise
from pagewalk.history.waiting import (
    CHANGES,
    LIMIT,
    LOOK,
    OOM,
    REMOVED,
    Waiting,
    set_nearness,
    waiting,
)
from pagewalk.model.errors import NotPermitted, PagewalkError, in_a_line
from pagewalk.proc.cgroup_numbers import GroupNumbers, numbers_in
from pagewalk.proc.cgroups import GONE, Hierarchy, group_of, open_group
from pagewalk.proc.kmsg import open_kmsg
from pagewalk.proc.oom_control import Hold, open_hold
from pagewalk.proc.pressure import MACHINE
from pagewalk.system.ask_group import numbers_above

# After a report of which nothing was made, for so long only what is urgent is listened to: a group
# that is full of page cache may have a hundred reports a second.
PAUSE_S, URGENT = 0.25, (OOM, CHANGES)
# From the report that the limit could not be kept until a kill has been counted: 35 ms on a slow
# machine, never if a system call failed instead.
KILL_S, LOOK_S = 0.3, 0.01
# The file, why, and the processes.
Write = Callable[[str, Trigger, list[int]], Made]
LATE_S = 3.0  # by how much pressure may be reported late: the longer window, and a look
LEFT = 0.05  # of the limit: a group that was near is no longer so that much below


class Armed(NamedTuple):
    """What the recorder waits for, and what it keeps in ``folder``.

    ``near`` is the share of the limit, ``pressure`` that of time. There is at most one recording of
    a reason in ``at_most_s``, and ``keep`` of each reason. ``look_s`` is after how long the amount
    is read where the kernel reports none (version 2); 0: never. ``hold``: see proc.oom_control.
    ``scrub``: no file is called after the group.
    """

    folder: str
    near: float = 0.9
    pressure: float = 0.1
    at_most_s: float = 60.0
    keep: int = 10
    look_s: float = 10.0
    hold: bool = False
    scrub: bool = False


class Written(NamedTuple):
    """A recording that was made: for what, where, and how long it took from the report on.

    It is of ``processes`` address spaces; ``not_looked`` are processes that could not be recorded,
    and why.
    """

    trigger: Trigger
    path: str
    took_ns: int
    processes: int
    not_looked: tuple[tuple[int, str], ...] = ()


def arm(
    path: str, hierarchy: Hierarchy, how: Armed, write: Write,
    say: Callable[[str | Written], None],
) -> None:
    """Record the cgroup at ``path`` each time it is in trouble, until it is removed.

    ``write`` records processes into a file, ``say`` is told what happens. Raises GroupGone if the
    group does not exist, NotPermitted if nothing can be waited for, and what ``write`` raises the
    first time.
    """
    with ExitStack() as stack:
        group = stack.enter_context(open_group(hierarchy, path))
        told = stack.enter_context(waiting(path, hierarchy.version, group, how.pressure))
        hold = None
        if how.hold:
            hold = stack.enter_context(open_hold(group, hierarchy.version))
        kmsg = open_kmsg()
        if kmsg is not None:
            stack.callback(os.close, kmsg)
        kills = None if kmsg is None else Kills(kmsg, path)
        recorder = Recorder(path, group, told, how, write, say, kills, hold)
        try:
            recorder.check(hierarchy)
            recorder.run()
        except OSError as error:
            if error.errno not in GONE or told.there():
                raise
        recorder.farewell()


class Owed(NamedTuple):
    """A kill that is still to be recorded: what was there ``before``, and when it was noticed."""

    before: Glance | None
    found: Glance
    told: frozenset[str]


@dataclass
class Recorder:
    """The recorder while it is armed.

    ``seen`` are the numbers when something was reported last, ``last`` all that was read then if it
    mattered, ``first`` what was read at first; ``then`` the numbers of the last recording. ``made``
    is when the last recording of each reason was made, ``killed`` how many kills had been counted
    at the last of a kill; ``owed`` is a kill that is still to be recorded, as it came within
    ``at_most_s`` of that. ``overran``: it was just reported that the limit could not be kept.
    ``kills`` are None if the kernel's log cannot be read.
    """

    path: str
    group: int
    told: Waiting
    how: Armed
    write: Write
    say: Callable[[str | Written], None]
    kills: Kills | None
    hold: Hold | None
    last: Glance | None = None
    first: Glance | None = None
    overran: bool = False
    seen: GroupNumbers = field(default_factory=GroupNumbers)
    then: GroupNumbers = field(default_factory=GroupNumbers)
    near: bool = False
    owed: Owed | None = None
    killed: int = 0
    made: dict[str, float] = field(default_factory=dict)

    @cached_property
    def called(self) -> str:
        """Return what stands for the group in names of files."""
        return called(self.path, os.fstat(self.group).st_ino if self.how.scrub else None)

    @property
    def members_before(self) -> tuple[Member, ...]:
        """Return the processes that were seen in the group last."""
        before = self.last or self.first
        return before.members if before is not None else ()

    def check(self, hierarchy: Hierarchy) -> None:
        """Say what cannot be noticed, and what is unwise; raises NotPermitted if nothing can be."""
        for what in self.told.missing:
            self.say(f"not noticed: {what}")
        if self.kills is None:
            self.say("not noticed: who is killed: the kernel's log cannot be read (CAP_SYSLOG)")
        if not set(self.told.noticed) - {MACHINE}:
            raise NotPermitted(f"cannot wait for cgroup {in_a_line(self.path)}", "nothing of it is"
                               " reported, for the reasons above", "run as root")
        above = ((path, numbers.limit) for path, numbers in numbers_above(hierarchy, self.path)
                 if numbers.limit is not None)
        if (limited := next(above, None)) is not None:
            path, limit = limited
            self.say(f"not watched: the limit of {in_a_line(path)} above ({limit >> 10} KiB): arm"
                     " that too; kills in this group because of it are recorded")
        if self.told.version == 1 and self.path == "/":
            self.say("not noticed: kills in the groups below: version 1 tells the root of none")
        own = group_of(os.getpid(), hierarchy)
        if own is not None and f"{own.rstrip('/')}/".startswith(f"{self.path.rstrip('/')}/"):
            self.say(f"this recorder is in cgroup {self.path} itself: it is charged to it, and may"
                     " be killed or held with it; start it in another")

    def run(self) -> None:
        """Make a first recording, then wait until the group is removed."""
        began = time.monotonic_ns()
        self.seen = self.then = numbers_in(self.group, self.told.version)
        self.set_limits()
        self.first = self.glance()
        self.killed = count(self.seen, "oom_kill")
        self.record(ARMED, set(), self.first, began)
        lock_memory()
        if self.hold is not None:
            self.say(self.hold.start())
        self.say(f"armed: {self.path}, by {', '.join(self.told.noticed)}")
        try:
            self.watch()
        except (SystemExit, KeyboardInterrupt):
            if self.owed is not None:
                with suppress(OSError):  # the group is gone
                    self.settle(numbers_in(self.group, self.told.version), time.monotonic_ns())
            raise

    def watch(self) -> None:
        """Wait for what is reported, and record what is worth it, until the group is removed."""
        soon: float | None = None
        only: tuple[str, ...] = ()
        while True:
            told = self.told.wait(soon, only)
            self.overran = OOM in told
            if REMOVED in told:
                return
            made = self.reported(told)
            self.overran = False
            # It is looked at once more: it may have become worth it, also while it was recorded.
            soon = None if LOOK in told else PAUSE_S
            only = () if made or soon is None else URGENT
            if soon is None and self.owed is not None:
                soon = min(self.until_due(KILL), self.told.timer_s or math.inf)

    def set_limits(self) -> None:
        """Have it reported, or looked for, that the limits of ``seen`` are near."""
        limit = set_nearness(self.told, self.seen, self.how.near, self.how.look_s)
        if limit is None:
            self.say(f"cgroup {self.path} has no limit: nothing is near it; one that is set later"
                     " is noticed")

    def reported(self, told: set[str]) -> bool:
        """Decide what ``told`` means, and make a recording if it is worth one; return whether."""
        began = time.monotonic_ns()
        now, before = numbers_in(self.group, self.told.version), self.seen
        self.seen = now
        if LIMIT in told:
            self.set_limits()
        reason = reason_of(told, now, before, self.told.version, self.how.near,
                           was_near=self.near)
        self.near = self.is_near(now)
        if reason is None and self.owed is not None and not self.until_due(KILL):
            return self.settle(now, began)
        if reason is None:
            return False
        found = self.glance()
        if reason == FULL:
            reason, found = self.full(found)
        if reason == KILL:
            self.fall_back()
        made = reason == HELD or self.is_due(reason)
        if made:
            self.record(reason, told, found, began)
        elif reason == KILL and self.owed is None:
            self.owed = Owed(self.last, found, frozenset(told))
            self.say(f"{KILL}: another within {self.how.at_most_s:g} s: recorded after that")
        if reason == HELD:
            self.let_go(found)
        self.last = found
        return made

    def full(self, found: Glance) -> tuple[str, Glance]:
        """Return what became of a group that could not keep its limit, and what it is then."""
        self.overran = True
        if self.hold is not None and self.hold.limit():
            return HELD, found
        kills = count(self.seen, "oom_kill")
        if not self.has_killed(kills):  # else who was killed may be missing in what was found
            self.last = found
            if not self.killed_within(KILL_S, kills) and kills <= count(self.then, "oom_kill"):
                return FULL, found
        now = self.glance()
        self.seen = now.numbers
        return KILL, now

    def settle(self, now: GroupNumbers, began: int) -> bool:
        """Record the kill that is owed, with all that were counted since."""
        assert self.owed is not None
        before, found, told = self.owed
        last, self.last = self.last, before
        numbers = found.numbers._replace(events=now.events)
        self.record(KILL, {*told}, found._replace(numbers=numbers), began)
        self.last = last
        return True

    def has_killed(self, kills: int) -> bool:
        """Return whether more than ``kills`` were counted, or the log has one that is not recorded.

        Version 1 counts a kill in the group of the process, not in those above it. Raises OSError
        if the group is gone.
        """
        counted = count(numbers_in(self.group, self.told.version), "oom_kill")
        if counted > kills or self.kills is None:
            return counted > kills
        known = 0 if self.owed is None else len(self.kills.untold)
        return len(self.kills.read(self.members_before)) > known

    def killed_within(self, seconds: float, kills: int) -> bool:
        """Wait until there are more than ``kills``; return whether they were in time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.has_killed(kills):
                return True
            time.sleep(LOOK_S)  # version 1 reports no kill
        return False

    def farewell(self) -> None:
        """Record what was killed just before the group was removed, as a service manager does.

        Its numbers went with it, but not what the kernel's log says of it.
        """
        began = time.monotonic_ns()
        known = self.overran if self.kills is None else self.kills.read(self.members_before)
        if known or self.owed is not None:
            self.fall_back()
            gone = Glance(time.time_ns(), 0, GroupNumbers(), 0, ())
            self.record(FULL if self.kills is None else KILL, {REMOVED}, gone, began)

    def fall_back(self) -> None:
        """Take what was read when it was armed for what was there before, if nothing was since.

        What was killed is gone: that is all that can be told of it.
        """
        self.last = self.last or self.first

    def let_go(self, found: Glance) -> None:
        """Let what waits at the limit go on, and hold again when something of it was killed."""
        assert self.hold is not None
        self.hold.release()
        self.hold.wait_for_kill(count(found.numbers, "oom_kill"))
        self.hold.start()

    def is_near(self, numbers: GroupNumbers) -> bool:
        """Return whether the group is near its limit, or has not left it by LEFT."""
        full = fullness(numbers, self.told.version)
        return full is not None and full[0] >= self.how.near - LEFT * self.near

    def is_due(self, reason: str) -> bool:
        """Return whether the last recording for ``reason`` was long enough ago.

        Pressure is reported late: what came with a kill is no news after it.
        """
        latest = max((at for why, at in self.made.items() if why != ARMED), default=-math.inf)
        if reason == STALLED and time.monotonic() - latest < LATE_S:
            return False
        return not self.until_due(reason)

    def until_due(self, reason: str) -> float:
        """Return for how many seconds more there may be no recording for ``reason``."""
        due = self.made.get(reason, -math.inf) + self.how.at_most_s
        return max(0.0, due - time.monotonic())

    def glance(self) -> Glance:
        """Return what can be read of the group at once; raises OSError if it is gone."""
        return glance(self.group, self.told.version)

    def record(self, reason: str, told: set[str], now: Glance, began: int) -> None:
        """Make a recording for ``reason``; of one that fails it is said why, unless it is ARMED.

        ``began`` is when that was reported.
        """
        late = time.monotonic_ns() - began
        events, counted = rise(now.numbers, self.then), 0
        if reason == KILL:  # another recording may have counted some since the last of a kill
            counted = max(0, count(now.numbers, "oom_kill") - self.killed)
            events |= {"oom_kill": counted} if counted else {}
        kills = None if self.kills is None else self.kills.read(self.members_before, counted)
        trigger = Trigger(reason, self.path, self.told.version, tuple(sorted(told)), self.how.near,
                          now, self.last, events, kills, late)
        path = os.path.join(self.how.folder, file_name(self.called, reason, now.at_ns))
        self.made[reason] = time.monotonic()
        try:
            made = self.write(path, trigger, pids_inside(self.group))
        except (PagewalkError, OSError) as error:
            if reason == ARMED:
                raise
            self.say(f"{reason}: cannot record: {error}")
            return
        self.then = now.numbers
        if reason == KILL:
            self.owed, self.killed = None, count(now.numbers, "oom_kill")
            if self.kills is not None:
                self.kills.told()
        self.told.forget()  # what led to this is in it
        took = time.monotonic_ns() - began
        prune(self.how.folder, self.called, reason, self.how.keep)
        self.say(Written(trigger, path, took, made.processes, made.not_looked))


def count(numbers: GroupNumbers, name: str) -> int:
    """Return how often event ``name`` was counted."""
    return (numbers.events or {}).get(name, 0)
