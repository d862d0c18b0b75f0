"""What an armed recorder says of each recording, and why a recording was made."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pagewalk.history.glance import Glance, fullness, hard_to_reclaim
from pagewalk.history.trigger import ARMED, FULL, HELD, KILL, NEAR, STALLED, Trigger
from pagewalk.history.waiting import CRITICAL, PRESSURE, REMOVED
from pagewalk.render.amounts import many, size
from pagewalk.render.terminal import printable

if TYPE_CHECKING:
    from pagewalk.history.armed import Written

WHAT = {
    KILL: "killed for lack of memory",
    HELD: "at its limit: what needed more was held until this was recorded",
    FULL: "at its limit, and nothing could be reclaimed",
    NEAR: "near its limit",
    STALLED: "under pressure: its tasks waited for memory",
    ARMED: "as it was when the recorder was armed",
}


def what_happened(trigger: Trigger) -> str:
    """Return why a recording was made, in words."""
    if trigger.reason == STALLED and PRESSURE not in trigger.told:
        # Version 1 does not measure who waits in which cgroup.
        return ("under pressure: little of it could be reclaimed" if CRITICAL in trigger.told else
                "as it was while tasks somewhere on the machine waited for memory")
    return WHAT[trigger.reason]


def written(made: Written) -> str:
    """Return the line about a recording that was made."""
    trigger, now = made.trigger, made.trigger.now
    what = charged(now, trigger.version) if REMOVED not in trigger.told else "the cgroup is gone"
    of = many(made.processes, "process", "es") if made.processes else "no process"
    return (f"{clock(now.at_ns)} {trigger.reason}: {what}{killed(trigger)}; {of} in"
            f" {os.path.basename(made.path)} after {made.took_ns / 1e6:.0f} ms{unread(made)}")


def unread(made: Written) -> str:
    """Return that processes could not be recorded, and why the first could not; or nothing."""
    if not made.not_looked:
        return ""
    pid, why = made.not_looked[0]
    return f"; {len(made.not_looked)} could not be recorded; process {pid}: {why}"


def clock(at_ns: int) -> str:
    """Return a time of day in UTC, to the millisecond."""
    at = datetime.fromtimestamp(at_ns / 1e9, UTC)
    return f"{at:%H:%M:%S}.{at_ns // 10**6 % 1000:03}Z"


def charged(found: Glance, version: int) -> str:
    """Return how much was charged, of which limit, and what of it was hard to reclaim."""
    numbers, full = found.numbers, fullness(found.numbers, version)
    limit = "" if full is None else f" of {size(full[1])}"
    told = f"{size(numbers.current)} charged{limit}"
    if numbers.stat is None:
        return told
    return f"{told}, {size(hard_to_reclaim(numbers, version))} without page cache"


def killed(trigger: Trigger) -> str:
    """Return which processes were killed, empty if it is not about that."""
    if not trigger.of_kills:
        return ""
    names = [f"{printable(one.name)} ({one.pid})" for one in trigger.kills or ()]
    count = trigger.events.get("oom_kill", 0)
    if not names:
        return f"; killed: {many(count, 'process', 'es')}" if count else ""
    return f"; killed: {', '.join(names)}"
