"""What became of memory, added up as it is found: of all, by kind, and by what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pagewalk.account.groups import KINDS
from pagewalk.history.changes import CLASSES, COUNT
from pagewalk.history.fates import Fate
from pagewalk.model.columns import I64

ANONYMOUS = "[anon]"  # memory without a name


class Row(NamedTuple):
    """What became of some memory, bytes: ``what`` is its kind, its mapping or its process.

    ``change`` is that of RSS from ``before`` to ``after``; ``swap`` and ``hugetlb`` are by how much
    these changed, which are not in RSS. ``bytes`` is by class (CLASSES), and ``rss`` by how much
    each changed the RSS. ``pid`` is its process, ``addr`` to ``end`` where it is, None if it is of
    several.
    """

    what: str
    kind: str | None
    pid: int | None
    addr: int | None
    end: int | None
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
    """The mapping of one process whose RSS changed most in the direction of the whole.

    Where rows are VMAs it is one, at ``addr`` to ``end``; else all that have this name.
    """

    pid: int
    called: str
    name: str
    addr: int | None
    end: int | None
    change: int


@dataclass
class Tally:
    """The sums of fates with one key."""

    what: str
    kind: str | None = None
    pid: int | None = None
    addr: int | None = None
    end: int | None = None
    before: int = 0
    after: int = 0
    swap: int = 0
    hugetlb: int = 0
    bytes: I64 = field(default_factory=lambda: np.zeros(COUNT, np.int64))
    rss: I64 = field(default_factory=lambda: np.zeros(COUNT, np.int64))

    def add(self, fate: Fate) -> None:
        """Add a fate."""
        self.before += fate.before
        self.after += fate.after
        self.swap += fate.swap
        self.hugetlb += fate.hugetlb
        self.bytes += fate.bytes
        self.rss += fate.rss

    def row(self) -> Row:
        """Return the sums."""
        return Row(
            self.what, self.kind, self.pid, self.addr, self.end, int(self.rss.sum()), self.before,
            self.after, self.swap, self.hugetlb, by_class(self.bytes), by_class(self.rss))


def by_class(sums: I64) -> dict[str, int]:
    return {one.key: amount for one, amount in zip(CLASSES, sums.tolist(), strict=True) if amount}


# What a row of each table is of: its key, and what it is called.
Key = Callable[[Fate, str], tuple[Hashable, str]]
BY: dict[str, Key] = {
    "kind": lambda fate, _: (fate.kind, fate.kind),
    "file": lambda fate, _: (fate.name or ANONYMOUS, fate.name or ANONYMOUS),
    "vma": lambda fate, _: ((fate.pid, fate.addr, fate.kind, fate.name), fate.name or ANONYMOUS),
    "process": lambda fate, called: (fate.pid, called),
}


class Tables:
    """Sums while they are made: of all, by kind, and by what was asked for."""

    def __init__(self, by: str) -> None:
        self.by = by
        self.whole, self.kinds = Tally("all"), dict[Hashable, Tally]()
        self.rows: dict[Hashable, Tally] = {}
        self.names: dict[tuple[int, str, str, int | None, int | None], int] = {}

    def add(self, fate: Fate, called: str) -> None:
        """Add a fate of the process ``called``."""
        self.whole.add(fate)
        place = (fate.addr, fate.end) if self.by == "vma" else (None, None)
        name = (fate.pid, called, fate.name or ANONYMOUS, *place)
        self.names[name] = self.names.get(name, 0) + fate.after - fate.before
        kind = self.kinds.get(fate.kind)
        if kind is None:
            kind = self.kinds[fate.kind] = Tally(fate.kind, fate.kind)
        kind.add(fate)
        if self.by == "kind":
            return
        key, what = BY[self.by](fate, called)
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = Tally(
                what, fate.kind if self.by == "vma" else None,
                fate.pid if self.by in ("vma", "process") else None, *place)
        row.add(fate)

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
