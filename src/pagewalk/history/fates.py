"""What became of each mapping of a process: sections that were compared, and what is in none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from pagewalk.account.groups import KINDS
from pagewalk.history.changes import CODES, COUNT, UNCHANGED
from pagewalk.history.merging import Amounts, Changes, Sections, Stream
from pagewalk.model.columns import I64, Tells, VMAs
from pagewalk.snapshot.runs import Runs


class Opened(Protocol):
    """An address space whose pages can be read once, by ascending address."""

    vmas: VMAs
    kinds: I64
    tells: Tells
    poison: bool

    def runs(self) -> Iterator[Runs]:
        """Yield its pages as runs."""

    def close(self) -> None:
        """Close what was opened for it."""


class Fate(NamedTuple):
    """What became of one mapping of a process, as Row; ``bytes`` and ``rss`` i64 are by class.

    ``addr`` and ``end`` are where it is, None if it is of several VMAs.
    """

    name: str
    kind: str
    pid: int
    addr: int | None
    end: int | None
    before: int
    after: int
    swap: int
    hugetlb: int
    bytes: I64
    rss: I64


class Mapped(NamedTuple):
    """What became of the sections of a process, and what is in none, as fates by VMA."""

    one: Opened
    other: Opened
    sections: Sections
    changes: Changes
    first: Stream
    second: Stream

    def in_sections(self, pid: int) -> dict[int, Fate]:
        """Return the fate of each VMA of the second side that has sections."""
        found: dict[int, Fate] = {}
        for at, vma in enumerate(self.sections.vma_after.tolist()):
            fate = found.get(vma) or empty(self.other, vma, pid)
            rss = int(self.changes.rss[at].sum())
            fate.bytes[:] += self.changes.bytes[at]
            fate.rss[:] += self.changes.rss[at]
            found[vma] = fate._replace(
                before=fate.before - rss, swap=fate.swap + int(self.changes.swap[at]),
                hugetlb=fate.hugetlb + int(self.changes.hugetlb[at]))
        for vma, fate in found.items():
            after = int(self.second.whole.rss[vma] - self.second.rest.rss[vma])
            found[vma] = fate._replace(before=fate.before + after, after=after)
        return found

    def by_address(self, pid: int) -> Iterator[Fate]:
        """Yield the fates of one process that is the same in both, what was unmapped included.

        What a VMA lost counts with the one that its first section is in now, as a heap that shrank.
        """
        found = self.in_sections(pid)
        became = dict(zip(self.sections.vma.tolist()[::-1],
                          self.sections.vma_after.tolist()[::-1], strict=True))
        for vma in np.flatnonzero(some(self.second.rest)).tolist():
            fate = found.get(vma) or empty(self.other, vma, pid)
            found[vma] = plus(fate, self.second.rest, vma, "grown")
        for vma in np.flatnonzero(some(self.first.rest)).tolist():
            into = became.get(vma)
            if into is None:
                yield minus(empty(self.one, vma, pid), self.first.rest, vma, "unmapped")
            else:
                found[into] = minus(found[into], self.first.rest, vma, "unmapped")
        yield from found.values()

    def by_sums(self, pid: int) -> Iterator[Fate]:
        """Yield the fates of two processes: what is in no section is compared by kind and name."""
        yield from self.in_sections(pid).values()
        sums: dict[tuple[str, str], Fate] = {}
        places: dict[tuple[str, str], list[tuple[int | None, int | None]]] = {}
        firsts, seconds = names_of(self.one), names_of(self.other)
        for side, amounts, add in ((self.one, self.first.rest, minus),
                                   (self.other, self.second.rest, plus)):
            for vma in np.flatnonzero(some(amounts)).tolist():
                fate = empty(side, vma, pid)
                key = (fate.kind, fate.name)
                sums[key] = add(sums.get(key, fate), amounts, vma)
                if side is self.other or key not in seconds:
                    places.setdefault(key, []).append((fate.addr, fate.end))
        for key, fate in sums.items():
            # Where it is now, else where it was, if that is one place.
            found = places.get(key, ())
            addr, end = found[0] if len(found) == 1 else (None, None)
            yield summed(fate._replace(addr=addr, end=end), key in firsts, key in seconds)


def empty(side: Opened, vma: int, pid: int) -> Fate:
    """Return the fate of VMA ``vma`` of a side before anything is added."""
    return Fate(side.vmas.name[vma], KINDS[int(side.kinds[vma])].key, pid,
                int(side.vmas.start[vma]), int(side.vmas.end[vma]), 0, 0, 0, 0,
                np.zeros(COUNT, np.int64), np.zeros(COUNT, np.int64))


def only(side: Opened, amounts: Amounts, pid: int, key: str) -> Iterator[Fate]:
    """Yield the fates of a process that one side alone has: all of it is of class ``key``."""
    add = plus if key == "began" else minus
    for vma in np.flatnonzero(some(amounts)).tolist():
        yield add(empty(side, vma, pid), amounts, vma, key)


def some(amounts: Amounts) -> I64:
    """Return what there is at all of each VMA, i64 bytes."""
    found: I64 = amounts.rss + amounts.swap + amounts.hugetlb
    return found


def plus(fate: Fate, amounts: Amounts, vma: int, key: str | None = None) -> Fate:
    """Return ``fate`` with what VMA ``vma`` has now, all of it of class ``key`` (None: of none)."""
    rss, swap, hugetlb = amounts.of(vma)
    if key is not None:
        fate.bytes[CODES[key]] += rss + hugetlb
        fate.rss[CODES[key]] += rss
        fate.bytes[CODES["swapped_out" if key == "grown" else key]] += swap
    return fate._replace(after=fate.after + rss, swap=fate.swap + swap,
                         hugetlb=fate.hugetlb + hugetlb)


def minus(fate: Fate, amounts: Amounts, vma: int, key: str | None = None) -> Fate:
    """Return ``fate`` without what VMA ``vma`` had, all of it of class ``key`` (None: of none)."""
    rss, swap, hugetlb = amounts.of(vma)
    if key is not None:
        fate.bytes[CODES[key]] += rss + hugetlb
        fate.rss[CODES[key]] -= rss
        fate.bytes[CODES["discarded" if key == "unmapped" else key]] += swap
    return fate._replace(before=fate.before + rss, swap=fate.swap - swap,
                         hugetlb=fate.hugetlb - hugetlb)


def names_of(side: Opened) -> set[tuple[str, str]]:
    """Return the kinds and names of all its VMAs."""
    kinds = (KINDS[code].key for code in side.kinds.tolist())
    return set(zip(kinds, side.vmas.name, strict=True))


def summed(fate: Fate, was: bool, is_now: bool) -> Fate:
    """Return a fate whose sums alone are compared, with what is more or less of it.

    ``was`` and ``is_now`` say whether anything with its kind and name was mapped, and is.
    """
    change = fate.after - fate.before
    more = change + fate.hugetlb
    key = CODES["unmapped" if not is_now else "grown" if not was else
                "more" if more > 0 else "less"]
    fate.bytes[key] += abs(more)
    fate.rss[key] += change
    fate.bytes[CODES["swapped_out" if fate.swap > 0 else "discarded"]] += abs(fate.swap)
    fate.bytes[UNCHANGED] += min(fate.before, fate.after)
    return fate
