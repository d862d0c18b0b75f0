"""What a tree of processes is made of: by kind of memory and by what is mapped, page by page."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable

from pagewalk.account.groups import BY_KEY, Group, by_kind, by_name
from pagewalk.account.table import table
from pagewalk.history.budget import Look, Made, Part, Worst
from pagewalk.model.errors import PagewalkError
from pagewalk.proc.processes import command_of
from pagewalk.system.members import sum_of
from pagewalk.system.processes import LiveProcesses
from pagewalk.system.signs import signs

AMOUNTS = ("uss", "pss", "rss", "swap")
MAPPINGS = 10  # that are named, the largest


def worst_moment(measure: str, look: Look, began: float) -> Worst:
    """Return ``look`` with what its processes are made of; that is read now.

    ``began`` is the time.monotonic() that seconds are counted from.
    """
    commands, made = described(measure, [one.pid for one in look.holds], began)
    return Worst(measure, look, commands, made)


def described(
    measure: str, pids: Iterable[int], began: float
) -> tuple[dict[int, str], Made | None]:
    """Return how processes were started, and what they are made of, None if all are gone.

    The largest come first: by PSS, which adds up to what they hold together, or by swap. They are
    read from procfs, which holds no lock for longer than BUDGET_NS.
    """
    machine = LiveProcesses("procfs")
    commands, at = {pid: command_of(pid) for pid in pids}, time.monotonic() - began
    kinds, named, missing = list[Group](), list[Group](), list[str]()
    for pid in commands:
        try:
            with machine.opened(pid) as source:
                found = table(source)
                kinds += by_kind(found, *signs(source, found.vmas))
        except PagewalkError as error:
            missing.append(str(error))
        else:
            named += by_name(found)
    if not kinds:
        return commands, None
    kinds = [group._replace(key=BY_KEY[group.key].title) for group in kinds]
    return commands, Made(at, added(kinds, measure), added(named, measure)[:MAPPINGS],
                          tuple(missing))


def added(groups: Iterable[Group], measure: str) -> tuple[Part, ...]:
    """Return groups of the same key added up, without those that hold nothing."""
    same: dict[str, list[Group]] = {}
    for group in groups:
        same.setdefault(group.key, []).append(group)
    parts = [Part(key, *(sum_of(one.amounts[name] for one in rows) for name in AMOUNTS))
             for key, rows in same.items()]
    held = [part for part in parts if part.rss or part.swap]
    return tuple(sorted(held, key=lambda part: -weight(part, measure)))


def weight(part: Part, measure: str) -> int:
    amount = part.swap if measure == "swap" else part.pss
    return (part.rss or 0) if amount is None else amount


def main(measure: str, began: str, *pids: str) -> None:
    """Print as JSON what `described` returns, for another process than this one."""
    commands, made = described(measure, map(int, pids), float(began))
    print(json.dumps({"commands": commands, "made": made}))


if __name__ == "__main__":
    main(*sys.argv[1:])
