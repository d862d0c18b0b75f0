"""Record processes: each walked once, its pages into a file as runs, and all else it told."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

from pagewalk.account.huge import FolioLook, Kept
from pagewalk.account.rollup import missing, rollup_of
from pagewalk.account.smaps import SwapUsers
from pagewalk.account.swap_users import count_swap_users
from pagewalk.account.table import Table, tabulate
from pagewalk.account.totals import Totals, add, no_totals
from pagewalk.history.besides import HUGE, SWAP, asked_for, users_of
from pagewalk.history.hidden import Hidden
from pagewalk.history.machine_rows import Counted, counted_group
from pagewalk.history.record_groups import add_group
from pagewalk.history.record_ram import Added, add_document, add_ram, add_rows
from pagewalk.history.record_rows import found_of, page_rows, process_rows, scrubbed, vma_rows
from pagewalk.history.record_set import SetSoFar
from pagewalk.model.columns import U64, Pages, State, Sums, Withheld, take
from pagewalk.model.errors import PagewalkError, ProcessGone
from pagewalk.model.facts import Facts
from pagewalk.model.states import maybe_repeated
from pagewalk.proc.chosen import Chosen
from pagewalk.proc.counters import read_pmap
from pagewalk.proc.freeze import frozen
from pagewalk.proc.host import read_host
from pagewalk.snapshot.documents import to_text
from pagewalk.snapshot.places import written
from pagewalk.snapshot.renumber import Renumbering
from pagewalk.snapshot.runs import pages_of, runs_of
from pagewalk.snapshot.schema import VERSION, Meta
from pagewalk.snapshot.write import Writer
from pagewalk.sources import Source, close, open_listed
from pagewalk.sources.doctor import summary
from pagewalk.sources.found import Found
from pagewalk.sources.ram import open_counters
from pagewalk.sources.recorded import PROCESS
from pagewalk.system.processes import LiveProcesses
from pagewalk.walking.recorded import amounts_of, pieces
from pagewalk.walking.sums import shared_rows
from pagewalk.walking.walk import MALFORMED, Walk, walk


class How(NamedTuple):
    """How processes are recorded.

    ``source`` and ``budget_ns`` are as for a walk. ``physical``: with the true numbers of frames.
    ``scrub``: without paths and command lines, and without the names of files, cgroups, containers
    and users. ``smaps``: with the kernel's smaps, whose reading holds the lock of the process.
    ``heap``: with what its allocator holds, read from its memory; ``cache``: with what is in RAM of
    the files that it maps; ``swap_users``: with who uses its swap slots, for which every process of
    the machine that uses swap is walked. ``freeze``: each is stopped while it is recorded, and
    resumed whatever happens.
    """

    source: str = "auto"
    budget_ns: int = 5_000_000
    physical: bool = False
    scrub: bool = False
    smaps: bool = False
    heap: bool = False
    cache: bool = False
    swap_users: bool = False
    freeze: bool = False


class Beside(NamedTuple):
    """What is recorded beside processes: the cgroups at ``groups``; all of RAM and all cgroups.

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


NOTHING = Beside()


class Made(NamedTuple):
    """What was recorded: ``processes`` address spaces, which had ``present`` bytes in RAM.

    ``size`` is that of the file in bytes, ``took_ns`` how long it took, ``stall_ns`` the longest
    read that may have held a lock of one, ``stopped_ns`` for how long one was stopped at most, None
    if none was to be. ``not_looked`` are those that could not be recorded, by pid, and why;
    ``gone`` those that had ended. ``beside`` is what else was recorded, in words.
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
    beside: tuple[str, ...] = ()
    stopped_ns: int | None = None


def record(
    path: str, chosen: Sequence[Chosen], what: str, how: How, reason: str = "",
    beside: Beside = NOTHING,
) -> Made:
    """Record the processes of ``chosen`` into ``path``, which is replaced when all is written.

    ``what`` says in words what they are. Raises OSError, and if none could be recorded, why the
    first could not; PackageMissing.
    """
    with written(path) as out:
        made = record_to(out, chosen, what, how, reason, beside)
        size = out.tell()
    return made._replace(path=path, size=size)


def record_to(
    out: Any, chosen: Sequence[Chosen], what: str, how: How, reason: str, beside: Beside = NOTHING
) -> Made:
    """Record the processes of ``chosen`` into the open file ``out``; see record."""
    began, clock = time.time_ns(), time.perf_counter_ns()
    uptime = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    together = SetSoFar(chosen, LiveProcesses(how.source, how.budget_ns))
    session = Session(Writer(out), how, together)
    try:
        with session.second:
            session.all_of(chosen, beside)
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
        self.writer, self.how, self.together = writer, how, together
        self.numbering = None if how.physical else Renumbering()
        self.refused: dict[int, PagewalkError] = {}
        self.withheld: dict[Withheld, None] = {}
        self.walked = self.present = self.stall_ns = self.stopped_ns = 0
        self.began = time.perf_counter_ns()
        self.facts: Facts | None = None  # of the kernel, from the first source
        self.hidden = Hidden(physical=how.physical, scrub=how.scrub)
        self.beside: list[str] = []
        self.second = ThreadPoolExecutor(1)  # what need not be waited for
        self.failed: list[Exception] = []
        self._swap_users: SwapUsers | None = None

    def swap_users(self, slots: U64, source: str) -> SwapUsers | None:
        """Return who uses the swap ``slots`` of a process; None if that was not asked for.

        Who has none needs to ask nobody.
        """
        if not len(slots):
            return SwapUsers(slots, slots, None)
        if self.how.swap_users and self._swap_users is None:
            self._swap_users = count_swap_users(source)
        return None if self._swap_users is None else users_of(slots, self._swap_users)

    def all_of(self, chosen: Sequence[Chosen], beside: Beside) -> None:
        """Record the processes of ``chosen``, and ``beside``; raises what record raises."""
        machine = self.second.submit(summary)
        for name, value in beside.documents:
            add_document(self.writer, name, value)
        if beside.counted is not None:
            add_rows(self.writer, {"group": [counted_group(beside.counted, self.hidden)]})
        self.groups(beside)
        by_pid = {one.process.pid: one for one in chosen}
        for pids in self.together.groups:
            self.process([by_pid[pid] for pid in pids])
        self.ram(beside)
        failed = [*self.refused.values(), *self.failed]
        if not self.walked and not self.beside and failed and not beside.alone:
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
                found = SpaceRecorder(self, source, pid).run()
        except PagewalkError as error:
            self.refused[pid] = error
            return
        finally:
            close(source)
        self.walked += 1
        self.present += found.totals["present"] or 0
        self.stall_ns = max(self.stall_ns, found.outcome.stall.longest_ns)
        self.withheld |= dict.fromkeys(found.outcome.withheld)
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

    def groups(self, beside: Beside) -> None:
        """Record what the cgroups of ``beside`` are charged for."""
        for path in beside.groups:
            try:
                self.note(add_group(
                    self.writer, path, self.how.source, self.how.budget_ns, self.hidden,
                    once=beside.once, listed=beside.ram))
            except (OSError, PagewalkError) as error:
                self.failed.append(error)
                what = f"what cgroup {path} is charged for"
                self.withheld[Withheld(what, str(error), partial=True)] = None

    def ram(self, beside: Beside) -> None:
        """Record all of RAM and all cgroups, if ``beside`` says so."""
        if beside.ram:
            self.note(add_ram(self.writer, self.how.source, self.hidden,
                             physical=self.how.physical))

    def note(self, added: Added) -> None:
        """Note what was recorded beside processes."""
        self.facts = self.facts or added.facts
        self.beside += added.words
        self.withheld |= dict.fromkeys(added.withheld)

    def made(self) -> Made:
        """Return what was recorded."""
        gone = tuple(pid for pid, error in self.refused.items() if isinstance(error, ProcessGone))
        not_looked = tuple((pid, str(error)) for pid, error in self.refused.items()
                           if pid not in gone)
        return Made("", self.walked, self.present, 0,
                    time.perf_counter_ns() - self.began, self.stall_ns, not_looked, gone,
                    tuple(self.withheld), tuple(self.beside),
                    self.stopped_ns if self.how.freeze else None)


class SpaceRecorder:
    """One address space while it is recorded."""

    def __init__(self, session: Session, source: Source, pid: int) -> None:
        self.session, self.source, self.pid = session, source, pid
        self.page_size = source.space.facts.page_size
        self.slots = [np.zeros(0, np.uint64)]  # of swap

    def run(self) -> Table:
        """Walk it, write its rows and its document, and return its Table."""
        source, files = self.source, ("smaps", "smaps_rollup") if self.session.how.smaps else ()
        before = source.theirs()
        walked = walk(source, Pages, holes=True)
        so_far = no_totals(len(walked.vmas))
        folios = FolioLook(walked, source.space.frames)
        added: Future[None] | None = None
        for pages in walked:
            folios.add(pages)
            if added is not None:
                added.result()
            added = self.session.second.submit(self.add, pages, so_far, walked)
        if added is not None:
            added.result()
        told = tuple(row for row in walked.outcome.withheld if row.why != MALFORMED)
        after = source.theirs(*files)
        if files:
            after = after._replace(pmap=read_pmap(self.source.who.pid))
        table = tabulate(walked, so_far)
        if not files and missing(table):
            after = after._replace(rollup=rollup_of(table, source))
        found = found_of(self.source, walked, told, (before, after))
        self.session.writer.add("vma", vma_rows(
            self.pid, table, scrub=self.session.how.scrub))
        self.add_documents(found, folios.finish(table))
        return table

    def add_documents(self, found: Found, folios: Kept) -> None:
        """Add what was found out besides pages, and what the user asked for besides."""
        how = self.session.how
        texts = {PROCESS: to_text(scrubbed(found) if how.scrub else found), HUGE: to_text(folios)}
        users = self.session.swap_users(np.concatenate(self.slots), self.source.name)
        if users is not None:
            texts[SWAP] = to_text(users)
        for name, make in asked_for(heap=how.heap, cache=how.cache, scrub=how.scrub):
            try:
                texts[name] = make(self.source)
            except ProcessGone:
                raise
            except PagewalkError as error:
                what = f"{name} of process {self.pid}"
                self.session.withheld[Withheld(what, str(error), partial=True)] = None
        self.session.writer.add("document", {
            "pid": [self.pid] * len(texts), "name": list(texts), "text": list(texts.values())})

    def add(self, pages: Pages, so_far: Totals, walked: Walk[Any]) -> None:
        # Sums are of the same runs that are written: a page is looked at once.
        swapped = pages.state == State.SWAPPED.value
        if pages.pfn is not None and swapped.any():
            self.slots.append(pages.pfn[swapped])
        numbering = self.session.numbering
        if numbering is not None:
            pages = numbering.pages(pages, self.page_size)
        runs = runs_of(pages, self.page_size)
        amounts = amounts_of(runs)
        add(so_far, Sums(amounts), walked.facts)
        if runs.pfn is not None and runs.mapcount is not None:
            for some in pieces(take(runs, maybe_repeated(amounts))):
                for shared in shared_rows(pages_of(some), self.page_size):
                    add(so_far, Sums(shared=shared), walked.facts)
        self.session.writer.add("page", page_rows(self.pid, runs))
