"""The two sides of a diff: a recording, or processes as they are now."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from pagewalk.account.groups import kinds_of
from pagewalk.account.table import tabulate
from pagewalk.account.totals import add, no_totals
from pagewalk.history.diff import Moment
from pagewalk.history.matching import Member
from pagewalk.history.record_rows import started
from pagewalk.model.columns import I64, Pages, Sums, Tells, VMAs, Withheld
from pagewalk.model.errors import in_a_line
from pagewalk.model.facts import Facts
from pagewalk.proc.chosen import Chosen
from pagewalk.proc.freeze import frozen
from pagewalk.proc.host import read_host
from pagewalk.snapshot.read import Recording
from pagewalk.snapshot.runs import Runs, runs_of
from pagewalk.sources import Source, close, open_listed
from pagewalk.sources.recorded import find_document, open_in
from pagewalk.system.recorded_processes import SET, RecordedSet
from pagewalk.system.signs import signs
from pagewalk.walking.recorded import amounts_of
from pagewalk.walking.walk import walk

MEMBERS = ("pid", "mm", "started", "name", "program", "command", "rss", "swap", "hugetlb")


class RecordedSide:
    """A recording: see diff.Side."""

    def __init__(self, recording: Recording) -> None:
        self.recording, self.facts = recording, recording.facts
        meta = recording.meta
        self.moment = Moment(recording.path, meta.time, meta.host, meta.boot, meta.kernel,
                             meta.physical)
        self.withheld: list[Withheld] = []
        self.poison = False  # whether Rss counts pages lost to a memory error, as far as is known

    def open(self, member: Member) -> OpenedRecorded:
        """Open the address space of process ``member``; raises BadRecording."""
        space = OpenedRecorded(open_in(self.recording, member.pid))
        self.poison |= space.poison
        return space

    def rss(self, member: Member) -> int | None:
        """Return its RSS as it was recorded, None if it was withheld."""
        return member.rss

    def members(self) -> list[Member]:
        """Return its processes, one for each address space; raises BadRecording."""
        found: dict[int, Member] = {}
        for part in self.recording.parts("process", MEMBERS):
            numbers = [part.table.column(name).to_pylist() for name in ("rss", "swap", "hugetlb")]
            rows = zip(part.needed("pid").tolist(), part.needed("mm").tolist(),
                       part.table.column("started").to_pylist(), part.texts("name"),
                       part.texts("program"), part.texts("command"), *numbers, strict=True)
            for pid, mm, began, name, program, command, *amounts in rows:
                if pid == mm:
                    found[pid] = Member(pid, began, name or "", program or "", command or "",
                                        *amounts)
        return [found[pid] for pid in sorted(found)]

    def note_unread(self) -> None:
        """Note that processes are missing that could not be recorded; raises BadRecording."""
        told: RecordedSet | None = find_document(self.recording, None, SET, RecordedSet)
        if told is not None and told.refused:
            first = told.refused[0]
            self.withheld.append(Withheld(
                f"some processes of {in_a_line(self.moment.what)}", f"{len(told.refused)} could not"
                f" be recorded; process {first.pid}: {first.error}", partial=True))


class OpenedRecorded:
    """An address space of a recording: see parts.Opened."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.vmas: VMAs = source.vmas()
        self.kinds: I64 = kinds_of(self.vmas, *signs(source, self.vmas))
        self.tells: Tells = source.found.tells
        self.poison = bool(source.found.counts_hwpoison)

    def runs(self) -> Iterator[Runs]:
        """Yield its pages as runs."""
        yield from self.source.space.runs()

    def close(self) -> None:
        """Keep the recording open: it has other processes."""


class LiveSide:
    """Processes as they are now, after those of ``before``: see diff.Side.

    With ``freeze`` each is stopped while it is walked; ``stopped_ns`` says for how long at most.
    """

    def __init__(
        self, source: str, budget_ns: int, before: RecordedSide, *, freeze: bool = False
    ) -> None:
        host = read_host()
        self.source, self.budget_ns, self.before = source, budget_ns, before
        self.facts: Facts = before.facts  # its own once a process was opened
        self.moment = Moment("now", time.time_ns(), host.name, host.boot, host.kernel, True, True)
        self.withheld: list[Withheld] = []
        self.said: dict[int, int | None] = {}
        self.freeze, self.stall_ns, self.stopped_ns = freeze, 0, 0

    def open(self, member: Member) -> OpenedLive:
        """Open the address space of process ``member``; raises PagewalkError."""
        source = open_listed(member.pid, self.source, self.budget_ns)
        self.facts = source.space.facts
        with ExitStack() as held:
            held.callback(close, source)
            if self.freeze:
                held.enter_context(self.stopped(source))
            space = OpenedLive(self, source, member.pid)
            space.held = held.pop_all()
        return space

    @contextmanager
    def stopped(self, source: Source) -> Iterator[None]:
        """Stop the process of ``source`` during the block, and note for how long."""
        assert source.live is not None
        began, ours = time.monotonic_ns(), False
        try:
            with frozen(source.live.target) as ours:
                yield
        finally:
            if ours:
                self.stopped_ns = max(self.stopped_ns, time.monotonic_ns() - began)

    def rss(self, member: Member) -> int | None:
        """Return its RSS as the walk added it up, None if that was withheld."""
        return self.said[member.pid]


class OpenedLive:
    """The address space of a live process: see parts.Opened."""

    def __init__(self, side: LiveSide, source: Source, pid: int) -> None:
        self.side, self.source, self.pid = side, source, pid
        self.held = ExitStack()  # what its end ends
        self.walked = walk(source, Pages)
        self.vmas, self.tells = self.walked.vmas, self.walked.tells
        self.kinds: I64 = kinds_of(self.vmas, *signs(source, self.vmas))
        self.poison = side.before.poison

    def runs(self) -> Iterator[Runs]:
        """Yield its pages as runs, as the walk finds them."""
        so_far, walked = no_totals(len(self.vmas)), self.walked
        for pages in walked:
            runs = runs_of(pages, self.side.facts.page_size)
            add(so_far, Sums(amounts_of(runs)), walked.facts)
            yield runs
        table, side = tabulate(walked, so_far), self.side
        side.said[self.pid] = table.totals["rss"]
        side.withheld += [row for row in walked.outcome.withheld if row.partial]
        side.stall_ns = max(side.stall_ns, walked.outcome.stall.longest_ns)

    def close(self) -> None:
        """Close what was opened for it, and let the process go on."""
        self.held.close()


def live_members(chosen: Sequence[Chosen]) -> list[Member]:
    """Return the live processes of ``chosen``, as a recording would call them."""
    return [Member(one.process.pid, started(one.process.pid), one.process.name,
                   one.process.script or one.process.argv0, one.process.command)
            for one in chosen]
