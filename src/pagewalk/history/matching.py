"""What of two recordings corresponds: processes with processes, and VMAs with VMAs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np

from pagewalk.history.merging import Sections
from pagewalk.model.columns import I64, Backing, Bool, VMAs
from pagewalk.model.ranges import intersect

# Within a process an address means the same in both; in two processes only a place in a file does.
BY_PLACE = (Backing.FILE, Backing.SHMEM, Backing.HUGETLB)


class Member(NamedTuple):
    """A process of a recording, or a live one: one for each address space, the lowest pid.

    ``started`` is nanoseconds since boot, None if that is not known; ``program`` and ``command``
    are empty if they were scrubbed. ``rss``, ``swap`` and ``hugetlb`` are bytes, None if withheld.
    """

    pid: int
    started: int | None
    name: str
    program: str
    command: str
    rss: int | None = None
    swap: int | None = None
    hugetlb: int | None = None

    @property
    def called(self) -> str:
        """Return what people call it."""
        return self.program.rpartition("/")[2] or self.name


class Pair(NamedTuple):
    """A process before and after; ``same``: it is the very same one, so that addresses compare."""

    before: Member
    after: Member
    same: bool


class Matched(NamedTuple):
    """The processes that are in both, and those that are only in one."""

    pairs: tuple[Pair, ...]
    ended: tuple[Member, ...]
    began: tuple[Member, ...]


# What two processes have in common, the surest first; an empty answer is none.
ALIKE: tuple[Callable[[Member], Hashable], ...] = (
    lambda one: (one.program, one.command) if one.command else None,
    lambda one: one.program or None,
    lambda one: one.name or None,
)


def is_same(before: Member, after: Member, same_boot: bool) -> bool:
    """Return whether both are one process: a pid that was used again was started later."""
    return (same_boot and before.pid == after.pid and before.started is not None
            and before.started == after.started)


def match(before: Sequence[Member], after: Sequence[Member], same_boot: bool) -> Matched:
    """Return which of ``before`` is which of ``after``.

    The very same process; else the only one left on each side that was started by the same words,
    has the same program, or the same name, in this order.
    """
    old, new = {one.pid: one for one in before}, {one.pid: one for one in after}
    pairs = [Pair(one, new[pid], True) for pid, one in old.items()
             if pid in new and is_same(one, new[pid], same_boot)]
    for pair in pairs:
        del old[pair.before.pid], new[pair.after.pid]
    for key in ALIKE:
        firsts, seconds = only(old.values(), key), only(new.values(), key)
        for alike in firsts.keys() & seconds.keys():
            pair = Pair(firsts[alike], seconds[alike], False)
            pairs.append(pair)
            del old[pair.before.pid], new[pair.after.pid]
    pairs.sort(key=lambda pair: pair.after.pid)
    return Matched(tuple(pairs), tuple(old.values()), tuple(new.values()))


def only(members: object, key: Callable[[Member], Hashable]) -> dict[Hashable, Member]:
    # Those that nobody else is like.
    found: dict[Hashable, list[Member]] = {}
    for one in members:  # type: ignore[attr-defined]
        if key(one) is not None:
            found.setdefault(key(one), []).append(one)
    return {alike: ones[0] for alike, ones in found.items() if len(ones) == 1}


def same_addresses(before: VMAs, after: VMAs) -> Sections:
    """Return what is mapped at the same address in both, and is the same mapping.

    Anonymous memory at the same address is taken for the same: nothing tells it from memory that
    was unmapped and mapped again.
    """
    pieces, one, other = intersect(before.ranges, after.ranges)
    keep = same_mapping(before, one, after, other)
    low, size = pieces[keep, 0], pieces[keep, 1] - pieces[keep, 0]
    return Sections(low, low, size, one[keep], other[keep])


def same_mapping(before: VMAs, one: I64, after: VMAs, other: I64) -> Bool:
    """Return whether the rows ``one`` and ``other``, pair by pair, map the same there.

    That is anonymous memory, or the same part of the same file.
    """
    same: Bool = before.backing[one] == after.backing[other]
    anon = before.backing[one] == Backing.ANON.value
    same_file = (before.dev[one] == after.dev[other]) & (before.inode[one] == after.inode[other])
    # Where the file would begin, were it mapped from there on.
    same_file &= (before.offset[one] - before.start[one]
                  == after.offset[other] - after.start[other])
    same &= anon | same_file
    return same


def same_places(before: VMAs, after: VMAs, same_boot: bool) -> Sections:
    """Return what maps the same part of the same file in two processes.

    The n-th mapping of it in the one is the n-th in the other. Those that would not be in the same
    order are left out, so that both can be read from their beginning to their end.
    """
    firsts, seconds = by_place(before, same_boot), by_place(after, same_boot)
    pairs = [(a, b) for key, rows in firsts.items() for a, b in zip(
        rows, seconds.get(key, ()), strict=False)]
    pairs = in_order(sorted(pairs))
    one, other = (np.array([pair[at] for pair in pairs], np.int64) for at in (0, 1))
    size = np.minimum(before.size[one], after.size[other])
    return Sections(before.start[one], after.start[other], size, one, other)


def by_place(vmas: VMAs, same_boot: bool) -> dict[tuple[object, ...], list[int]]:
    # Rows of VMAs by what they map: a name, or on one machine, if there is none, an inode.
    found: dict[tuple[object, ...], list[int]] = {}
    columns = (vmas.backing, vmas.perms, vmas.offset, vmas.dev, vmas.inode)
    rows = zip(*(column.tolist() for column in columns), vmas.name, strict=True)
    for row, (backing, perms, offset, dev, inode, name) in enumerate(rows):
        if backing not in BY_PLACE or not (name or same_boot):
            continue
        which = (name,) if name else (dev, inode)
        found.setdefault((backing, perms, offset, *which), []).append(row)
    return found


def in_order(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the most of ``pairs``, sorted by their first, that ascend in their second too."""
    ends: list[int] = []  # the least second that a chain of each length ends with
    last: list[int] = []  # the pair that it ends with
    came_from: list[int] = []
    for at, (_, second) in enumerate(pairs):
        length = bisect_left(ends, second)
        came_from.append(last[length - 1] if length else -1)
        ends[length : length + 1] = [second]
        last[length : length + 1] = [at]
    chain: list[tuple[int, int]] = []
    at = last[-1] if last else -1
    while at >= 0:
        chain.append(pairs[at])
        at = came_from[at]
    return chain[::-1]
