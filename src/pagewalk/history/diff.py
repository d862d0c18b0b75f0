"""What changed between two recordings, or since one: byte by byte, adding up to the change of RSS.

Every byte of RAM of either side is in one class of what became of it (changes.CLASSES). Neither
side is held in memory: both are read from their beginning to their end, side by side.
"""

from __future__ import annotations

from contextlib import closing
from typing import NamedTuple, Protocol

from pagewalk.history.changes import Told
from pagewalk.history.fates import Fate, Mapped, Opened, only
from pagewalk.history.matching import Matched, Member, Pair, same_addresses, same_places
from pagewalk.history.merging import Stream, merged, no_sections
from pagewalk.history.tally import Most, Row, Tables
from pagewalk.model.columns import Withheld
from pagewalk.model.errors import BadRequest, ProcessGone
from pagewalk.model.facts import Facts

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


class Side(Protocol):
    """One of the two sides: its processes, each of which can be opened."""

    moment: Moment
    facts: Facts
    withheld: list[Withheld]

    def open(self, member: Member) -> Opened:
        """Open the address space of one of its processes; raises PagewalkError."""

    def rss(self, member: Member) -> int | None:
        """Return its RSS as it was added up without us, once its pages have been read."""


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


def diff(before: Side, after: Side, matched: Matched, by: str = "kind") -> Diff:
    """Return what changed from ``before`` to ``after`` in the processes that are ``matched``.

    ``by`` is a key of BY. Raises BadRequest if their pages are of different sizes, BadRecording,
    and what opening a live process raises.
    """
    check(before, after)
    tables, notes = Tables(by), Notes()
    told = told_by(before, after, notes)
    for pair in matched.pairs:
        try:
            with_both(before, after, pair, told, tables, notes)
        except ProcessGone:
            if len(matched.pairs) == 1:
                raise
            alone(before, pair.before, "ended", tables, notes)
    for members, side, key in ((matched.ended, before, "ended"), (matched.began, after, "began")):
        for member in members:
            alone(side, member, key, tables, notes)
    whole = tables.whole.row()
    say_sums(matched, notes)
    unexplained = None if notes.rss is None else notes.rss - whole.change
    withheld = (*notes.withheld, *before.withheld, *after.withheld)
    return Diff(before.moment, after.moment, matched, whole, tables.of_kinds(), by,
                tables.of_rows(), unexplained, tuple(dict.fromkeys(withheld)), tables.most())


def check(before: Side, after: Side) -> None:
    """Raise BadRequest where pages of the two sides cannot be compared."""
    one, other = before.facts, after.facts
    for what, first, second in (
            ("architectures", one.architecture, other.architecture),
            ("sizes of pages", one.page_size, other.page_size)):
        if first != second:
            raise BadRequest(f"cannot compare {before.moment.what} with {after.moment.what}: they"
                             f" are of different {what}, {first} and {second}")


class Notes:
    """What is noted beside the classes: the change of RSS as others counted it; what is untold."""

    def __init__(self) -> None:
        self.rss: int | None = 0
        self.withheld: dict[Withheld, None] = {}

    def add_rss(self, rss: int | None, sign: int) -> None:
        """Add the RSS of a process, which may be withheld."""
        self.rss = None if self.rss is None or rss is None else self.rss + sign * rss
        if rss is None:
            self.say("unexplained", "the RSS of a process was withheld from one side: zero pages"
                     " may look like anonymous ones there, and then count here")

    def say(self, what: str, why: str) -> None:
        """Note that something cannot be told."""
        self.withheld[Withheld(what, why)] = None


def told_by(before: Side, after: Side, notes: Notes) -> Told:
    """Return what both sides tell of frames, and note why they do not."""
    one, other = before.moment, after.moment
    frames = one.physical and other.physical and one.boot == other.boot != ""
    if not frames:
        why = ("they are of two boots, and a frame means another page in each"
               if one.boot != other.boot or not one.boot else
               "frames are numbered anew in a recording without --physical")
        notes.say(FRAMES, f"which pages are in another frame: {why}")
    return Told(frames=frames)


def with_both(
    before: Side, after: Side, pair: Pair, told: Told, tables: Tables, notes: Notes
) -> None:
    """Add what became of one process."""
    same_boot = before.moment.boot == after.moment.boot
    with (closing(before.open(pair.before)) as one, closing(after.open(pair.after)) as other):
        check(before, after)  # what a live one is, is known once it is open
        fates = fates_of(one, other, pair, same_boot, before.facts.page_size, told, notes)
    for fate in fates:
        tables.add(fate, pair.after.called)
    notes.add_rss(before.rss(pair.before), -1)
    notes.add_rss(after.rss(pair.after), 1)


def say_sums(matched: Matched, notes: Notes) -> None:
    """Note of how many processes there are sums only: of those that are not the same in both."""
    different, every = sum(not pair.same for pair in matched.pairs), len(matched.pairs)
    if different:
        of = f"of {different} of {every} processes " if every > different else ""
        notes.say("anonymous memory, page by page", f"{of}compared as sums by kind and name: the"
                 " same address means something else in another process")


def fates_of(
    one: Opened, other: Opened, pair: Pair, same_boot: bool, page: int, told: Told, notes: Notes
) -> list[Fate]:
    """Return what became of each mapping of one process; notes what cannot be told."""
    told = told._replace(huge=one.tells.huge and other.tells.huge,
                         sharing=one.tells.frames and other.tells.frames)
    for known, what, why in (
            (told.huge, HUGE, "one side does not tell huge pages"),
            (told.sharing, SHARING, "one side does not tell who maps a frame")):
        if not known:
            notes.say(what, why)
    sections = (same_addresses(one.vmas, other.vmas) if pair.same else
                same_places(one.vmas, other.vmas, same_boot))
    first = Stream(one.runs(), sections.before, sections, len(one.vmas), page, one.poison)
    second = Stream(other.runs(), sections.after, sections, len(other.vmas), page, other.poison)
    changes = merged(first, second, told)
    mapped = Mapped(one, other, sections, changes, first, second)
    return list(mapped.by_address(pair.after.pid) if pair.same else
                mapped.by_sums(pair.after.pid))


def alone(side: Side, member: Member, key: str, tables: Tables, notes: Notes) -> None:
    """Add a process that only one side has: all of it is of class ``key``, ended or began."""
    opened = side.open(member)
    try:
        nothing = no_sections()
        stream = Stream(opened.runs(), nothing.before, nothing, len(opened.vmas),
                        side.facts.page_size, opened.poison)
        stream.read()
        for fate in only(opened, stream.rest, member.pid, key):
            tables.add(fate, member.called)
    finally:
        opened.close()
    notes.add_rss(side.rss(member), 1 if key == "began" else -1)
