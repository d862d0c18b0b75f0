"""Record one process: walked once, its pages into the file as runs, and all else it told."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pagewalk.account.huge import FolioLook, Kept
from pagewalk.account.rollup import missing, rollup_of
from pagewalk.account.smaps import SwapUsers
from pagewalk.account.swap_users import count_swap_users
from pagewalk.account.table import Table, tabulate
from pagewalk.account.totals import Totals, add, no_totals
from pagewalk.history.process_documents import HUGE, SWAP, asked_for, users_of
from pagewalk.history.record_rows import found_of, page_rows, scrubbed, vma_rows
from pagewalk.model.columns import U64, Pages, State, Sums, Withheld, take
from pagewalk.model.errors import PagewalkError, ProcessGone
from pagewalk.model.states import maybe_repeated
from pagewalk.proc.counters import read_pmap
from pagewalk.snapshot.documents import to_text
from pagewalk.snapshot.renumber import Renumbering
from pagewalk.snapshot.runs import pages_of, runs_of
from pagewalk.snapshot.write import Writer
from pagewalk.sources import Source
from pagewalk.sources.found import Found
from pagewalk.sources.recorded import PROCESS
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


@dataclass(eq=False)
class Common:
    """What the processes of one recording have in common while they are recorded.

    ``numbering`` gives frames their numbers, None if they keep theirs; ``second`` does what need
    not be waited for; ``withheld`` is what could not be found out, in order.
    """

    writer: Writer
    how: How
    numbering: Renumbering | None
    second: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    withheld: dict[Withheld, None] = field(default_factory=dict)
    _swap_users: SwapUsers | None = None

    def swap_users(self, slots: U64, source: str) -> SwapUsers | None:
        """Return who uses the swap ``slots`` of a process; None if that was not asked for.

        Who has none needs to ask nobody.
        """
        if not len(slots):
            return SwapUsers(slots, slots, None)
        if self.how.swap_users and self._swap_users is None:
            self._swap_users = count_swap_users(source)
        return None if self._swap_users is None else users_of(slots, self._swap_users)


class SpaceRecorder:
    """One address space while it is recorded."""

    def __init__(self, common: Common, source: Source, pid: int) -> None:
        self.common, self.source, self.pid = common, source, pid
        self.page_size = source.space.facts.page_size
        self.slots = [np.zeros(0, np.uint64)]  # of swap

    def run(self) -> Table:
        """Walk it, write its rows and its documents, and return its Table."""
        source, files = self.source, ("smaps", "smaps_rollup") if self.common.how.smaps else ()
        before = source.theirs()
        walked = walk(source, Pages, holes=True)
        so_far = no_totals(len(walked.vmas))
        folios = FolioLook(walked, source.space.frames)
        added: Future[None] | None = None
        for pages in walked:
            folios.add(pages)
            if added is not None:
                added.result()
            added = self.common.second.submit(self.add, pages, so_far, walked)
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
        self.common.writer.add("vma", vma_rows(self.pid, table, scrub=self.common.how.scrub))
        self.add_documents(found, folios.finish(table))
        return table

    def add_documents(self, found: Found, folios: Kept) -> None:
        """Add what was found out besides pages, and what the user asked for besides."""
        how = self.common.how
        texts = {PROCESS: to_text(scrubbed(found) if how.scrub else found), HUGE: to_text(folios)}
        users = self.common.swap_users(np.concatenate(self.slots), self.source.name)
        if users is not None:
            texts[SWAP] = to_text(users)
        for name, make in asked_for(heap=how.heap, cache=how.cache, scrub=how.scrub):
            try:
                texts[name] = make(self.source)
            except ProcessGone:
                raise
            except PagewalkError as error:
                what = f"{name} of process {self.pid}"
                self.common.withheld[Withheld(what, str(error), partial=True)] = None
        self.common.writer.add("document", {
            "pid": [self.pid] * len(texts), "name": list(texts), "text": list(texts.values())})

    def add(self, pages: Pages, so_far: Totals, walked: Walk[Any]) -> None:
        # Sums are of the same runs that are written: a page is looked at once.
        swapped = pages.state == State.SWAPPED.value
        if pages.pfn is not None and swapped.any():
            self.slots.append(pages.pfn[swapped])
        numbering = self.common.numbering
        if numbering is not None:
            pages = numbering.pages(pages, self.page_size)
        runs = runs_of(pages, self.page_size)
        amounts = amounts_of(runs)
        add(so_far, Sums(amounts), walked.facts)
        if runs.pfn is not None and runs.mapcount is not None:
            for some in pieces(take(runs, maybe_repeated(amounts))):
                for shared in shared_rows(pages_of(some), self.page_size):
                    add(so_far, Sums(shared=shared), walked.facts)
        self.common.writer.add("page", page_rows(self.pid, runs))
