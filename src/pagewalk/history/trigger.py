"""Why the armed recorder made a recording: what was reported, and the group at that moment."""

from typing import NamedTuple

from pagewalk.history.glance import Glance, Member, fullness
from pagewalk.history.waiting import (
    CRITICAL,
    EVENT,
    LIMIT,
    MACHINE_PRESSURE,
    OOM,
    PRESSURE,
    REMOVED,
)
from pagewalk.model.columns import Withheld
from pagewalk.proc.cgroup_numbers import GroupNumbers
from pagewalk.proc.kmsg import Kill
from pagewalk.system.group_counters import charged_from

# Reasons, the weightiest first. ARMED is the first recording, which proves that all of it works.
KILL, HELD, FULL, NEAR, STALLED, ARMED = "kill", "held", "full", "near", "pressure", "armed"
REASONS = (KILL, HELD, FULL, NEAR, STALLED, ARMED)
DOCUMENT = "trigger"  # its name in a recording


class Trigger(NamedTuple):
    """A moment that was worth a recording; ``reason`` is one of REASONS.

    ``told`` is what the kernel had reported (see waiting.py). ``near`` is the share of the limit
    that counts as near. ``now`` is what was read at once, which after REMOVED is nothing;
    ``before`` what had been read at the last report before that, None if there was none; of a kill
    without one, when it was armed. ``events``
    is by how much memory.events (in version 1 memory.oom_control) has risen since the recording
    before. ``kills`` is what the kernel's log says of processes of the group that were killed since
    the last recording of a kill, None if it cannot be read; ``late_ns`` how long it took from the
    report until ``now`` was read.
    """

    reason: str
    path: str
    version: int
    told: tuple[str, ...]
    near: float
    now: Glance
    before: Glance | None = None
    events: dict[str, int] = {}  # noqa: RUF012
    kills: tuple[Kill, ...] | None = None
    late_ns: int = 0

    @property
    def of_kills(self) -> bool:
        """Return whether it is about what was killed; another may tell of a kill that came late."""
        return self.reason in (KILL, FULL) or REMOVED in self.told

    @property
    def gone(self) -> tuple[Member, ...]:
        """Return the processes of ``before`` that are not in ``now``, the largest first."""
        left = {member.pid for member in self.now.members}
        whole = self.now.processes == len(self.now.members)
        return tuple(one for one in (self.before.members if self.before and whole else ())
                     if one.pid not in left)


def rise(now: GroupNumbers, then: GroupNumbers) -> dict[str, int]:
    """Return by how much the counts of events have risen, those that have."""
    before = then.events or {}
    found = {name: count - before.get(name, 0) for name, count in (now.events or {}).items()}
    return {name: count for name, count in found.items()
            if count > 0 and name not in ("under_oom", "oom_kill_disable")}


def reason_of(
    told: set[str], now: GroupNumbers, then: GroupNumbers, version: int, near: float, *,
    was_near: bool,
) -> str | None:
    """Return why a recording should be made now; None if nothing of that has happened.

    ``told`` is what was reported, ``then`` the numbers when something was reported last. A look
    alone finds nearness only once: ``was_near`` says that it was found before.
    """
    risen = rise(now, then)
    if risen.get("oom_kill"):
        return KILL
    if OOM in told or risen.get("oom"):
        return FULL
    full = fullness(now, version)
    reported = told & {LIMIT, CRITICAL, PRESSURE, MACHINE_PRESSURE} or (EVENT in told and risen)
    if full is not None and full[0] >= near and (reported or not was_near):
        return NEAR
    return STALLED if told & {CRITICAL, PRESSURE, MACHINE_PRESSURE} else None


def explained(trigger: Trigger) -> Glance:
    """Return what tells why.

    Of a kill: what was read before it, if that shows what was killed, or at least as large a
    charge; otherwise what was left when it was noticed.
    """
    before, now = trigger.before, trigger.now
    if before is None or not (trigger.reason == KILL or REMOVED in trigger.told):
        return now
    lost = ({kill.pid for kill in trigger.kills or ()} or {one.pid for one in trigger.gone})
    fuller = (before.numbers.current or 0) >= (now.numbers.current or 0)
    return before if fuller or any(one.pid in lost for one in before.members) else now


def causes(found: Glance, version: int) -> dict[str, int]:
    """Return what the charge is made of, the largest first, in bytes.

    ``anon``, ``shmem`` (tmpfs too), ``file`` (page cache), ``kernel``; empty without memory.stat.
    """
    parts = charged_from(found.numbers, version) or {}
    sums = {"anon": parts.pop("anon", 0) + parts.pop("anon_huge", 0),
            "shmem": parts.pop("shmem", 0), "file": parts.pop("file", 0)}
    sums["kernel"] = sum(parts.values())
    return dict(sorted(((name, held) for name, held in sums.items() if held),
                       key=lambda pair: -pair[1]))


def withheld(trigger: Trigger) -> list[Withheld]:
    """Return what the recorder could not find out."""
    found = []
    if explained(trigger).numbers.stat is None:
        gone = REMOVED in trigger.told
        why = "the cgroup was removed" if gone else "this kernel does not have it"
        found.append(Withheld("what the charge was made of",
                              f"memory.stat could not be read: {why}", partial=True))
    counted = trigger.events.get("oom_kill", 0) or trigger.reason == KILL
    if (counted or REMOVED in trigger.told) and trigger.kills is None:
        what = "who was killed" if counted else "whether anybody was killed, and who"
        found.append(Withheld(what, "the kernel's log could not be read: CAP_SYSLOG",
                              partial=True))
    return found


def scrubbed(trigger: Trigger) -> Trigger:
    """Return ``trigger`` without paths of cgroups."""
    kills = None if trigger.kills is None else tuple(
        kill._replace(group=None, limit_cgroup=None) for kill in trigger.kills)
    return trigger._replace(path="", kills=kills)
