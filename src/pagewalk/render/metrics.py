"""What metrics there are, and their values: the numbers of other commands, as series with labels.

The number of series is bounded, and no label holds a pid or an address. What is withheld has no
series, and `pagewalk_withheld` says of which metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import NamedTuple

import numpy as np

from pagewalk.model.columns import I64
from pagewalk.render.groups_table import found as found_of
from pagewalk.render.groups_table import removed
from pagewalk.render.terminal import printable
from pagewalk.system.group_table import GroupTable
from pagewalk.system.look import Ram
from pagewalk.system.metered import Metered
from pagewalk.system.ram import PARTS
from pagewalk.system.top import AMOUNTS, Line, add_up

OTHER = "other"  # those that are not among the largest
NAMELESS = "''"
MEANING = {
    "uss": "Memory that only one process maps, of all processes of {}.",
    "pss": "RSS with each page divided by the number of processes that map it, of {}.",
    "rss": "Memory in RAM that processes map, of {}; a shared page counts in each process.",
    "swap": "Memory that is swapped out, of {}.",
}
BY = {"program": "a program", "cgroup": "a cgroup itself, without those below it",
      "user": "a real user"}
# Parts of RAM where a source does not tell finer ones.
COARSE = ("hugetlb", "file", "shmem", "slab")
KINDS = ("anon", "file", "shmem", "kernel")  # of what a cgroup is charged for


class Known(NamedTuple):
    """What a metric means, and its labels. A counter's name ends in _total, others are gauges."""

    says: str
    labels: tuple[str, ...] = ()


class Family(NamedTuple):
    """The values of one metric, by the values of its labels.

    ``whole`` is False if some are withheld, None for a metric of which none ever is.
    """

    name: str
    values: Mapping[tuple[str, ...], float]
    whole: bool | None = None


METRICS: dict[str, Known] = {
    **{f"pagewalk_{by}_{name}_bytes": Known(MEANING[name].format(what), (by,))
       for by, what in BY.items() for name in AMOUNTS},
    **{f"pagewalk_{by}_processes": Known(
        f"Processes that were walked, by address space, of {what}.", (by,))
       for by, what in BY.items()},
    **{f"pagewalk_{by}_unwalked_processes": Known(
        f"Processes that are not in the other amounts, of {what}.", (by,))
       for by, what in BY.items()},
    **{f"pagewalk_{by}_unwalked_rss_bytes": Known(
        "RSS, by the kernel's counters, of processes that are not in the other amounts, of"
        f" {what}.", (by,)) for by, what in BY.items()},
    "pagewalk_cgroup_info": Known(
        "What a cgroup is, and what people call it: a unit, a container, a pod.",
        ("cgroup", "kind", "name", "namespace", "pod", "container")),
    "pagewalk_hidden": Known(
        "How many programs, users or cgroups have no series of their own.", ("of",)),
    "pagewalk_cgroup_charged_bytes": Known(
        "What a cgroup and those below it are charged for, as the kernel says.", ("cgroup",)),
    "pagewalk_cgroup_limit_bytes": Known(
        "The limit of a cgroup; none if it has no limit.", ("cgroup",)),
    "pagewalk_cgroup_found_bytes": Known(
        "What was found of the charge of a cgroup, by kind.", ("cgroup", "kind")),
    "pagewalk_cgroup_remainder_bytes": Known(
        "What a cgroup is charged for beyond what was found, not of the root; pagewalk explain"
        " names the causes.", ("cgroup",)),
    "pagewalk_cgroup_reclaimable_bytes": Known(
        "What of the charge of a cgroup could be reclaimed at once.", ("cgroup",)),
    "pagewalk_cgroup_headroom_bytes": Known(
        "How much more a cgroup can at most be charged before something must be swapped, written"
        " or killed: room to its own limit or to one above it, and what could be reclaimed at once"
        " there; none without a limit.", ("cgroup",)),
    "pagewalk_cgroups_removed": Known("Cgroups that were removed and live on."),
    "pagewalk_cgroups_removed_bytes": Known("What was found in RAM of cgroups that were removed."),
    "pagewalk_ram_bytes": Known("All of RAM by what it is used for.", ("use", "kind")),
    "pagewalk_ram_reclaimable_bytes": Known("RAM that is free or could be reclaimed at once."),
    "pagewalk_processes": Known(
        "Processes by what became of them: walked, refused by the kernel, failed to be read, ended"
        " first, or left because time was up.", ("result",)),
    "pagewalk_stall_seconds": Known(
        "The longest read that may have held a lock of a process."),
    "pagewalk_walk_seconds": Known("How long looking took, by part.", ("part",)),
    "pagewalk_walks_total": Known("How often processes were walked and RAM was scanned."),
    "pagewalk_last_walk_timestamp_seconds": Known(
        "When the numbers began to be read, in seconds since 1970."),
    "pagewalk_withheld": Known(
        "1 if a metric is not complete: series are missing, or processes are not in them, because"
        " they could not be looked at.", ("metric",)),
    "pagewalk_info": Known("The version, and what processes were read from.",
                           ("version", "source")),
}
# Of what is served only: a file does not grow older by itself.
AGE = "pagewalk_age_seconds"
SERVED = {AGE: Known("How long ago the numbers began to be read.")}


def families(found: Metered, limit: int, version: str) -> list[Family]:
    """Return all METRICS of ``found`` but those of when it was found.

    ``limit`` programs, users and cgroups have series of their own, the largest.
    """
    told = [*held(found, limit), *of_cgroups(found.groups, limit), *of_ram(found.ram)]
    missing: dict[tuple[str, ...], float] = {
        (one.name,): not one.whole for one in told if one.whole is not None}
    shown = {key[0] for one in told for key in one.values
             if METRICS[one.name].labels[:1] == ("cgroup",)}
    return [*told, *of_looking(found), hidden(found, limit), called(found, shown),
            Family("pagewalk_withheld", missing),
            Family("pagewalk_info", {(version, found.source or "none"): 1})]


def of_when(at: float, made: int) -> list[Family]:
    """Return that it was found ``at`` seconds since 1970, and in the look number ``made``."""
    return [Family("pagewalk_walks_total", {(): made}),
            Family("pagewalk_last_walk_timestamp_seconds", {(): at})]


# ---- what processes hold


def held(found: Metered, limit: int) -> Iterator[Family]:
    """Yield what there is by each of BY: each of AMOUNTS, how many processes, and what is not."""
    for by in BY:
        walked, rest = named(found.lines.get(by, ())), named(found.unwalked.get(by, ()))
        own = {*largest(walked, rest)[:limit]}
        lines, unwalked = folded(walked, own), folded(rest, own)
        whole = by in found.lines and not unwalked
        for name in AMOUNTS:
            known = values(lines, name)
            yield Family(f"pagewalk_{by}_{name}_bytes", known, whole and len(known) == len(lines))
        yield Family(f"pagewalk_{by}_processes", values(lines, "processes"))
        yield Family(f"pagewalk_{by}_unwalked_processes", values(unwalked, "processes"))
        yield Family(f"pagewalk_{by}_unwalked_rss_bytes", values(unwalked, "rss"))


def values(lines: Iterable[Line], name: str) -> dict[tuple[str, ...], float]:
    """Return ``name`` of each of ``lines`` of which it is known."""
    found = {(line.name,): getattr(line, name) for line in lines}
    return {key: value for key, value in found.items() if value is not None}


def named(lines: Iterable[Line]) -> list[Line]:
    """Return ``lines`` by what their label is: that of several may be the same."""
    found: dict[int | str, Line] = {}
    add_up(found, (line._replace(key=label(line.name), name=label(line.name)) for line in lines))
    return list(found.values())


def label(name: str) -> str:
    """Return ``name`` as a label: any byte may be in it, and an empty label would be none."""
    return printable(name) or NAMELESS


def largest(walked: Iterable[Line], rest: Iterable[Line]) -> list[str]:
    """Return the names of all lines but OTHER, the largest first; those of ``rest`` only, last."""
    names = {line.name: (-(line.uss or 0), -(line.rss or 0), line.name) for line in walked}
    after = {line.name: (1, -(line.rss or 0), line.name) for line in rest}
    order = after | names
    return [name for name in sorted(order, key=lambda name: order[name]) if name != OTHER]


def folded(lines: Iterable[Line], own: Set[str]) -> list[Line]:
    """Return those of ``lines`` that are called as one of ``own``, and the others as OTHER.

    One that has this very name is among the others.
    """
    found: dict[int | str, Line] = {}
    for line in lines:
        name = line.name if line.name in own else OTHER
        add_up(found, [line._replace(key=name, name=name)])
    return list(found.values())


def hidden(found: Metered, limit: int) -> Family:
    """Return how many have no series of their own."""
    many = {(by,): len(largest(*(named(lines.get(by, ())) for lines in (
        found.lines, found.unwalked)))) for by in BY}
    if found.groups is not None:
        many["charged_cgroup",] = len(fullest(found.groups))
    return Family("pagewalk_hidden", {key: max(0, count - limit) for key, count in many.items()})


# ---- cgroups


def of_cgroups(table: GroupTable | None, limit: int) -> Iterator[Family]:
    """Yield what cgroups are charged for: of those nearest to their limits, then of the largest."""
    if table is None:
        yield from (Family(f"pagewalk_cgroup_{name}", {}, False) for name in (
            "charged_bytes", "limit_bytes", "found_bytes", "remainder_bytes", "reclaimable_bytes",
            "headroom_bytes"))
        yield from (Family(f"pagewalk_cgroups_{name}", {}, False)
                    for name in ("removed", "removed_bytes"))
        return
    rows, amounts = fullest(table)[:limit], table.amounts
    usage, limits, framed = amounts.usage, table.groups.limit, amounts.reclaimable is not None
    path = {row: label(table.groups.path[row]) for row in rows}
    rest, limited = usage - found_of(amounts), [row for row in rows if limits[row] >= 0]
    below = [row for row in rows if table.groups.parent[row] >= 0]  # no counter is the root's own
    yield Family("pagewalk_cgroup_charged_bytes", by_path(path, rows, usage), True)
    yield Family("pagewalk_cgroup_limit_bytes", by_path(path, limited, limits), True)
    yield Family("pagewalk_cgroup_found_bytes", {
        (path[row], kind): int(getattr(amounts, kind)[row]) for row in rows for kind in KINDS},
        True)
    yield Family("pagewalk_cgroup_remainder_bytes", by_path(path, below, rest), True)
    yield Family("pagewalk_cgroup_reclaimable_bytes", by_path(path, rows, amounts.reclaimable),
                 framed)
    room = rooms(table, rows)
    yield Family("pagewalk_cgroup_headroom_bytes",
                 {(path[row],): value for row, value in room.items()}, framed)
    gone = removed(table)
    yield Family("pagewalk_cgroups_removed", {(): gone.groups} if framed else {}, framed)
    yield Family("pagewalk_cgroups_removed_bytes", {(): gone.found} if framed else {}, framed)


def by_path(
    path: dict[int, str], rows: Sequence[int], column: I64 | None
) -> dict[tuple[str, ...], float]:
    return {} if column is None else {(path[row],): int(column[row]) for row in rows}


def fullest(table: GroupTable) -> list[int]:
    """Return the rows of groups that were not removed.

    Those with a limit first, the nearest to it at the front; then the others by what they are
    charged.
    """
    groups, usage = table.groups, table.amounts.usage
    limited = groups.limit >= 0
    share = np.where(limited, usage / np.maximum(groups.limit, 1), -1.0)
    order = np.lexsort((-usage, -share))
    return [row for row in order.tolist() if not groups.removed[row]]


def rooms(table: GroupTable, rows: Sequence[int]) -> dict[int, int]:
    """Return the headroom of those of ``rows`` that have a limit, or a group above that has one."""
    groups, amounts = table.groups, table.amounts
    found: dict[int, int] = {}
    if amounts.reclaimable is None:
        return found
    own = np.maximum(groups.limit - amounts.usage + amounts.reclaimable, 0).tolist()
    for row in rows:
        at = row
        while at >= 0:
            if groups.limit[at] >= 0:
                found[row] = min(found.get(row, own[at]), own[at])
            at = int(groups.parent[at])
    return found


def called(found: Metered, shown: Set[str]) -> Family:
    """Return what the cgroups ``shown`` are called, by their labels."""
    names = {label(path): name for path, name in found.names.items() if label(path) in shown}
    return Family("pagewalk_cgroup_info", {
        (path, name.kind, *(printable(word or "") for word in (
            name.name, name.namespace, name.pod, name.container))): 1
        for path, name in names.items()})


# ---- RAM, and looking itself


def of_ram(ram: Ram) -> Iterator[Family]:
    parts, room = ram.parts, ram.headroom
    # Those that are only told apart by others are left out; of the others none is as good as some.
    there = {part: (parts or {}).get(part.name, None if room is None or part.name in COARSE else 0)
             for part in PARTS}
    yield Family("pagewalk_ram_bytes", {
        (part.group, part.name): size for part, size in there.items() if size is not None},
        parts is not None)
    yield Family("pagewalk_ram_reclaimable_bytes", {} if room is None else {(): room.at_once},
                 room is not None)


def of_looking(found: Metered) -> Iterator[Family]:
    yield Family("pagewalk_processes",
                 {(name,): many for name, many in found.counts._asdict().items()})
    yield Family("pagewalk_stall_seconds", {(): found.stall_ns / 1e9})
    yield Family("pagewalk_walk_seconds",
                 {(part,): seconds for part, seconds in found.took._asdict().items()})
