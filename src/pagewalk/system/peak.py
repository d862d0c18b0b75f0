"""The most that a set of processes ever held: the kernel keeps it of each, and of a cgroup."""

from __future__ import annotations

from collections.abc import Callable
from os.path import commonpath
from typing import NamedTuple

from pagewalk.account.table import Table
from pagewalk.model.columns import Withheld
from pagewalk.model.errors import PagewalkError
from pagewalk.model.facts import Facts
from pagewalk.proc.cgroup_numbers import FILES, read_numbers
from pagewalk.proc.cgroup_search import pids_below
from pagewalk.proc.cgroups import Hierarchy, find_hierarchy, group_of
from pagewalk.proc.counters import Theirs, lag
from pagewalk.sources import Source

COUNTERS = 3  # that RSS is the sum of: anonymous, file and shared memory
AT_MOST, CHARGED = "the peak, at most", "the peak of their cgroup"


class Highest(NamedTuple):
    """VmHWM of all members, added up, in bytes, and by how much that may be too little.

    Both None for the reason ``why``.
    """

    added: int | None = 0
    off: int | None = 0
    why: Withheld | None = None

    def and_of(self, source: Source, table: Table) -> Highest:
        """Return the same with one more member, which was just walked."""
        if self.why is not None:
            return self
        if table.totals["hugetlb"]:
            pid = table.walk.pid
            return self.without(f"process {pid} maps hugetlb pages, which VmHWM does not count")
        return self.and_said(source.theirs, table.walk.facts)

    def and_said(self, read: Callable[[], Theirs], facts: Facts) -> Highest:
        """Return the same with one more member, without hugetlb pages, of which ``read`` tells."""
        if self.why is not None:
            return self
        try:
            theirs = read()
        except PagewalkError as error:
            return self.without(str(error))
        assert self.added is not None and self.off is not None
        # The kernel compares an approximate RSS with what was the highest (update_hiwater_rss,
        # include/linux/mm.h), before anything is unmapped.
        off = lag(theirs, facts, COUNTERS, always=True)
        return Highest(self.added + theirs.status["VmHWM"], self.off + off)

    def without(self, why: str) -> Highest:
        """Return that it is not known."""
        return Highest(None, None, Withheld(AT_MOST, why))


class Peak(NamedTuple):
    """The most that the members of a set ever held together, in bytes; None where withheld.

    ``at_least`` is the most that was seen; ``at_most`` the sum of ``highest``: these address spaces
    never held more together, hugetlb pages that are no longer mapped excepted. ``charged`` is the
    most that ``group`` was ever charged, where its processes are those of the set and no others:
    page cache, kernel memory and processes that have ended included.
    """

    at_least: int | None
    highest: Highest
    group: str | None
    charged: int | None
    withheld: tuple[Withheld, ...]

    @property
    def at_most(self) -> int | None:
        """Return VmHWM of all, and by how much that may be too little."""
        added, off, _ = self.highest
        return None if added is None or off is None else added + off

    def since(self, before: Peak | None) -> Peak:
        """Return the same with what was seen ``before``."""
        if before is None or before.at_least is None or self.at_least is None:
            return self
        return self._replace(at_least=max(self.at_least, before.at_least))


class Charged(NamedTuple):
    """The cgroup that has some processes and no others, and the most that it was ever charged.

    Both None for the reason ``why``.
    """

    group: str | None
    peak: int | None
    why: Withheld | None


def peak_of(held: int | None, highest: Highest, charged: Charged) -> Peak:
    """Return the peak of processes that hold ``held`` bytes now."""
    group, most, why = charged
    return Peak(held, highest, group, most, tuple(filter(None, (highest.why, why))))


def of_their_group(pids: frozenset[int]) -> Charged:
    """Return what the cgroup was charged that has ``pids`` and no other processes."""
    if not pids:
        return Charged(None, None, Withheld(CHARGED, "there is no process, and so no cgroup"))
    try:
        hierarchy = find_hierarchy()
        paths = {group_of(pid, hierarchy) or "" for pid in pids}
        group = commonpath(paths) if all(path.startswith("/") for path in paths) else ""
        why = other_than(pids, hierarchy, group)
        peak = read_numbers(hierarchy, group).peak if not why else None
    except PagewalkError as error:
        return Charged(None, None, Withheld(CHARGED, str(error)))
    if why or peak is None:
        since = " (Linux 5.19 or later)" if hierarchy.version == 2 else ""
        none = f"{group} has no {FILES[hierarchy.version]['peak']}{since}"
        return Charged(None, None, Withheld(CHARGED, why or none))
    return Charged(group, peak, None)


def other_than(pids: frozenset[int], hierarchy: Hierarchy, group: str) -> str:
    """Return why ``pids`` are not the processes of ``group``; empty if they are."""
    if group in ("", "/", hierarchy.root):
        return "they are not in a cgroup of their own"
    others = len({*pids_below(hierarchy, group)} - pids)
    return f"{group} has {others} other process{'es' * (others > 1)}" if others else ""
