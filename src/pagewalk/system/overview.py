"""The first screen: all of RAM, and the largest processes, both looked at for a bounded time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pagewalk.model.columns import Withheld, partial
from pagewalk.model.errors import NotPermitted, PagewalkError, SourceUnavailable
from pagewalk.model.frames import Frames
from pagewalk.proc.chosen import Chosen, Wanted, choose
from pagewalk.proc.processes import Process
from pagewalk.proc.totals import Totals
from pagewalk.sources.ram import RamSource, open_counters, open_ram
from pagewalk.system.look import Ram, look_at_ram
from pagewalk.system.members import Looked, total_each
from pagewalk.system.processes import LiveProcesses, Processes
from pagewalk.system.recorded_processes import RecordedProcesses

# Seconds of CPU time that frames are counted: a busy machine does not change that. 24 GB with 4 GB
# of page cache take a quarter of it.
COUNTED = 2.0
# Seconds that processes are walked, many together. A very large one, or one that is unusual, needs
# a walk of its own: those have so much more.
LONGEST, OWN = 1.0, 0.5

FRAMES = "what each frame is used for"
UNSEEN = f"{FRAMES}, and what processes hold"
NO_RAM = Ram("recording", None, None, {}, [], None, Totals(None, None, None, ()), (
    Withheld(FRAMES, "the recording was made without --ram"),))
Clock = Callable[[], float]


class Row(NamedTuple):
    """A process, as Process has it; ``rss`` as in statm and the others None if it was not walked.

    Bytes, None where withheld.
    """

    pid: int
    rss: int | None
    uss: int | None
    pss: int | None
    swap: int | None
    name: str
    argv0: str
    uid: int
    script: str
    command: str


class Overview(NamedTuple):
    """All of RAM, and ``rows``: the processes by RSS, an address space that was walked once.

    ``looked`` are those that were walked, None if none could be. ``left`` are those that time did
    not suffice for. ``recorded`` says whether all of it is of a recording.
    """

    ram: Ram
    rows: tuple[Row, ...]
    looked: Looked | None
    left: tuple[Process, ...]
    withheld: tuple[Withheld, ...]
    recorded: bool = False

    @property
    def partial(self) -> list[str]:
        """Return what rights or a race took away."""
        return partial(self.withheld)


class TakesLong(Exception):
    """RAM is so large that counting its frames takes longer than ``seconds`` of CPU time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"{seconds:g} s of CPU time do not suffice to look at all of RAM")


class InTime(RamSource):
    """All of RAM, whose frames are only counted for ``seconds`` of CPU time."""

    seconds = COUNTED

    def frames(self) -> Iterator[Frames]:
        """Yield all frames; raises TakesLong."""
        end = time.process_time() + self.seconds
        for frames in super().frames():
            yield frames
            if time.process_time() > end:
                raise TakesLong(self.seconds)


def open_overview(counted: float | None = None) -> RamSource:
    """Return all of RAM from kernel memory; where that cannot be read, what the kernel counts.

    Its frames are counted for ``counted`` seconds of CPU time at most, by default for COUNTED.
    """
    source = open_ram(kernel=True)
    if source.running is not None:
        found = InTime(*source)
        found.seconds = COUNTED if counted is None else counted
        return found
    return source._replace(notes=tuple(row._replace(what=UNSEEN) for row in source.notes))


def look_at_overview(
    source: RamSource, chosen: Sequence[Chosen], budget_ns: int, clock: Clock = time.monotonic
) -> Overview:
    """Return all of RAM, and the processes ``chosen``, those walked that have the largest RSS.

    None is walked where ``source`` is what the kernel counts, and none is begun LONGEST and OWN
    seconds after the first, as ``clock`` says. Raises BadText.
    """
    ram = ram_in_time(source)
    if source.running is None or not chosen:
        rest = tuple(row_of(one.process) for one in by_rss(chosen))
        return Overview(ram, rest, None, (), ram.withheld)
    return with_processes(ram, chosen, LiveProcesses(budget_ns=budget_ns), clock)


def look_at_recorded(ram: Ram | None, where: RecordedProcesses) -> Overview:
    """Return what of ``ram`` and of processes was recorded: either, or both."""
    if ram is not None and not where.some:
        return Overview(ram, (), None, (), ram.withheld)
    chosen = choose(Wanted(everyone=True), where.listed())
    return with_processes(ram or NO_RAM, chosen, where, lambda: 0.0)


def by_rss(chosen: Sequence[Chosen]) -> list[Chosen]:
    return sorted(chosen, key=lambda one: -one.process.rss)


def with_processes(
    ram: Ram, chosen: Sequence[Chosen], where: Processes, clock: Clock
) -> Overview:
    """Return ``ram`` and the processes ``chosen`` of ``where``; see look_at_overview."""
    chosen = by_rss(chosen)
    rest = tuple(row_of(one.process) for one in chosen)
    begun = clock()
    try:
        looked = total_each(chosen, where, lambda: clock() > begun + LONGEST + OWN,
                            lambda: clock() > begun + LONGEST)
    except PagewalkError as error:
        unseen = Withheld("what processes hold", str(error), partial=True)
        return Overview(ram, rest, None, (), (*ram.withheld, unseen))
    walked = {pid: rank for rank, one in enumerate(looked.members) for pid in one.pids}
    tried = {*walked, *looked.tried.gone, *(pid for pid, _ in looked.tried.not_looked)}
    left = tuple(one.process for one in chosen if one.process.pid not in tried)
    told = dict.fromkeys(row for row in (*ram.withheld, *looked.tried.withheld)
                         if row.what != "freed")
    return Overview(ram, tuple(rows_of(chosen, looked)), looked, left, tuple(told), where.recorded)


def ram_in_time(source: RamSource) -> Ram:
    """Return what RAM is used for; what the kernel counts if that takes long, or is refused."""
    try:
        return look_at_ram(source)
    except TakesLong as error:
        why = Withheld(FRAMES, f"{error}; pagewalk ram does")
    except (SourceUnavailable, NotPermitted) as error:
        why = Withheld(FRAMES, str(error), partial=True)
    return look_at_ram(open_counters(why))


def rows_of(chosen: Sequence[Chosen], looked: Looked) -> Iterator[Row]:
    """Yield a row for each address space that was walked, and for each process that was not."""
    members = {pid: one for one in looked.members for pid in one.pids}
    for one in chosen:
        process, member = one.process, members.get(one.process.pid)
        if member is None and process.pid not in looked.tried.gone:
            yield row_of(process)
        elif member is not None and process.pid == member.pids[0]:
            amounts = member.amounts
            yield row_of(process)._replace(rss=amounts["rss"], uss=amounts["uss"],
                                           pss=amounts["pss"], swap=amounts["swap"])


def row_of(process: Process) -> Row:
    return Row(process.pid, process.rss, None, None, None, process.name, process.argv0, process.uid,
               process.script, process.command)
