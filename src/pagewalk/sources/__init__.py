"""What a walk can read from: the Source protocol, and SOURCES by name.

Takes a process by its number, and a budget for how long it may be held up.
Gives its VMAs and page-table entries, whatever they are read from.
Not here: joining entries with frames, and adding up.

To add a source: a file here with an ``open(name, target, budget_ns)`` that returns a Source, and a
row in SOURCES. The contract tests (tests/sources/test_sources.py) take every name.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Protocol

from pagewalk.model.columns import I64, VMAs, Withheld
from pagewalk.model.errors import (
    BadRequest,
    NoAddressSpace,
    PagewalkError,
    ProcessGone,
    SourceUnavailable,
)
from pagewalk.proc.namespace import number_in_proc
from pagewalk.proc.objects import Object
from pagewalk.proc.stall import BUDGET_NS, Stall
from pagewalk.proc.target import Target, open_target
from pagewalk.sources.outcome import Outcome, Who
from pagewalk.sources.space import Space

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pagewalk.kernel.structs.holders import Holder
    from pagewalk.proc.counters import Theirs
    from pagewalk.proc.pagemap import Pagemap
    from pagewalk.proc.smaps import LastSmaps, Smaps
    from pagewalk.sources.found import Found
    from pagewalk.sources.tables import TableSpace

SOURCES = {
    "procfs": "pagewalk.sources.procfs",
    "ebpf": "pagewalk.sources.readers",
    "kcore": "pagewalk.sources.readers",
    "drgn": "pagewalk.sources.readers",
}

# What `auto` tries, best first.
AUTO = ("ebpf", "kcore", "procfs")

# Modules that would be imported after the process was opened. A caller that drops its rights at
# that point may no longer be able to read the checkout, or Python itself.
LATER = (
    "zlib", "pagewalk.account.table", "pagewalk.kernel.programs.condense_pages",
    "pagewalk.kernel.programs.count_tables", "pagewalk.kernel.programs.loops",
    "pagewalk.kernel.structs.holders", "pagewalk.kernel.structs.rmap",
    "pagewalk.kernel.structs.shmem", "pagewalk.snapshot.read", "pagewalk.sources.pieces",
    "pagewalk.sources.recorded",
)


class Live(Protocol):
    """A process that may change, end, or wait for us: what wraps its address space."""

    target: Target
    stall: Stall

    @property
    def space(self) -> Space:
        """Return its address space."""

    def changed(self, vmas: VMAs) -> int:
        """Return how many of ``vmas`` have changed since they were read; raises as vmas() does."""

    def forked(self, vmas: VMAs) -> bool:
        """Return whether the process forked since ``vmas`` were read, as far as can be told.

        Call it after changed().
        """

    def status(self) -> dict[str, int]:
        """Return the amounts of /proc/PID/status in bytes; raises ProcessGone."""

    def smaps(self, rss: int, name: str = "smaps") -> Smaps | None:
        """Return ``smaps`` or ``smaps_rollup`` of the process, which has ``rss`` bytes.

        None if reading it would hold the lock of a running process for longer than the budget.
        Raises NotPermitted, ProcessGone, BadText.
        """

    def shmem_swap(self, vmas: VMAs) -> I64:
        """Return what smaps adds to each VMA's Swap for the shmem object it maps, i64 bytes.

        Raises OSError if that cannot be read.
        """

    @property
    def holder(self) -> Holder | None:
        """Return what ended_by takes of a process, None where it can tell nothing."""

    def ended_by(
        self, keys: list[tuple[int, int]], holders: Sequence[Holder] = ()
    ) -> list[bool | None]:
        """Return whether each unlinked memory object, by (dev, inode), ends with the process.

        With ``holders``, other processes, whether it ends with all of them; None: not known.
        """

    def objects(self, vmas: VMAs) -> tuple[list[tuple[Object, bool | None]], list[Withheld]]:
        """Return the memory objects that the process holds, and why any may be missing.

        Each has whether it ends with the process, None if that is not known. Raises ProcessGone.
        """


class Source(Protocol):
    """One process, opened one way: its address space, and the process itself while it lives.

    ``notes`` is added to what the walk withholds by the code that chose this source.
    """

    name: str
    notes: tuple[Withheld, ...]

    @property
    def space(self) -> Space:
        """Return its address space."""

    @property
    def page_tables(self) -> TableSpace | None:
        """Return the same where it is read from page tables, else None."""

    @property
    def live(self) -> Live | None:
        """Return the process, None if it is only a recording."""

    @property
    def recorded(self) -> Found | None:
        """Return what a recording tells beside its pages, None of a live process."""

    @property
    def pagemap(self) -> Pagemap | None:
        """Return the open pagemap, None where it may not be read."""

    @property
    def who(self) -> Who:
        """Return whose address space it is."""

    def vmas(self) -> VMAs:
        """Return a fresh reading of the VMAs; raises ProcessGone when the memory is gone."""

    def outcome(self) -> Outcome:
        """Return what is known before a walk, and what cannot be known about this process."""

    def theirs(self, *files: str, last: LastSmaps | None = None) -> Theirs:
        """Return the kernel's own numbers; see proc.counters.read_theirs."""

    def close(self) -> None:
        """Close every descriptor except the target's; closing them again does nothing."""


def open_process(pid: int, source: str = "auto", budget_ns: int = BUDGET_NS) -> Source:
    """Return process ``pid`` opened by ``source``; rights may be dropped before it is walked.

    The caller closes it with `close`. Raises whatever `walk` raises, and BadTarget if ``pid`` means
    one process to the caller and another in /proc.
    """
    for name in LATER:
        importlib.import_module(name)
    return open_listed(number_in_proc(pid), source, budget_ns)


def open_listed(number: int, source: str = "auto", budget_ns: int = BUDGET_NS) -> Source:
    """Return the process that /proc lists as ``number``, opened as open_process does."""
    target = open_target(number)
    try:
        target.keep("maps", "smaps")
        return open_source(source, target, budget_ns)
    except BaseException:
        target.close()
        raise


def close(source: Source) -> None:
    """Close a source and the target that it holds."""
    source.close()
    if source.live is not None:
        source.live.target.close()


def open_source(name: str, target: Target, budget_ns: int = BUDGET_NS) -> Source:
    """Return source ``name`` (or the best that works, for ``auto``), opened on ``target``.

    Every file is opened here, so the caller may drop its rights afterwards: the kernel checks
    them at open. Raises SourceUnavailable, NotPermitted, ProcessGone, BadRequest.
    """
    if name == "auto":
        return open_best(target, budget_ns)
    check_name(name)
    source: Source = importlib.import_module(SOURCES[name]).open(name, target, budget_ns)
    return source


def check_name(name: str) -> None:
    """Raise BadRequest if no source is called ``name``."""
    if name not in ("auto", *SOURCES):
        known = ", ".join(("auto", *SOURCES))
        raise BadRequest(f"no source is called '{name}'; there are: {known}")


def open_best(target: Target, budget_ns: int, *, besides: str = "") -> Source:
    """Return the first source of AUTO that works here.

    ``besides`` names one to leave out. A source that cannot be opened is skipped, whatever the
    reason, even a bug of ours: only the target itself can end the search. If none works, the
    refusal of the best one is raised, or that of the last one if it is about the target.

    No security module checks reads of kernel memory. So the kernel is asked first whether we may
    look at this process, and its refusal is respected; an explicitly named source skips this. A
    source that is not the best one says why the best one does not work.
    """
    os.close(target.open("maps"))
    notes: tuple[Withheld, ...] = ()
    best: PagewalkError | None = None
    names = [name for name in AUTO if name != besides]
    for name in names[:-1]:
        try:
            source = open_source(name, target, budget_ns)
        except (ProcessGone, NoAddressSpace):
            raise
        except Exception as fault:
            notes = notes or (Withheld("the best source", refusal(name, fault)),)
            best = best or (fault if isinstance(fault, PagewalkError) else None)
            continue
        source.notes = notes
        return source
    try:
        source = open_source(names[-1], target, budget_ns)
    except SourceUnavailable as last:
        raise best or last from None
    source.notes = notes
    return source


def refusal(name: str, fault: Exception) -> str:
    """Return why source ``name`` could not be opened, in one sentence."""
    if isinstance(fault, PagewalkError):
        return str(fault)
    what = f"{type(fault).__name__}: {fault}" if str(fault) else type(fault).__name__
    return (
        f"source '{name}' failed unexpectedly ({what}); please report this with the"
        f" output of --source {name}"
    )
