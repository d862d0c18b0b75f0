"""What changed between two recordings, or since one: byte by byte, adding up to the change of RSS.

Every byte of RAM of either side is in one class of what became of it (changes.CLASSES). Neither
side is held in memory: both are read from their beginning to their end, side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from pagewalk.account.groups import KINDS
from pagewalk.history.changes import CLASSES, COUNT, Told
from pagewalk.history.matching import Matched, Member, Pair, same_addresses, same_places
from pagewalk.history.merging import Side, merged, no_sections
from pagewalk.history.parts import Mapped, Opened, Part, only
from pagewalk.model.columns import I64, Withheld
from pagewalk.model.errors import BadRequest, ProcessGone
from pagewalk.model.facts import Facts

ANONYMOUS = "[anon]"  # memory without a name


# What may be withheld of pages that are in RAM in both, as it is called, and which classes that is.
FRAMES, HUGE, SHARING = "moved", "became huge, no longer huge", "became shared, became private"
UNTOLD = {FRAMES: ("moved",), HUGE: ("huge", "split"), SHARING: ("shared", "private")}


class Moment(NamedTuple):
    """When and where one side was: ``time`` ns since 1970, ``physical``: true frame numbers.

    ``what`` is the recording's path, or what is live.
    """

    what: str
    time: int
    host: str
    boot: str
    kernel: str
    physical: bool
    live: bool = False


class Looked(Protocol):
    """One of the two sides: its processes, each of which can be opened."""

    moment: Moment
    facts: Facts
    withheld: list[Withheld]

    def open(self, member: Member) -> Opened:
        """Open the address space of one of its processes; raises PagewalkError."""

    def rss(self, member: Member) -> int | None:
        """Return its RSS as it was added up without us, once its pages have been read."""


class Row(NamedTuple):
    """What became of some memory, bytes: ``what`` is its kind, its mapping or its process.

    ``change`` is that of RSS from ``before`` to ``after``; ``swap`` and ``hugetlb`` are by how much
    these changed, which are not in RSS. ``bytes`` is by class (CLASSES), and ``rss`` by how much
    each changed the RSS. ``pid`` and ``addr`` are its process and where it begins, None if it is of
    several.
    """

    what: str
    kind: str | None
    pid: int | None
    addr: int | None
    change: int
    before: int
    after: int
    swap: int
    hugetlb: int
    bytes: dict[str, int]
    rss: dict[str, int]

    @property
    def changed(self) -> bool:
        """Return whether anything became of it."""
        return bool(self.bytes.keys() - {"unchanged"}) or bool(
            self.change or self.swap or self.hugetlb)


class Most(NamedTuple):
    """The mapping of one process whose RSS changed most in the direction of the whole."""

    pid: int
    called: str
    name: str
    change: int


class Diff(NamedTuple):
    """What changed from ``before`` to ``after``: ``whole`` of all, ``kinds`` and ``rows``.

    ``unexplained`` is what the classes leave of the change of RSS, None where RSS is withheld.
    ``matched`` says which processes were compared with which. ``by`` is what ``rows`` are. ``of``
    says what ``change`` is a change of: RSS, or what diff_machine compares.
    """

    before: Moment
    after: Moment
    matched: Matched
    whole: Row
    kinds: tuple[Row, ...]
    by: str
    rows: tuple[Row, ...]
    unexplained: int | None
    withheld: tuple[Withheld, ...]
    most: Most | None = None
    of: str = "RSS"

    @property
    def growth(self) -> int:
        """Return by how much RSS, swap and hugetlb pages grew together, bytes."""
        return self.whole.change + self.whole.swap + self.whole.hugetlb

    @property
    def untold(self) -> frozenset[str]:
        """Return the classes of which nothing is known: what would be in them is unchanged."""
        return frozenset(key for row in self.withheld for key in UNTOLD.get(row.what, ()))


@dataclass
class Tally:
    """The sums of parts with one key."""

    what: str
    kind: str | None = None
    pid: int | None = None
    addr: int | None = None
    before: int = 0
    after: int = 0
    swap: int = 0
    hugetlb: int = 0
    bytes: I64 = field(default_factory=lambda: np.zeros(COUNT, np.int64))
    rss: I64 = field(default_factory=lambda: np.zeros(COUNT, np.int64))

    def add(self, part: Part) -> None:
        """Add a part."""
        self.before += part.before
        self.after += part.after
        self.swap += part.swap
        self.hugetlb += part.hugetlb
        self.bytes += part.bytes
        self.rss += part.rss

    def row(self) -> Row:
        """Return the sums."""
        return Row(
            self.what, self.kind, self.pid, self.addr, int(self.rss.sum()), self.before, self.after,
            self.swap, self.hugetlb, by_class(self.bytes), by_class(self.rss))


def by_class(sums: I64) -> dict[str, int]:
    return {one.key: amount for one, amount in zip(CLASSES, sums.tolist(), strict=True) if amount}


# What a row of each table is of: its key, and what it is called.
Key = Callable[[Part, str], tuple[Hashable, str]]
BY: dict[str, Key] = {
    "kind": lambda part, _: (part.kind, part.kind),
    "file": lambda part, _: (part.name or ANONYMOUS, part.name or ANONYMOUS),
    "vma": lambda part, _: ((part.pid, part.addr, part.name), part.name or ANONYMOUS),
    "process": lambda part, called: (part.pid, called),
}


class Tables:
    """Sums while they are made: of all, by kind, and by what was asked for."""

    def __init__(self, by: str) -> None:
        self.by = by
        self.whole, self.kinds = Tally("all"), dict[Hashable, Tally]()
        self.rows: dict[Hashable, Tally] = {}
        self.names: dict[tuple[int, str, str], int] = {}

    def add(self, part: Part, called: str) -> None:
        """Add a part of the process ``called``."""
        self.whole.add(part)
        name = (part.pid, called, part.name or ANONYMOUS)
        self.names[name] = self.names.get(name, 0) + part.after - part.before
        kind = self.kinds.get(part.kind)
        if kind is None:
            kind = self.kinds[part.kind] = Tally(part.kind, part.kind)
        kind.add(part)
        if self.by == "kind":
            return
        key, what = BY[self.by](part, called)
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = Tally(
                what, part.kind if self.by == "vma" else None,
                part.pid if self.by in ("vma", "process") else None,
                part.addr if self.by == "vma" else None)
        row.add(part)

    def most(self) -> Most | None:
        """Return which mapping changed most, in the direction of the whole; None if none did."""
        sign = 1 if self.whole.after > self.whole.before else -1
        best = max(self.names.items(), key=lambda item: sign * item[1], default=None)
        return None if best is None or sign * best[1] <= 0 else Most(*best[0], best[1])

    def of_kinds(self) -> tuple[Row, ...]:
        """Return the kinds that changed, in their own order."""
        rows = [self.kinds[kind.key].row() for kind in KINDS if kind.key in self.kinds]
        return tuple(row for row in rows if row.changed)

    def of_rows(self) -> tuple[Row, ...]:
        """Return the rows that changed, those whose amounts changed most first."""
        if self.by == "kind":
            return largest(self.of_kinds())
        return largest(row for tally in self.rows.values() if (row := tally.row()).changed)


def largest(rows: Iterable[Row]) -> tuple[Row, ...]:
    return tuple(sorted(rows, key=lambda row: (-abs(row.change) - abs(row.hugetlb),
                                               -abs(row.swap), -sum(row.bytes.values()))))


def diff(before: Looked, after: Looked, matched: Matched, by: str = "kind") -> Diff:
    """Return what changed from ``before`` to ``after`` in the processes that are ``matched``.

    ``by`` is a key of BY. Raises BadRequest if their pages are of different sizes, BadRecording,
    and what opening a live process raises.
    """
    check(before, after)
    tables, left = Tables(by), Left()
    told = told_by(before, after, left)
    for pair in matched.pairs:
        try:
            with_both(before, after, pair, told, tables, left)
        except ProcessGone:
            if len(matched.pairs) == 1:
                raise
            alone(before, pair.before, "ended", tables, left)
    for members, side, key in ((matched.ended, before, "ended"), (matched.began, after, "began")):
        for member in members:
            alone(side, member, key, tables, left)
    whole = tables.whole.row()
    unexplained = None if left.rss is None else left.rss - whole.change
    withheld = (*left.withheld, *before.withheld, *after.withheld)
    return Diff(before.moment, after.moment, matched, whole, tables.of_kinds(), by,
                tables.of_rows(), unexplained, tuple(dict.fromkeys(withheld)), tables.most())


def check(before: Looked, after: Looked) -> None:
    """Raise BadRequest where pages of the two sides cannot be compared."""
    one, other = before.facts, after.facts
    for what, first, second in (
            ("architectures", one.architecture, other.architecture),
            ("sizes of pages", one.page_size, other.page_size)):
        if first != second:
            raise BadRequest(f"cannot compare {before.moment.what} with {after.moment.what}: they"
                             f" are of different {what}, {first} and {second}")


class Left:
    """What is found out beside the classes: the change of RSS as others counted it, and remarks."""

    def __init__(self) -> None:
        self.rss: int | None = 0
        self.withheld: dict[Withheld, None] = {}

    def add(self, rss: int | None, sign: int) -> None:
        """Add the RSS of a process, which may be withheld."""
        self.rss = None if self.rss is None or rss is None else self.rss + sign * rss
        if rss is None:
            self.say("unexplained", "the RSS of a process was withheld from one side: zero pages"
                     " may look like anonymous ones there, and then count here")

    def say(self, what: str, why: str) -> None:
        """Note that something cannot be told."""
        self.withheld[Withheld(what, why)] = None


def told_by(before: Looked, after: Looked, left: Left) -> Told:
    """Return what both sides tell of frames, and note why they do not."""
    one, other = before.moment, after.moment
    frames = one.physical and other.physical and one.boot == other.boot != ""
    if not frames:
        why = ("they are of two boots, and a frame means another page in each"
               if one.boot != other.boot or not one.boot else
               "frames are numbered anew in a recording without --physical")
        left.say(FRAMES, f"which pages are in another frame: {why}")
    return Told(frames=frames)


def with_both(
    before: Looked, after: Looked, pair: Pair, told: Told, tables: Tables, left: Left
) -> None:
    """Add what became of one process."""
    same_boot = before.moment.boot == after.moment.boot
    with (closing(before.open(pair.before)) as one, closing(after.open(pair.after)) as other):
        check(before, after)  # what a live one is, is known once it is open
        parts = parts_of(one, other, pair, same_boot, before.facts.page_size, told, left)
    for part in parts:
        tables.add(part, pair.after.called)
    left.add(before.rss(pair.before), -1)
    left.add(after.rss(pair.after), 1)


def parts_of(
    one: Opened, other: Opened, pair: Pair, same_boot: bool, page: int, told: Told, left: Left
) -> list[Part]:
    """Return what became of each mapping of one process; notes what cannot be told."""
    told = told._replace(huge=one.tells.huge and other.tells.huge,
                         sharing=one.tells.frames and other.tells.frames)
    for known, what, why in (
            (told.huge, HUGE, "one side does not tell huge pages"),
            (told.sharing, SHARING, "one side does not tell who maps a frame")):
        if not known:
            left.say(what, why)
    if not pair.same:
        left.say("anonymous memory, page by page", "compared as sums by kind and name: the same"
                 " address means something else in another process")
    sections = (same_addresses(one.vmas, other.vmas) if pair.same else
                same_places(one.vmas, other.vmas, same_boot))
    first = Side(one.runs(), sections.before, sections, len(one.vmas), page, one.poison)
    second = Side(other.runs(), sections.after, sections, len(other.vmas), page, other.poison)
    changes = merged(first, second, told)
    mapped = Mapped(one, other, sections, changes, first, second)
    return list(mapped.by_address(pair.after.pid) if pair.same else
                mapped.by_sums(pair.after.pid))


def alone(side: Looked, member: Member, key: str, tables: Tables, left: Left) -> None:
    """Add a process that only one side has: all of it is of class ``key``, ended or began."""
    opened = side.open(member)
    try:
        nothing = no_sections()
        read = Side(opened.runs(), nothing.before, nothing, len(opened.vmas),
                    side.facts.page_size, opened.poison)
        read.read()
        for part in only(opened, read.rest, member.pid, key):
            tables.add(part, member.called)
    finally:
        opened.close()
    left.add(side.rss(member), 1 if key == "began" else -1)
