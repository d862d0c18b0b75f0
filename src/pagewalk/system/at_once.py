"""What processes hold, many of them walked at once: the totals of a table, and nothing else.

A process on its own takes some milliseconds however small it is; together they take a tenth of
that. Whatever is unusual of one, and whatever changed meanwhile, is left to a walk of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pagewalk.account.totals import PSS_SHIFT, Totals, add, no_totals
from pagewalk.model.columns import Amounts, Backing, Bool, State, Sums, Withheld
from pagewalk.model.errors import PagewalkError
from pagewalk.model.rules import IN_RSS
from pagewalk.proc.swap import swap_in_use
from pagewalk.walking.rows import Asked
from pagewalk.walking.sums import summed

if TYPE_CHECKING:
    from pagewalk.kernel.running import RunningKernel
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
    """The totals of those that were walked together, by pid: rss, pss, uss and swap, in bytes.

    ``source`` is what they were read from, empty for none; ``notes`` what it does not tell.
    """

    source: str
    amounts: dict[int, dict[str, int | None]]
    notes: tuple[Withheld, ...]


NONE_AT_ONCE = AtOnce("", {}, ())


def amounts_at_once(
    processes: Sequence[Process], source: str, enough: Callable[[], bool] = lambda: False
) -> AtOnce:
    """Return the totals, as account.table finds them, of ``processes`` that can be walked together.

    ``enough`` is called before each walk, and may raise; none is begun once it returns True.
    NONE_AT_ONCE where ``source`` does not read kernel memory.
    """
    name = READERS.get(source)
    if name is None:
        return NONE_AT_ONCE
    try:
        from pagewalk.sources.readers import running

        kernel = running(name)
    except REFUSALS:
        return NONE_AT_ONCE
    if kernel.frames is None:
        return NONE_AT_ONCE
    found: dict[int, dict[str, int | None]] = {}
    for some in batches(processes):
        if enough():
            break
        with suppress(*REFUSALS):
            found |= batch_amounts(kernel, some, ask=source == "auto")
    return AtOnce(name, found, kernel.notes)


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


def batch_amounts(
    running: RunningKernel, processes: Sequence[Process], *, ask: bool
) -> dict[int, dict[str, int | None]]:
    from pagewalk.sources.crowd import open_crowd

    pids = [one.pid for one in processes]
    with open_crowd(running, pids, ask=ask) as crowd:
        so_far = walked(crowd)
        good = crowd.unchanged() & usual(crowd, so_far)
    rss, swap = so_far.state[:, IN_RSS].sum(axis=1), so_far.state[:, State.SWAPPED]
    columns = {"rss": rss, "pss": so_far.pss >> PSS_SHIFT, "uss": so_far.uss, "swap": swap}
    return {
        int(crowd.pids[row]): {name: int(column[row]) for name, column in columns.items()}
        for row in np.flatnonzero(good).tolist()
    }


def walked(crowd: Crowd) -> Totals:
    """Return the sums of a walk of ``crowd``, a row for each of its processes."""
    from pagewalk.proc.stall import Stall
    from pagewalk.sources.outcome import Outcome

    vmas, so_far = crowd.vmas(), no_totals(len(crowd.pids))
    for sums in summed(Asked(crowd, vmas, vmas.ranges), Outcome(Stall())):
        one = sums.amounts
        add(so_far, Sums(Amounts(crowd.member[one.vma], one.state, one.level, one.flags, one.size,
                                 one.kflags, one.mapcount)), crowd.facts)
    return so_far


def usual(crowd: Crowd, so_far: Totals) -> Bool:
    """Return of which processes a walk of their own has nothing else to tell."""
    usual: Bool = so_far.state[:, UNUSUAL].sum(axis=1) + so_far.untold + so_far.maybe_zero == 0
    if swap_in_use():  # swapped pages of shmem are in no page table
        usual[crowd.member[crowd.theirs.backing == Backing.SHMEM.value]] = False
    return usual
