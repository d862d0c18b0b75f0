"""Budgets for the memory of a tree of processes: what it holds, and whether that was too much.

A look adds up what the kernel says of each process (proc/tree). What is true of the tree as a whole
is then known exactly, or lies between two bounds: see `bounds`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pagewalk.proc.kcmp import by_memory, same_memory
from pagewalk.proc.stall import Stall
from pagewalk.proc.tree import Holds, merges_pages, read_holds

KIB = 1 << 10  # what the kernel leaves out of PSS, at most, as it writes it in KiB
NEW_WORST = 16  # a worst moment is looked at in detail again when it is worse by one part in these
# What may have a budget, and what people call it.
TITLES = {"uss": "USS", "pss": "PSS", "rss": "RSS", "swap": "swap"}


class Bounds(NamedTuple):
    """An amount in bytes that is at least ``low`` and at most ``high``; exact if they are equal."""

    low: int
    high: int


class Together(NamedTuple):
    """The PSS of the processes that could be read: three parts, in bytes, that add up to it.

    ``alone`` is what a single process maps, their USS added up; ``within`` what several of the tree
    map and nobody else; ``others`` the tree's part of what other processes map too. What is not in
    one of the latter two is in the other: the least of one goes with the most of the other.
    """

    pss: int
    alone: int
    within: Bounds
    others: Bounds


class Look(NamedTuple):
    """What a tree of processes held in the ``took`` seconds that it took to ask, from ``at`` on.

    ``holds`` has one row for each address space; ``amounts`` are those of the tree by the key of
    TITLES, and ``together`` says what of that they share. ``at`` is in seconds since the tree was
    started.
    """

    at: float
    took: float
    holds: tuple[Holds, ...]
    amounts: Mapping[str, Bounds]
    together: Together


def together(holds: Sequence[Holds], uss: Bounds) -> Together:
    """Return what these processes hold alone and share, if all of them have ``uss`` together."""
    known = [one for one in holds if not one.refused]
    pss, alone = total(one.pss for one in known), total(one.uss for one in known)
    # Of what it maps alone or with its like the tree has all of the PSS: the rest is the others'.
    least, most = min(uss.low, pss), min(uss.high, pss)
    return Together(pss, alone, Bounds(least - alone, most - alone),
                    Bounds(pss - most, pss - least))


def bounds(holds: Sequence[Holds], *, alone: bool) -> dict[str, Bounds]:
    """Return what processes with these address spaces hold together, by the key of TITLES.

    ``alone`` says that no process outside of them shares anonymous memory with them: a page that
    several of them map then has its whole size in their PSS. Of a single one all is exact.
    """
    known = [one for one in holds if not one.refused]
    dark = sum(one.rss for one in holds if one.refused)
    pss = total(one.pss for one in known)
    anon = total(one.pss_anon for one in known) if alone else 0
    most_anon = anon + KIB * len(known) if alone else total(one.anon for one in known)
    files = [one.rss - (one.anon or 0) for one in known]
    swap = (max([*(one.swap for one in holds), total(one.swap_pss for one in known)], default=0),
            total(one.swap_most if one.swap_most is not None else one.swap for one in holds))
    if len(holds) == 1 and known:
        return {"uss": exact(known[0].uss), "pss": exact(pss), "rss": exact(known[0].rss),
                "swap": Bounds(*swap)}
    rss = max([pss, anon + max(files, default=0), *(one.rss for one in holds)])
    return {
        "uss": ordered(max(total(one.uss for one in known), anon), pss + KIB * len(known) + dark),
        "pss": ordered(pss, pss + dark),
        "rss": ordered(rss, most_anon + sum(files) + dark),
        "swap": ordered(*swap),
    }


def total(amounts: Iterable[int | None]) -> int:
    return sum(amount or 0 for amount in amounts)


def exact(amount: int | None) -> Bounds:
    return Bounds(amount or 0, amount or 0)


def ordered(low: int, high: int) -> Bounds:
    # The processes are read one after the other; what moved meanwhile is never less than `low`.
    return Bounds(low, max(low, high))


def look_at_tree(pids: Sequence[int], began: float, stall: Stall, *, alone: bool = True) -> Look:
    """Return what the processes that /proc lists as ``pids`` hold together now.

    ``began`` is when time began, as time.monotonic() has it; ``alone`` is as in bounds. Raises
    BadText.
    """
    at = time.monotonic()
    found = [one for pid in pids if (one := read_holds(pid, stall)) is not None]
    if len(found) > 1:
        found = by_address_space(found)
        alone = alone and not maybe_merged(found)
    amounts = bounds(found, alone=alone)
    return Look(at - began, time.monotonic() - at, tuple(found), amounts,
                together(found, amounts["uss"]))


def maybe_merged(holds: Sequence[Holds]) -> bool:
    """Return whether other processes may map anonymous pages of these because KSM merged them."""
    merged = [one.ksm for one in holds if not one.refused]
    return any(merged) or (None in merged and merges_pages())


def by_address_space(holds: Sequence[Holds]) -> list[Holds]:
    """Return one of each that share an address space: after vfork(2) two processes have one.

    Where kcmp(2) may not say, those are taken for one that have the same sizes to the byte.
    """
    by_pid = {one.pid: one for one in holds}
    firsts = [by_pid[pids[0]] for pids in by_memory(by_pid)]
    if same_memory(firsts[0].pid, firsts[0].pid) is not None:
        return firsts
    return list({(one.size, one.peak, one.rss, one.anon): one for one in reversed(firsts)}.values())


class Portion(NamedTuple):
    """A kind of memory, or a mapping, of several processes: bytes, None where withheld."""

    name: str
    uss: int | None
    pss: int | None
    rss: int | None
    swap: int | None


class MadeOf(NamedTuple):
    """What a tree was made of, page by page, ``at`` seconds after it was started.

    ``missing`` says of which processes that is not known, and why.
    """

    at: float
    kinds: tuple[Portion, ...]
    mappings: tuple[Portion, ...]
    missing: tuple[str, ...]


class Worst(NamedTuple):
    """The look at which ``measure`` exceeded its budget most, and how its processes were started.

    ``commands`` are by pid; ``made`` is what there was in detail, None if it was gone by then.
    """

    measure: str
    look: Look
    commands: Mapping[int, str]
    made: MadeOf | None


Describe = Callable[[str, Look], Worst]


@dataclass(eq=False)
class Watched:
    """What was seen of a tree of processes, look by look, beside the ``budgets`` it has, in bytes.

    By measure: ``peaks`` has the look that saw the most, ``most`` the highest bound from above,
    ``worst`` what exceeded the budget, as ``describe`` tells it. ``highest`` is the process with
    the highest VmHWM, which tells of the time between looks too. ``gap`` is the longest time
    between two looks, ``longest`` the longest that one took, in seconds. With a ``base`` all is
    about what is there beyond that look.
    """

    budgets: Mapping[str, int]
    describe: Describe
    looks: int = 0
    last: Look | None = None
    gap: float = 0.0
    longest: float = 0.0
    peaks: dict[str, Look] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    worst: dict[str, Worst] = field(default_factory=dict)
    highest: Holds | None = None
    refused: dict[str, str] = field(default_factory=dict)
    hugetlb: int = 0
    base: Look | None = None

    def add(self, look: Look) -> None:
        """Take account of one more look; one that found no process tells nothing."""
        if not look.holds:
            return
        if self.base is not None:
            look = beyond(look, self.base)
        self.looks += 1
        self.gap = max(self.gap, look.at - (self.last.at if self.last else 0.0))
        self.longest = max(self.longest, look.took)
        self.last = look
        self.hugetlb = max(self.hugetlb, total(one.hugetlb for one in look.holds))
        self.refused |= {f"process {one.pid} ({one.name})": one.refused for one in look.holds
                         if one.refused}
        self.highest = max([*look.holds, *([self.highest] if self.highest else [])],
                           key=lambda one: one.peak)
        for key, amount in look.amounts.items():
            self.most[key] = max(amount.high, self.most.get(key, 0))
            if key not in self.peaks or amount.low > self.peaks[key].amounts[key].low:
                self.peaks[key] = look
                if amount.low > self.budgets.get(key, amount.low):
                    self.keep(key, look)

    def keep(self, key: str, look: Look) -> None:
        """Keep how ``look`` exceeds a budget, if that is much worse than what is kept."""
        before = self.worst.get(key)
        if before is not None and before.made is not None and is_like(
                before.look.amounts[key].low, look.amounts[key].low):
            return
        worst = self.describe(key, look)
        if worst.made is not None or before is None:
            self.worst[key] = worst


def is_like(then: int, now: int) -> bool:
    """Return whether ``now`` is too little worse than ``then`` to be looked at in detail again."""
    return now - then < then // NEW_WORST


def beyond(look: Look, base: Look) -> Look:
    """Return ``look`` less the amounts of ``base``, with the peaks reached since then."""
    before = {one.pid: one.peak for one in base.holds}
    holds = tuple(one if one.peak > before.get(one.pid, 0) else one._replace(peak=0)
                  for one in look.holds)
    amounts = {key: Bounds(max(0, now.low - base.amounts[key].high),
                           max(0, now.high - base.amounts[key].low))
               for key, now in look.amounts.items()}
    return look._replace(holds=holds, amounts=amounts)
