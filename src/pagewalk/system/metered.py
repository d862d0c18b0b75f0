"""What is told of a machine again and again, for graphs: processes, RAM and cgroups.

Each part is looked at for a bounded time, whatever the machine's size.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pagewalk.model.columns import Withheld, partial
from pagewalk.model.errors import BadTarget, NotPermitted, PagewalkError, SourceUnavailable
from pagewalk.proc.cgroups import find_hierarchy
from pagewalk.proc.chosen import Chosen, Wanted, choose
from pagewalk.proc.containers import read_records
from pagewalk.sources.ram import COUNTERS, RamSource, open_counters
from pagewalk.system.containers import Name, names_of
from pagewalk.system.group_table import GroupsLook, GroupTable, by_counters
from pagewalk.system.look import Ram, RamLook, look_at_ram
from pagewalk.system.members import Looked, Member, Tried, total_each, totaled
from pagewalk.system.one_scan import Begun, scan
from pagewalk.system.overview import FRAMES, Clock, TakesLong, open_overview
from pagewalk.system.processes import LiveProcesses
from pagewalk.system.top import BY, Key, Line, lines_by

# Of the time for all processes, what those that are walked together may take: see overview.
TOGETHER = 2 / 3
# A process that names itself writes what it likes, often what it is doing and for whom: "postgres:
# alice shop 10.0.0.7(50312) idle". A program has neither blanks nor colons in its name.
PLAIN = re.compile(r"[^\s:]+")
OURS = "(ours)"  # our own cgroup, where we are told none of those above it
CHARGED = "what cgroups are charged for, by frames"
NO_TIME = "the time for walking processes was up before {} of them"


class Counts(NamedTuple):
    """What became of the processes: numbers of address spaces.

    ``refused`` are those that the kernel does not let us look at, ``failed`` those that could not
    be read for another reason, ``ended`` those that ended first, ``left`` those that time did not
    suffice for.
    """

    walked: int
    refused: int = 0
    failed: int = 0
    ended: int = 0
    left: int = 0


class Took(NamedTuple):
    """Seconds that each part took; ``ram`` is the scan of RAM, for itself and for cgroups."""

    processes: float
    ram: float


class Metered(NamedTuple):
    """What processes hold by what they have in common, all of RAM, and every cgroup.

    ``lines`` are those of top, by "program", "user" and "cgroup" (missing without memory cgroups).
    ``unwalked`` are the processes that are not in them, likewise: of those only ``rss`` is known,
    from statm, whose counters may be off by 32 pages a CPU. ``source`` is what the last process was
    read from, empty for none; ``stall_ns`` the longest read that may have held a lock of one.
    ``groups`` is None where there are no memory cgroups; ``names`` says what each cgroup is, by its
    path.
    """

    source: str
    lines: dict[str, tuple[Line, ...]]
    unwalked: dict[str, tuple[Line, ...]]
    counts: Counts
    stall_ns: int
    ram: Ram
    groups: GroupTable | None
    names: dict[str, Name]
    took: Took
    withheld: tuple[Withheld, ...]

    @property
    def partial(self) -> list[str]:
        """Return what rights or a race took away."""
        return partial(self.withheld)


def look_at_metered(
    longest: float, process_source: str = "auto", clock: Clock = time.monotonic
) -> Metered:
    """Walk all processes but this one, and scan RAM for it and its cgroups; raises BadText.

    Processes are read from ``process_source``. The walks take ``longest`` seconds, the scan twice
    as many of CPU time.
    """
    source, begun = open_overview(2 * longest), clock()
    looked, unseen, counts, lost = walked(longest, process_source, clock)
    keys, missing = in_common()
    lines, rest = ({by: lines_by(members, key) for by, key in keys.items()}
                   for members in (looked.members, unseen))
    after = clock()
    ram, groups, lacking = ram_and_groups(source)
    took = Took(after - begun, clock() - after)
    told = (*looked.tried.withheld, *lost, *missing, *ram.withheld,
            *(groups.withheld if groups else ()), *lacking)
    return Metered(
        looked.tried.source, lines, rest, counts, looked.tried.stall_ns, ram, groups,
        called([lines, rest], groups), took,
        tuple(dict.fromkeys(row for row in told if row.what != "freed")))


Walked = tuple[Looked, list[Member], Counts, tuple[Withheld, ...]]


def walked(longest: float, source: str, clock: Clock) -> Walked:
    """Walk processes, the largest first; also return those that were not, as members."""
    chosen, begun = everyone(), clock()
    if not chosen:
        return Looked((), Tried("", (), (), 0, ())), [], Counts(0), ()
    try:
        looked = total_each(chosen, LiveProcesses(source), lambda: clock() > begun + longest,
                            lambda: clock() > begun + longest * TOGETHER)
    except PagewalkError as error:  # of none, and why the first was not
        looked = Looked((), Tried("", tuple((one.process.pid, str(error)) for one in chosen), (), 0,
                                  (), len(chosen) * isinstance(error, NotPermitted)))
        lost: tuple[Withheld, ...] = (Withheld("what processes hold", str(error), partial=True),)
        return looked, unwalked(looked, chosen), counts_of(looked, 0), lost
    unseen = unwalked(looked, chosen)
    left = len({one.pids[0] for one in unseen} - {pid for pid, _ in looked.tried.not_looked})
    lost = (Withheld("what some processes hold", NO_TIME.format(left)),) if left else ()
    return looked, unseen, counts_of(looked, left), lost


def everyone() -> list[Chosen]:
    try:
        return sorted(choose(Wanted(everyone=True)), key=lambda one: -one.process.rss)
    except BadTarget:  # we are alone in this PID namespace
        return []


def counts_of(looked: Looked, left: int) -> Counts:
    tried = looked.tried
    return Counts(len(looked.members), tried.refused, len(tried.not_looked) - tried.refused,
                  len(tried.gone), left)


def unwalked(looked: Looked, chosen: Sequence[Chosen]) -> list[Member]:
    """Return those of ``chosen`` that were neither walked nor ended; of them only RSS is known."""
    done = {*looked.tried.gone, *(pid for one in looked.members for pid in one.pids)}
    return [totaled([one], {"rss": one.process.rss}) for one in chosen
            if one.process.pid not in done]


def in_common() -> tuple[dict[str, Key], tuple[Withheld, ...]]:
    """Return what processes may have in common; see Metered.lines."""
    keys: dict[str, Key] = {"program": program, "user": BY["user"](LiveProcesses())}
    try:
        return {**keys, "cgroup": cgroup()}, ()
    except PagewalkError as error:  # there are no memory cgroups
        return keys, (Withheld("which cgroup a process is in", str(error)),)


def cgroup() -> Key:
    """Return what tells the cgroup of a process, by the path that its charge is told by.

    In a cgroup namespace, such as that of a container that was given the host's cgroups, /proc
    tells paths from our own group: "/../../system.slice", and those below ours from "/".
    """
    key, root = BY["cgroup"](LiveProcesses()), find_hierarchy().root
    if ".." not in root.split("/"):
        return key

    def from_root(member: Member) -> tuple[int | str, str]:
        path = host_path(key(member)[1], root)
        return path, path

    return from_root


def host_path(path: str, root: str) -> str:
    """Return the path from the topmost group, which we see as ``root``; OURS if that is hidden."""
    if path == root:
        return "/"
    inside = path.startswith("/") and not path.startswith("/..")
    return (OURS + path).rstrip("/") if inside else path.removeprefix(root)


def called(
    held: Sequence[dict[str, tuple[Line, ...]]], groups: GroupTable | None
) -> dict[str, Name]:
    """Return what all cgroups are that are told of, by path."""
    paths = {line.name for lines in held for line in lines.get("cgroup", ())}
    paths |= {*(groups.groups.path if groups else ())}
    return names_of({path for path in paths if path.startswith("/")}, read_records())


def program(member: Member) -> tuple[str, str]:
    """Return what to call the program of a process: as top does, but nothing that changes.

    A title that the process has written is not its name; comm is. Its own number is "PID".
    """
    name = os.path.basename(member.program)
    if not PLAIN.fullmatch(name) or not PLAIN.fullmatch(member.program):
        name = member.name
    for pid in member.pids:
        name = re.sub(rf"(?<!\d){pid}(?!\d)", "PID", name)
    return name, name


def ram_and_groups(
    source: RamSource,
) -> tuple[Ram, GroupTable | None, tuple[Withheld, ...]]:
    """Return RAM and every cgroup, of one scan, and why one of them is not there.

    They are as the kernel counts if looking at all frames takes long, or is refused.
    """
    if source.name == COUNTERS:
        return look_at_ram(source), *groups_or_why(lambda: by_counters(source.notes))
    groups = Begun(lambda: GroupsLook(source))
    try:
        ram = RamLook(source)
        scan(source, [groups, ram])
        return ram.found(), *groups_or_why(lambda: groups.ended().found())
    except TakesLong as error:
        why = Withheld(FRAMES, f"{error}; pagewalk ram does")
        charged = Withheld(CHARGED, f"{error}; pagewalk cgroups does")
    except (SourceUnavailable, NotPermitted) as error:
        why = Withheld(FRAMES, str(error), partial=True)
        charged = Withheld(CHARGED, str(error), partial=True)
    return look_at_ram(open_counters(why)), *groups_or_why(lambda: by_counters((charged,)))


def groups_or_why(
    look: Callable[[], GroupTable]
) -> tuple[GroupTable | None, tuple[Withheld, ...]]:
    try:
        return look(), ()
    except PagewalkError as error:
        return None, (Withheld("what cgroups are charged for", str(error)),)
