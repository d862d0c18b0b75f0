"""What an armed recorder found out of a group that was killed, written by hand."""

from __future__ import annotations

from pagewalk.history.glance import Glance, Member
from pagewalk.history.trigger import KILL, Trigger
from pagewalk.proc.cgroup_numbers import GroupNumbers
from pagewalk.proc.kmsg import Kill

MIB = 1 << 20
AT = 1_764_225_296_000_000_000  # 2025-11-27T06:34:56Z
STAT = {"anon": 48 * MIB, "anon_thp": 0, "file": 14 * MIB, "shmem": 10 * MIB,
        "active_file": 3 * MIB, "inactive_file": MIB, "kernel": 2 * MIB}
BEFORE = GroupNumbers(current=64 * MIB, limit=64 * MIB, swap_current=5 * MIB, stat=STAT,
                      events={"max": 7, "oom_kill": 0}, pressure={"some": 9, "full": 4})
NOW = BEFORE._replace(current=16 * MIB, stat={**STAT, "anon": 0},
                      events={"max": 30, "oom": 1, "oom_kill": 1})
SHOP, WEB = Member(7, "shop", 40 * MIB, MIB, 10 * MIB, 0), Member(8, "web", 8 * MIB, MIB, 0, 0)
KILLED = Kill(7, "shop", 40 * MIB, MIB, 10 * MIB, "/app", True, limit_cgroup="/app")
TRIGGER = Trigger(
    KILL, "/app", 2, ("event",), 0.9, Glance(AT, 1_000_000, NOW, 1, (WEB,)),
    Glance(AT - 300_000_000, 1_000_000, BEFORE, 2, (SHOP, WEB)),
    {"max": 23, "oom": 1, "oom_kill": 1}, (KILLED,), 2_000_000,
)
