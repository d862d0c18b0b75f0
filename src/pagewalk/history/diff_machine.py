"""What changed in all of RAM, or in what a cgroup is charged for: sums by kind, file and cache.

Frames of RAM are no rows of a recording, so nothing is compared page by page here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from pagewalk.history.diff import Diff, Moment, Row, largest
from pagewalk.history.matching import Matched
from pagewalk.model.columns import Withheld
from pagewalk.model.errors import BadRequest
from pagewalk.snapshot.read import Part, Recording

REST = "(all others)"  # of a sort of files: those that are too small for a row of their own
CGROUP = "cgroup"


class Kind(NamedTuple):
    """A kind of rows: ``record`` as in the file, and which of its columns tell rows apart."""

    record: str
    columns: tuple[str, ...]
    named: Callable[[dict[str, str | None]], str]


BY = {
    "kind": Kind("ram", ("state", "name"),
                 lambda row: f"{row['state']}: {(row['name'] or '').replace('_', ' ')}"),
    "file": Kind("file", ("state", "name"),
                 lambda row: row["name"] or f"{row['state']} {REST}"),
    "cache": Kind("cache", ("name",), lambda row: row["name"] or REST),
    CGROUP: Kind("group", ("cgroup",), lambda row: row["cgroup"] or ""),
}


def has_machine(recording: Recording) -> bool:
    """Return whether all of RAM, or a cgroup, was recorded."""
    return not recording.kinds.isdisjoint({"ram", "group"})


def looked_at(recording: Recording) -> str | None:
    """Return which cgroup's charge was recorded, None for all of RAM; raises BadRequest."""
    # A cgroup to which nothing is charged has no row but its own.
    record, column = ("ram", "of_cgroup") if "ram" in recording.kinds else ("group", CGROUP)
    groups = {text for part in recording.parts(record, (column,)) for text in part.texts(column)}
    if len(groups) > 1:
        raise BadRequest(f"{recording.path} has several cgroups, which cannot be compared")
    return next(iter(groups), None)


def diff_machine(
    before: Recording, after: Recording, moments: tuple[Moment, Moment], by: str
) -> Diff:
    """Return what changed of RAM, or of the charge of the same cgroup.

    ``by`` is a key of BY. Raises BadRequest if they are not of the same, or have no such rows;
    BadRecording.
    """
    one, other = looked_at(before), looked_at(after)
    if one != other:
        raise BadRequest(f"cannot compare {before.path} with {after.path}: one is of"
                         f" {one or 'all of RAM'}, the other of {other or 'all of RAM'}")
    if by not in BY:
        raise BadRequest(f"--by {by} is about processes; of RAM and cgroups choose from:"
                         f" {', '.join(BY)}")
    if BY[by].record not in before.kinds | after.kinds:
        raise BadRequest(f"neither {before.path} nor {after.path} has anything by {by}")
    kinds, whole = rows_of(before, after, "kind")
    rows, _ = (kinds, whole) if by == "kind" else rows_of(before, after, by)
    what = f"the charge of {one}" if one else "RAM"
    says = Withheld("how it changed", "RAM and cgroups are compared as sums by kind, file, cache"
                    " and cgroup: only processes are recorded page by page")
    return Diff(*moments, Matched((), (), ()), whole, kinds, by, rows, None, (says,), None, what)


def rows_of(before: Recording, after: Recording, by: str) -> tuple[tuple[Row, ...], Row]:
    """Return a row for each name whose amount changed, and one for all."""
    first, second = amounts(before, by), amounts(after, by)
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
    return Row(name, None, None, None, change, before or 0, after or 0, 0, 0, moved,
               {key: change} if change else {})


def amounts(recording: Recording, by: str) -> dict[str, int]:
    """Return bytes by name; two rows that are called the same count together."""
    kind = BY[by]
    found: dict[str, int] = {}
    for part in recording.parts(kind.record, (*kind.columns, "size")):
        for name, size in zip(names_of(part, kind), part.table.column("size").to_pylist(),
                              strict=True):
            if size is not None:
                found[name] = found.get(name, 0) + size
    return found


def names_of(part: Part, kind: Kind) -> Iterator[str]:
    columns = [part.texts(name) for name in kind.columns]
    for row in zip(*columns, strict=True):
        yield kind.named(dict(zip(kind.columns, row, strict=True)))
