"""Address spaces made by hand, as the two sides of a diff."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pagewalk.account.groups import kinds_of
from pagewalk.history.diff import Diff, Moment, diff
from pagewalk.history.matching import Matched, Member, Pair
from pagewalk.model.columns import I64, Backing, Flag, State, Tells, VMAs, Withheld
from pagewalk.model.facts import Facts
from pagewalk.snapshot.runs import Runs
from tests.snapshot.by_hand import FACTS, PAGE

TELLS = Tells(tables=True, huge=True, zeros=True, frames=True, young=True, ksm=True)
SECOND = 10**9
# A mapping: start, pages, backing, name, where in its file it begins (pages).
Mapping = tuple[int, int, Backing, str, int]
# A run of pages: address, bytes, state, frame, mapcount, huge.
Run = tuple[int, int, State, int, int, bool]


def run(
    page: int, count: int, state: State, frame: int = 0, mapcount: int = 1, huge: bool = False
) -> Run:
    """Return ``count`` pages from number ``page`` on, the first in ``frame``."""
    return page * PAGE, count * PAGE, state, frame, mapcount, huge


def runs(rows: Sequence[Run], vmas: VMAs) -> Runs:
    """Return ``rows`` as Runs of ``vmas``."""
    addr, size, state, frame, mapcount, huge = (
        np.array(column) for column in (zip(*rows, strict=True) if rows else [[]] * 6))
    addr, size = addr.astype(np.uint64), size.astype(np.uint64)
    count = len(addr)
    flags = np.where(huge.astype(bool), Flag.HUGE.value, 0).astype(np.uint32)
    return Runs(
        addr, size, np.full(count, PAGE, np.uint64),
        np.searchsorted(vmas.start, addr, side="right") - 1, state.astype(np.uint8),
        np.zeros(count, np.uint8), flags, np.zeros(count, np.uint64), frame.astype(np.uint64),
        np.ones(count, np.uint64), np.zeros(count, np.uint64), mapcount.astype(np.uint64),
    )


def vmas(*rows: Mapping) -> VMAs:
    """Return these mappings; addresses and offsets are in pages, and a file's inode is its name."""
    start, pages, backing, names, offset = (list(column) for column in zip(*rows, strict=True))
    first = np.array(start, np.uint64) * np.uint64(PAGE)
    inode = [0 if kind is Backing.ANON else sum(name.encode()) for name, kind in zip(
        names, backing, strict=True)]
    return VMAs(
        first, first + np.array(pages, np.uint64) * np.uint64(PAGE),
        np.full(len(rows), 3, np.uint8), np.array(offset, np.uint64) * np.uint64(PAGE),
        np.zeros(len(rows), np.uint64), np.array(inode, np.uint64),
        np.array(backing, np.uint8), tuple(names))


@dataclass
class Space:
    """An address space: its mappings, and its runs in as many batches as there are lists."""

    vmas: VMAs
    batches: Sequence[Sequence[Run]]
    tells: Tells = TELLS
    poison: bool = False

    @property
    def kinds(self) -> I64:
        """Return the kinds of its mappings."""
        return kinds_of(self.vmas, np.zeros(0, np.uint64))

    def runs(self) -> Iterator[Runs]:
        """Yield its runs."""
        for rows in self.batches:
            if rows:
                yield runs(rows, self.vmas)

    def close(self) -> None:
        """Do nothing."""

    @property
    def rss(self) -> int:
        """Return the bytes of its runs that Rss counts, added up one by one."""
        counted = (State.ANON, State.FILE, State.SHMEM, State.DEVICE, State.PRESENT,
                   State.MIGRATING)
        return sum(row[1] for rows in self.batches for row in rows if row[2] in counted)


def moment(time: int = 0, **changed: Any) -> Moment:
    """Return a moment, with true numbers of frames."""
    return Moment("a.pagewalk", time, "host", "boot", "6.18.0", True)._replace(**changed)


@dataclass
class Look:
    """One side: spaces by pid."""

    spaces: dict[int, Space]
    moment: Moment = field(default_factory=moment)
    facts: Facts = FACTS
    withheld: list[Withheld] = field(default_factory=list)

    def open(self, member: Member) -> Space:
        """Return the space of a process."""
        return self.spaces[member.pid]

    def rss(self, member: Member) -> int | None:
        """Return its RSS, added up one by one."""
        return self.spaces[member.pid].rss


def member(pid: int = 1, **changed: Any) -> Member:
    """Return a process."""
    return Member(pid, 5, "worker", "/usr/bin/worker", f"worker {pid}")._replace(**changed)


def compare(
    before: Space, after: Space, *, same: bool = True, by: str = "kind", **changed: Any
) -> Diff:
    """Return what changed from ``before`` to ``after``, a second later."""
    one, other = Look({1: before}), Look({1: after}, moment(SECOND, **changed))
    return diff(one, other, Matched((Pair(member(), member(), same),), (), ()), by)
