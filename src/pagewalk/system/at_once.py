"""What processes hold, many of them walked at once: the totals of a table, and nothing else.

A process on its own takes some milliseconds however small it is; together they take a tenth of
that. Whatever is unusual of one, and whatever changed meanwhile, is left to a walk of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pagewalk.account.totals import PSS_SHIFT, Totals, add, no_totals
from pagewalk.model.columns import I64, Amounts, Backing, Bool, State, Sums, Withheld
from pagewalk.model.errors import PagewalkError
from pagewalk.model.rules import IN_RSS
from pagewalk.proc.swap import swap_in_use
from pagewalk.walking.rows import Asked
from pagewalk.walking.sums import summed

if TYPE_CHECKING:
    from pagewalk.proc.processes import Process
    from pagewalk.sources.crowd import Crowd

# Bytes of RSS that are walked together: the longer it takes, the more processes change meanwhile.
TOGETHER = 1 << 31
READERS = {"auto": "ebpf", "ebpf": "ebpf", "kcore": "kcore"}
# A walk must do without what it needs; it may not stop here.
REFUSALS = (PagewalkError, OSError, LookupError)
# States in which a walk of its own has more to say of a page.
UNUSUAL = np.array([State.DOUBT, State.SOFT, State.POISONED, State.HUGETLB], np.intp)


class AtOnce(NamedTuple):
    """The totals of those that were walked together, by pid, in bytes.

    ``source`` is what they were read from, empty for none; ``notes`` what it does not tell.
    ``stall_ns`` is the longest read that may have held a lock of one of them.
    """

    source: str
    amounts: Mapping[int, Mapping[str, int | None]]
    notes: tuple[Withheld, ...]
    stall_ns: int = 0


NONE_AT_ONCE = AtOnce("", {}, ())


def never() -> bool:
    """Return False: all are to be walked."""
    return False


def amounts_at_once(
    processes: Sequence[Process], source: str, enough: Callable[[], bool] = never
) -> AtOnce:
    """Return the totals, as account.table finds them, of ``processes`` that can be walked together.

    See each_crowd.
    """
    found: dict[int, dict[str, int | None]] = {}

    def visit(crowd: Crowd) -> None:
        found.update(crowd_amounts(crowd))

    return each_crowd(processes, source, visit, enough)._replace(amounts=found)


def each_crowd(
    processes: Sequence[Process], source: str, visit: Callable[[Crowd], None],
    enough: Callable[[], bool] = never,
) -> AtOnce:
    """Let ``visit`` walk those of ``processes`` that ``source`` can read together; see Crowd.

    ``enough`` is called before each walk, and may raise; none is begun once it returns True.
    NONE_AT_ONCE where ``source`` does not read kernel memory; why, it says of one process alone.
    """
    name = READERS.get(source)
    if name is None:
        return NONE_AT_ONCE
    try:
        from pagewalk.sources.crowd import open_crowd
        from pagewalk.sources.readers import running

        kernel = running(name)
    except REFUSALS:
        return NONE_AT_ONCE
    if kernel.frames is None:
        return NONE_AT_ONCE
    for some in batches(processes):
        if enough():
            break
        with suppress(*REFUSALS), open_crowd(
                kernel, [one.pid for one in some], ask=source == "auto") as crowd:
            visit(crowd)
    return NONE_AT_ONCE._replace(source=name, notes=kernel.notes)


def batches(processes: Sequence[Process]) -> Iterator[list[Process]]:
    """Yield those of ``processes`` that are small enough, in lists to be walked together."""
    from pagewalk.sources.crowd import MOST

    waiting: list[Process] = []
    size = 0
    for one in processes:
        if one.rss > TOGETHER:
            continue
        if len(waiting) == MOST or size + one.rss > TOGETHER:
            yield waiting
            waiting, size = [], 0
        waiting.append(one)
        size += one.rss
    if waiting:
        yield waiting


def crowd_amounts(crowd: Crowd) -> dict[int, dict[str, int | None]]:
    so_far = walked(crowd)
    good = crowd.unchanged() & usual(crowd, np.arange(len(crowd.pids)), so_far)
    rss, swap = so_far.state[:, IN_RSS].sum(axis=1), so_far.state[:, State.SWAPPED]
    columns = {"rss": rss, "pss": so_far.pss >> PSS_SHIFT, "uss": so_far.uss, "swap": swap}
    return {
        int(crowd.pids[row]): {name: int(column[row]) for name, column in columns.items()}
        for row in np.flatnonzero(good).tolist()
    }


def walked(crowd: Crowd) -> Totals:
    """Return the sums of a walk of ``crowd``, a row for each of its processes."""

    vmas, so_far = crowd.vmas(), no_totals(len(crowd.pids))
    for sums in summed(Asked(crowd, vmas, vmas.ranges)):
        one = sums.amounts
        add(so_far, Sums(Amounts(crowd.member[one.vma], one.state, one.level, one.flags, one.size,
                                 one.kflags, one.mapcount)), crowd.facts)
    return so_far


def usual(crowd: Crowd, member: I64, so_far: Totals) -> Bool:
    """Return of which processes a walk of their own has nothing else to tell.

    ``member`` says which process each row of ``so_far`` belongs to.
    """
    odd = so_far.state[:, UNUSUAL].sum(axis=1) + so_far.untold + so_far.maybe_zero
    usual = np.ones(len(crowd.pids), bool)
    usual[member[odd != 0]] = False
    if swap_in_use():  # swapped pages of shmem are in no page table
        usual[crowd.member[crowd.theirs.backing == Backing.SHMEM.value]] = False
    return usual
