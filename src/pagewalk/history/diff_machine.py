"""What changed in all of RAM, or in what a cgroup is charged for: sums by kind, file and cache.

Frames of RAM are no rows of a recording, so nothing is compared page by page here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from pagewalk.history.diff import Diff, Moment
from pagewalk.history.matching import Matched
from pagewalk.history.recorded_machine import RecordedMachine, machine_documents
from pagewalk.history.tally import Row, largest
from pagewalk.model.columns import Withheld
from pagewalk.model.errors import BadRequest, BadTarget, in_a_line
from pagewalk.snapshot.part import Part
from pagewalk.snapshot.read import Recording
from pagewalk.sources.ram import COUNTERS

REST = "(all others)"  # of a sort of files: those that are too small for a row of their own
CGROUP = "cgroup"
OF = "of_cgroup"  # whose charge a row is part of, None in rows of all of RAM
RAM = "RAM"  # Diff.of, where all of RAM was compared
ALL = "all of RAM"
BY_FRAMES, BY_COUNTERS = "its frames counted", "nothing but the kernel's counters"


class Grouping(NamedTuple):
    """What is added up: rows of kind ``record``, those alike in ``columns``; ``named``: as what."""

    record: str
    columns: tuple[str, ...]
    named: Callable[[dict[str, str | None]], str]


BY = {
    "kind": Grouping("ram", ("state", "name"),
                     lambda row: f"{row['state']}: {(row['name'] or '').replace('_', ' ')}"),
    "file": Grouping("file", ("state", "name"),
                     lambda row: row["name"] or f"{row['state']} {REST}"),
    "cache": Grouping("cache", ("name",), lambda row: row["name"] or REST),
    CGROUP: Grouping("group", ("cgroup",), lambda row: row["cgroup"] or ""),
}


def has_machine(recording: Recording) -> bool:
    """Return whether all of RAM, all cgroups, or what one is charged for was recorded."""
    return bool(machine_documents(recording))


class MachineSide(NamedTuple):
    """One of the two recordings: all of RAM (``group`` is None), or the charge of ``group``."""

    machine: RecordedMachine
    group: str | None

    @property
    def path(self) -> str:
        """Return the path of the recording, as a line says it."""
        return in_a_line(self.machine.recording.path)

    def counted(self) -> str:
        """Return how its parts were counted; raises BadTarget if they were not, BadRecording."""
        if self.group is not None:
            look = self.machine.group(self.group).group
            return BY_COUNTERS if look.charge is None else BY_FRAMES
        ram = self.machine.ram()
        if ram.parts is None:
            why = next((one.why for one in ram.withheld), "the kernel's counters were not read")
            raise BadTarget(f"{self.path} does not have what RAM is used for: {why}")
        return BY_COUNTERS if ram.source == COUNTERS else BY_FRAMES

    def check(self, by: str) -> None:
        """Raise BadTarget if it does not tell anything ``by`` that, BadRecording."""
        if self.group is None:
            if by == "file":
                self.machine.files()
            elif by == "cache":
                self.machine.slab()
            elif by == CGROUP:
                self.machine.cgroups(dying=False)
        elif (by in ("file", "cache") and self.counted() == BY_COUNTERS) or (
                by == "file" and self.machine.group(self.group).group.files is None):
            raise BadTarget(f"{self.path} does not have anything by {by}: the user who recorded it"
                            " may not see frames")


def side_of(recording: Recording) -> MachineSide:
    """Return what of the machine was recorded; raises BadRequest, BadTarget, BadRecording."""
    machine = RecordedMachine(recording)
    groups = machine.groups()
    if machine.has_ram or not groups:
        machine.ram()  # or says why it is not there
        return MachineSide(machine, None)
    if len(groups) > 1:
        raise BadRequest(f"{in_a_line(recording.path)} has {len(groups)} cgroups, and one is"
                         " compared at a time: record each into a file of its own")
    return MachineSide(machine, groups[0])


def diff_machine(
    before: Recording, after: Recording, moments: tuple[Moment, Moment], by: str
) -> Diff:
    """Return what changed of RAM, or of the charge of the same cgroup.

    ``by`` is a key of BY. Raises BadRequest if they are not of the same, BadTarget if one of them
    does not tell that; BadRecording.
    """
    if by not in BY:
        raise BadRequest(f"--by {by} is about processes; of RAM and cgroups choose from:"
                         f" {', '.join(BY)}")
    one, other = side_of(before), side_of(after)
    group = one.group
    if group != other.group:
        first, second = (ALL if side.group is None else in_a_line(side.group)
                         for side in (one, other))
        raise BadRequest(f"cannot compare {one.path} with {other.path}: one is of {first}, the"
                         f" other of {second}")
    if one.counted() != other.counted():
        raise BadRequest(f"cannot compare {one.path} with {other.path}: one has"
                         f" {one.counted()}, the other {other.counted()}, which tell fewer kinds"
                         " apart: record both as root")
    one.check(by)
    other.check(by)
    kinds, whole = rows_of(before, after, "kind", group)
    rows, _ = (kinds, whole) if by == "kind" else rows_of(before, after, by, group)
    what = f"the pages charged to {group}" if group else RAM
    says = Withheld("how it changed", "RAM and cgroups are compared as sums by kind, file, cache"
                    " and cgroup: only processes are recorded page by page")
    return Diff(*moments, Matched((), (), ()), whole, kinds, by, rows, None, (says,), None, what)


def rows_of(
    before: Recording, after: Recording, by: str, group: str | None
) -> tuple[tuple[Row, ...], Row]:
    """Return a row for each name whose amount changed, and one for all."""
    first, second = amounts(before, by, group), amounts(after, by, group)
    names = dict.fromkeys([*first, *second])
    rows = [row_of(name, first.get(name), second.get(name)) for name in names]
    whole = row_of("all", sum(first.values()), sum(second.values()))
    changed = [row for row in rows if row.changed]
    # What one part of RAM has more another has less: that of all of it may not have changed.
    for key in ("grown", "more", "unmapped", "less"):
        for sums, parts in ((whole.bytes, "bytes"), (whole.rss, "rss")):
            total = sum(getattr(row, parts).get(key, 0) for row in changed)
            sums.pop(key, None)
            if total:
                sums[key] = total
    return largest(changed), whole


def row_of(name: str, before: int | None, after: int | None) -> Row:
    change = (after or 0) - (before or 0)
    key = ("grown" if before is None else "unmapped" if after is None else
           "more" if change > 0 else "less")
    moved = {key: abs(change)} if change else {}
    return Row(name, None, None, None, None, change, before or 0, after or 0, 0, 0, moved,
               {key: change} if change else {})


def amounts(recording: Recording, by: str, group: str | None) -> dict[str, int]:
    """Return bytes by name, of ``group`` or all of RAM; rows that are called the same together."""
    grouping = BY[by]
    found: dict[str, int] = {}
    for part in recording.parts(grouping.record, (*grouping.columns, OF, "size")):
        rows = zip(names_of(part, grouping), part.texts(OF), part.table.column("size").to_pylist(),
                   strict=True)
        for name, of, size in rows:
            if size is not None and (by == CGROUP or of == group):
                found[name] = found.get(name, 0) + size
    return found


def names_of(part: Part, grouping: Grouping) -> Iterator[str]:
    columns = [part.texts(name) for name in grouping.columns]
    for row in zip(*columns, strict=True):
        yield grouping.named(dict(zip(grouping.columns, row, strict=True)))
