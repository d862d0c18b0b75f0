"""Record processes, cgroups and all of RAM into one file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, NamedTuple

from pagewalk.history.hidden import Hidden
from pagewalk.history.machine_rows import Counted, counted_group
from pagewalk.history.record_groups import add_group
from pagewalk.history.record_ram import Added, add_document, add_ram, add_rows
from pagewalk.history.record_rows import process_rows
from pagewalk.history.record_set import SetSoFar
from pagewalk.history.record_space import Common, How, SpaceRecorder
from pagewalk.model.columns import Withheld
from pagewalk.model.errors import PagewalkError, ProcessGone
from pagewalk.model.facts import Facts
from pagewalk.proc.chosen import Chosen
from pagewalk.proc.freeze import frozen
from pagewalk.proc.host import read_host
from pagewalk.snapshot.places import written
from pagewalk.snapshot.renumber import Renumbering
from pagewalk.snapshot.schema import VERSION, Meta
from pagewalk.snapshot.write import Writer
from pagewalk.sources import Source, close, open_listed
from pagewalk.sources.doctor import summary
from pagewalk.sources.ram import open_counters
from pagewalk.system.processes import LiveProcesses


class Extras(NamedTuple):
    """What is recorded besides processes: the cgroups at ``groups``; all of RAM and all cgroups.

    ``once``: each cgroup is looked at once only, which is quickest; of ``counted`` only what the
    kernel counts is known. ``documents`` are typed results that belong to no process, by name.
    ``alone``: it is a recording even without a process.
    """

    groups: tuple[str, ...] = ()
    ram: bool = False
    once: bool = False
    counted: Counted | None = None
    documents: tuple[tuple[str, Any], ...] = ()
    alone: bool = False


NOTHING = Extras()


class Made(NamedTuple):
    """What was recorded: ``processes`` address spaces, which had ``present`` bytes in RAM.

    ``size`` is that of the file in bytes, ``took_ns`` how long it took, ``stall_ns`` the longest
    read that may have held a lock of one, ``stopped_ns`` for how long one was stopped at most, None
    if none was to be. ``not_looked`` are those that could not be recorded, by pid, and why;
    ``gone`` those that had ended. ``extras`` is what else was recorded, in words.
    """

    path: str
    processes: int
    present: int
    size: int
    took_ns: int
    stall_ns: int
    not_looked: tuple[tuple[int, str], ...]
    gone: tuple[int, ...]
    withheld: tuple[Withheld, ...]
    extras: tuple[str, ...] = ()
    stopped_ns: int | None = None


def record(
    path: str, chosen: Sequence[Chosen], what: str, how: How, reason: str = "",
    extras: Extras = NOTHING,
) -> Made:
    """Record the processes of ``chosen`` into ``path``, which is replaced when all is written.

    ``what`` says in words what they are. Raises OSError, and if none could be recorded, why the
    first could not; PackageMissing.
    """
    with written(path) as out:
        made = record_to(out, chosen, what, how, reason, extras)
        size = out.tell()
    return made._replace(path=path, size=size)


def record_to(
    out: Any, chosen: Sequence[Chosen], what: str, how: How, reason: str,
    extras: Extras = NOTHING,
) -> Made:
    """Record the processes of ``chosen`` into the open file ``out``; see record."""
    began, clock = time.time_ns(), time.perf_counter_ns()
    uptime = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    together = SetSoFar(chosen, LiveProcesses(how.source, how.budget_ns))
    session = Session(Writer(out), how, together)
    try:
        with session.common.second:
            session.all_of(chosen, extras)
        host = read_host()
        meta = Meta(
            VERSION, version("pagewalk"), began, time.perf_counter_ns() - clock, host.name,
            host.boot, host.kernel, how.physical, how.scrub, what, reason, uptime,
            len(session.made().not_looked),
        )
        session.writer.close(meta, session.facts or open_counters().facts)
    except BaseException:
        session.writer.abandon()
        raise
    return session.made()


class Session:
    """One recording while it is made: what was walked so far, and what could not be."""

    def __init__(self, writer: Writer, how: How, together: SetSoFar) -> None:
        self.common = Common(writer, how, None if how.physical else Renumbering())
        self.writer, self.how, self.together = writer, how, together
        self.refused: dict[int, PagewalkError] = {}
        self.walked = self.present = self.stall_ns = self.stopped_ns = 0
        self.began = time.perf_counter_ns()
        self.facts: Facts | None = None  # of the kernel, from the first source
        self.hidden = Hidden(physical=how.physical, scrub=how.scrub)
        self.extras: list[str] = []
        self.failed: list[Exception] = []

    def all_of(self, chosen: Sequence[Chosen], extras: Extras) -> None:
        """Record the processes of ``chosen``, and ``extras``; raises what record raises."""
        machine = self.common.second.submit(summary)
        for name, value in extras.documents:
            add_document(self.writer, name, value)
        if extras.counted is not None:
            add_rows(self.writer, {"group": [counted_group(extras.counted, self.hidden)]})
        self.groups(extras)
        by_pid = {one.process.pid: one for one in chosen}
        for pids in self.together.groups:
            self.process([by_pid[pid] for pid in pids])
        self.ram(extras)
        failed = [*self.refused.values(), *self.failed]
        if not self.walked and not self.extras and failed and not extras.alone:
            raise failed[0]
        if self.walked or self.refused:
            self.writer.add("document", self.together.row(
                machine.result(), self.refused, scrub=self.how.scrub))

    def process(self, group: Sequence[Chosen]) -> None:
        """Record one address space, that of all processes in ``group``; note why it failed.

        What was written of it before it ended stays in the file without a row of a process, which
        readers start from.
        """
        pid = group[0].process.pid
        try:
            source = open_listed(pid, self.how.source, self.how.budget_ns)
        except PagewalkError as error:
            self.refused[pid] = error
            return
        self.facts = self.facts or source.space.facts
        try:
            with self.held(source):
                found = SpaceRecorder(self.common, source, pid).run()
        except PagewalkError as error:
            self.refused[pid] = error
            return
        finally:
            close(source)
        self.walked += 1
        self.present += found.totals["present"] or 0
        self.stall_ns = max(self.stall_ns, found.outcome.stall.longest_ns)
        self.common.withheld |= dict.fromkeys(found.outcome.withheld)
        rows = process_rows(group, found, scrub=self.how.scrub)
        self.writer.add("process", rows)
        self.together.add(rows["pid"], rows["uid"], source.name, found)

    @contextmanager
    def held(self, source: Source) -> Iterator[None]:
        """Stop the process of ``source`` during the block, if that was asked for."""
        if not self.how.freeze or source.live is None:
            yield
            return
        began, stopped = time.perf_counter_ns(), False
        try:
            with frozen(source.live.target) as stopped:
                yield
        finally:
            if stopped:
                self.stopped_ns = max(self.stopped_ns, time.perf_counter_ns() - began)

    def groups(self, extras: Extras) -> None:
        """Record what the cgroups of ``extras`` are charged for."""
        for path in extras.groups:
            try:
                self.note(add_group(
                    self.writer, path, self.how, self.hidden, once=extras.once, listed=extras.ram))
            except (OSError, PagewalkError) as error:
                self.failed.append(error)
                what = f"what cgroup {path} is charged for"
                self.common.withheld[Withheld(what, str(error), partial=True)] = None

    def ram(self, extras: Extras) -> None:
        """Record all of RAM and all cgroups, if ``extras`` says so."""
        if extras.ram:
            self.note(add_ram(self.writer, self.how.source, self.hidden,
                             physical=self.how.physical))

    def note(self, added: Added) -> None:
        """Note what was recorded besides processes."""
        self.facts = self.facts or added.facts
        self.extras += added.words
        self.common.withheld |= dict.fromkeys(added.withheld)

    def made(self) -> Made:
        """Return what was recorded."""
        gone = tuple(pid for pid, error in self.refused.items() if isinstance(error, ProcessGone))
        not_looked = tuple((pid, str(error)) for pid, error in self.refused.items()
                           if pid not in gone)
        return Made("", self.walked, self.present, 0,
                    time.perf_counter_ns() - self.began, self.stall_ns, not_looked, gone,
                    tuple(self.common.withheld), tuple(self.extras),
                    self.stopped_ns if self.how.freeze else None)
