"""What a tree of processes is made of: by kind of memory and by what is mapped, page by page."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from pagewalk.account.groups import (
    BY_KEY,
    KINDS,
    NO_ROWS,
    Group,
    by_kind,
    by_name,
    kinds_of,
    numbered,
)
from pagewalk.account.table import table
from pagewalk.history.budget import Look, MadeOf, Portion, Worst
from pagewalk.history.grown import Grown, grown
from pagewalk.model.columns import I64
from pagewalk.model.errors import BadTarget, PagewalkError
from pagewalk.proc.maps import LINE, internal_filesystems, parse_maps
from pagewalk.proc.page_cache import filesystems_of
from pagewalk.proc.processes import command_of
from pagewalk.proc.smaps import parse_smaps
from pagewalk.sources import Source
from pagewalk.system.members import sum_of
from pagewalk.system.processes import LiveProcesses
from pagewalk.system.signs import signs

AMOUNTS = ("uss", "pss", "rss", "swap")
MAPPINGS = 10  # that are named, the largest


UNMAPPED = "unmapped meanwhile"


def worst_moment(measure: str, look: Look, began: float) -> Worst:
    """Return ``look`` with what its processes are made of; that is read now.

    ``began`` is the time.monotonic() that seconds are counted from.
    """
    commands, made = described(measure, [one.pid for one in look.holds], began)
    return Worst(measure, look, commands, made)


def described(
    measure: str, pids: Iterable[int], began: float, two: Sequence[Mapping[int, bytes]] = ()
) -> tuple[dict[int, str], MadeOf | None]:
    """Return how processes were started, and what they are made of, None if all are gone.

    With ``two`` smaps of each, as text, of an earlier time and of now, it is by how much they grew.

    The largest come first: by PSS, which adds up to what they hold together, or by swap. They are
    read from procfs, which holds no lock for longer than BUDGET_NS.
    """
    machine = LiveProcesses("procfs")
    commands, at = {pid: command_of(pid) for pid in pids}, time.monotonic() - began
    kinds, named, missing = list[Group](), list[Group](), list[str]()
    for pid in commands:
        try:
            with machine.opened(pid) as source:
                if two:
                    of_kinds, of_names = more_of(source, pid, *two)
                else:
                    found = table(source)
                    of_kinds, of_names = by_kind(found, *signs(source, found.vmas)), by_name(found)
        except PagewalkError as error:
            missing.append(str(error))
        else:
            kinds += of_kinds
            named += of_names
    if not kinds:
        return commands, None
    kinds = [group._replace(key=title_of(group.key)) for group in kinds]
    return commands, MadeOf(at, added(kinds, measure), added(named, measure)[:MAPPINGS],
                            tuple(missing))


def more_of(
    source: Source, pid: int, before: Mapping[int, bytes], now: Mapping[int, bytes]
) -> tuple[list[Group], list[Group]]:
    """Return by how much a process grew from ``before`` to ``now``, by kind and by name.

    One that is not in ``before`` is new; an empty text could not be read. Raises BadTarget,
    BadText.
    """
    if not now.get(pid) or before.get(pid) == b"":
        raise BadTarget(f"what process {pid} had could not be read twice")
    assert source.live is not None
    headers = b"".join(line[0] for line in LINE.finditer(now[pid]))
    vmas = parse_maps(
        headers, filesystems_of(source.live.target) | internal_filesystems())
    more = grown(vmas, parse_smaps(before[pid]) if pid in before else None, parse_smaps(now[pid]))
    kinds, names = kinds_of(vmas, *signs(source, vmas)), [name or "[anon]" for name in vmas.name]
    gone = Group(UNMAPPED, 0, NO_ROWS, {**more.rest})
    return ([*sums(more, kinds, [kind.key for kind in KINDS]), gone],
            sums(more, *numbered(names)))


def sums(more: Grown, which: I64, keys: Sequence[str]) -> list[Group]:
    """Return a group of each of ``keys``, whose position ``which`` says of each VMA."""
    rows = [np.flatnonzero(which == at) for at in range(len(keys))]
    return [Group(key, len(of), of, {name: int(column[of].sum())
                                     for name, column in more.each.items()})
            for key, of in zip(keys, rows, strict=True)]


def title_of(key: str) -> str:
    return BY_KEY[key].title if key in BY_KEY else key


def added(groups: Iterable[Group], measure: str) -> tuple[Portion, ...]:
    """Return groups of the same key added up, without those that hold nothing."""
    same: dict[str, list[Group]] = {}
    for group in groups:
        same.setdefault(group.key, []).append(group)
    parts = [Portion(key, *(sum_of(one.amounts[name] for one in rows) for name in AMOUNTS))
             for key, rows in same.items()]
    held = [part for part in parts if any(part[1:])]
    return tuple(sorted(held, key=lambda part: -weight(part, measure)))


def weight(part: Portion, measure: str) -> int:
    amount = part.swap if measure == "swap" else part.pss
    return (part.rss or 0) if amount is None else amount


def main(measure: str, began: str, *pids: str) -> None:
    """Print as JSON what `described` returns, for another process than this one.

    Standard input has `described`'s two smaps of each, if any: a line of JSON, how many bytes of
    which pid, and then these bytes in the same order.
    """
    lengths = json.loads(sys.stdin.buffer.readline())
    two = [{int(pid): sys.stdin.buffer.read(length) for pid, length in each.items()}
           for each in lengths]
    commands, made = described(measure, map(int, pids), float(began), two)
    print(json.dumps({"commands": commands, "made": made}))


if __name__ == "__main__":
    main(*sys.argv[1:])
