"""Walk a process: its entries joined with their VMA and frame, or their sums."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator
from typing import Any, Generic, NamedTuple, TypeVar, overload

import numpy as np

from pagewalk.model.columns import (
    I64,
    U64,
    Amounts,
    Backing,
    Leaves,
    Pages,
    State,
    Sums,
    Tells,
    VMAs,
    Withheld,
    join,
    take,
)
from pagewalk.model.errors import BadRequest
from pagewalk.model.ranges import check, holder, intersect
from pagewalk.model.states import hwpoison
from pagewalk.proc.frames import FrameReader
from pagewalk.proc.stall import BUDGET_NS
from pagewalk.sources import Source, close, open_process
from pagewalk.sources.outcome import Outcome
from pagewalk.sources.space import Space
from pagewalk.walking.at_end import look_back
from pagewalk.walking.rows import (
    doubt_rows,
    fill,
    hole_amounts,
    hole_rows,
    join_batches,
    join_frames,
    sum_batches,
    unpopulated,
)
from pagewalk.walking.sums import add_up

# How many leaves have their frames looked up together: neighbours in RAM, which one read returns,
# are far apart in the address space. Their columns take 15 MB.
TOGETHER = 1 << 18
Row = TypeVar("Row", Pages, Sums)

NOT_ASKED = Withheld(
    "pss, uss, distinct, freed and the split by kind", "page frames were not requested",
    partial=False,
)


class Asked(NamedTuple):
    """What a walk is to return: ``ranges`` (u64[k, 2]) of ``vmas``, and whether with ``holes``.

    ``frames`` is the open frame database, None if frames are not wanted or cannot be read; ``look``
    says that they are wanted.
    """

    vmas: VMAs
    ranges: U64
    frames: FrameReader | None
    look: bool
    holes: bool
    page_size: int


class Walk(Generic[Row]):
    """One walk of one process: iterate over it, once, for its Pages or Sums.

    ``vmas`` are those at its start, of which ``covered`` (i64 bytes) are walked: all of them unless
    ranges were given. ``tells`` says what the walk can report; ``outcome`` is complete at its end.
    A walk that opened the process itself then closes it; to stop early, use it as a context
    manager.
    """

    def __init__(
        self,
        source: Source,
        want: type[Row],
        rows: Generator[Row, None, None],
        *,
        vmas: VMAs,
        covered: I64,
        tells: Tells,
        outcome: Outcome,
        owned: bool = False,
    ) -> None:
        self.pid, self.name, self.exe = source.who
        self.source, self.facts = source.name, source.space.facts
        self.want: type[Any] = want
        self.vmas, self.covered, self.tells, self.outcome = vmas, covered, tells, outcome
        self._rows: Generator[Row, None, None] | None = rows
        self._owned = source if owned else None
        self._begun = self._closed = False

    def __iter__(self) -> Iterator[Row]:
        rows, self._rows = self._rows, None
        if rows is None:
            raise BadRequest("this walk is over: it can be iterated over only once")
        return self._run(rows)

    def _run(self, rows: Generator[Row, None, None]) -> Iterator[Row]:
        self._begun = True
        try:
            while True:
                # Its descriptors may be those of another walk by now.
                if self._closed:
                    raise BadRequest("this walk was closed before its end")
                try:
                    row = next(rows)
                except StopIteration:
                    return
                yield row
                del row
        finally:
            rows.close()  # before the descriptors that it reads
            self.close()

    def close(self) -> None:
        """Close what the walk opened and end it; closing it again does nothing."""
        # By a second close the descriptor might have been reused.
        source, self._owned = self._owned, None
        self._rows, self._closed = None, True
        if source is not None:
            close(source)

    def __enter__(self) -> Walk[Row]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_owned", None) is not None and not self._begun:
            warnings.warn(f"walk of process {self.pid} was never consumed: close it",
                          ResourceWarning, source=self, stacklevel=2)
        self.close()


@overload
def walk(
    target: int | Source, want: type[Pages] = ..., *, source: str = ..., frames: bool = ...,
    holes: bool = ..., ranges: U64 | None = ..., budget_ns: int = ...,
) -> Walk[Pages]: ...


@overload
def walk(
    target: int | Source, want: type[Sums], *, source: str = ..., frames: bool = ...,
    holes: bool = ..., ranges: U64 | None = ..., budget_ns: int = ...,
) -> Walk[Sums]: ...


def walk(
    target: int | Source,
    want: type[Any] = Pages,
    *,
    source: str = "auto",
    frames: bool = True,
    holes: bool = False,
    ranges: U64 | None = None,
    budget_ns: int = BUDGET_NS,
) -> Walk[Any]:
    """Return a Walk of process ``target`` (a pid, or a Source opened earlier), to be iterated over.

    ``want`` is Pages, for every page in address order, or Sums. With ``frames=False`` no frames are
    read: bytes by state are reported, and what needs frames is withheld. With ``holes=True`` there
    are also rows for what is not populated. ``ranges`` u64[k, 2] restricts the walk (sorted, half
    open).

    Only the VMAs are read before the iteration. Raises BadTarget, ProcessGone, NotPermitted,
    NoAddressSpace, SourceUnavailable, BadRequest for an invalid ``want`` or invalid ranges; the
    iteration may raise ProcessGone.
    """
    owned = isinstance(target, int)
    opened = open_process(target, source, budget_ns) if isinstance(target, int) else target
    try:
        return begin(opened, want, ranges, frames=frames, holes=holes, owned=owned)
    except BaseException:
        if owned:
            close(opened)
        raise


def begin(
    source: Source, want: type[Row], ranges: U64 | None, *, frames: bool, holes: bool, owned: bool
) -> Walk[Row]:
    # A walk that has read the VMAs and nothing else.
    space = source.space
    if want not in WALKS:
        raise BadRequest(f"a walk returns Pages or Sums, not {want!r}")
    if ranges is not None:
        check(ranges, space.facts.page_size)
    vmas = source.vmas()
    wanted = vmas.ranges if ranges is None else intersect(vmas.ranges, ranges)[0]
    sizes = vmas.size.astype(np.int64) if ranges is None else covered(vmas, wanted)
    tells, outcome = space.tells, source.outcome()
    if not frames:
        tells = tells._replace(frames=False)
        outcome.withheld.append(NOT_ASKED)
    reader = space.frames if frames else None
    asked = Asked(vmas, wanted, reader, frames, holes, space.facts.page_size)
    rows = run(source, asked, outcome, *WALKS[want], whole=ranges is None)
    return Walk(
        source, want, rows, vmas=vmas, covered=sizes, tells=tells, outcome=outcome,
        owned=owned,
    )


def covered(vmas: VMAs, wanted: U64) -> I64:
    # How many bytes of each VMA the walk covers.
    out = np.zeros(len(vmas), np.int64)
    size = (wanted[:, 1] - wanted[:, 0]).astype(np.int64)
    np.add.at(out, holder(wanted[:, 0], vmas.ranges), size)
    return out


def run(
    source: Source,
    asked: Asked,
    outcome: Outcome,
    read: Callable[[Space, Asked, Outcome], Iterator[Row]],
    amounts: Callable[[Row], Pages | Amounts],
    *,
    whole: bool,
) -> Generator[Row, None, None]:
    # The walk proper; what can only be known at its end goes into `outcome`.
    keep_freed_memory()
    doubtful = 0
    for row in read(source.space, asked, outcome):
        here = amounts(row)
        doubtful += int(here.size[here.state == State.DOUBT.value].sum())
        note_hwpoison(asked.vmas, outcome, here)
        yield row
        del row, here  # otherwise they stay in memory while the next ones are made
    if not whole:
        outcome.page_tables = None
    if doubtful:
        outcome.withheld.append(
            Withheld(
                f"{doubtful} bytes",
                "malformed page-table entries, still malformed when read again: the tables changed"
                " during the walk, or are corrupt; pages --where doubt lists them",
                partial=True,
            )
        )
    if source.live is not None:
        look_back(source.live, asked.vmas, outcome)
    else:
        outcome.done = True


def note_hwpoison(vmas: VMAs, outcome: Outcome, batch: Pages | Amounts) -> None:
    rows = np.flatnonzero(batch.state == State.POISONED.value)
    if len(rows):
        rows = rows[hwpoison(batch.flags[rows])]
        vma = batch.vma[rows]
        outcome.hwpoison.update(vma[vmas.backing[vma] != Backing.HUGETLB.value].tolist())


def keep_freed_memory() -> None:
    # glibc returns a batch's memory to the kernel after each batch, and faulting it in again takes
    # a third of a walk. Its threshold follows the largest block freed: free an untouched one.
    np.empty(31 << 20, np.uint8)


def summed(space: Space, asked: Asked, outcome: Outcome) -> Iterator[Sums]:
    # Rows with the same sums. Small pieces are combined before their frames are looked up.
    if not asked.holes:
        yield from parts(space, asked, outcome)
        return
    left = covered(asked.vmas, asked.ranges)
    for sums in parts(space, asked, outcome):
        np.subtract.at(left, sums.amounts.vma, sums.amounts.size.astype(np.int64))
        yield sums
    row = np.flatnonzero(left > 0)
    if len(row):
        nothing = np.zeros(len(row), np.uint8)
        state = np.full(len(row), State.ABSENT.value, np.uint8)
        size = left[row].astype(np.uint64)
        yield Sums(Amounts(row, state, nothing, nothing.astype(np.uint32), size))


def parts(space: Space, asked: Asked, outcome: Outcome) -> Iterator[Sums]:
    waiting: list[Leaves] = []
    unframed: list[Amounts] = []  # a row or two each
    for part in space.sums(asked.vmas, asked.ranges, frames=asked.look):
        if part.page_tables is not None:
            outcome.page_tables = part.page_tables
        entries, (amounts, shared) = part.entries, part.sums
        if amounts.kflags is not None or len(shared):
            yield part.sums
        elif len(amounts):
            unframed.append(amounts)
        if len(entries.holes):
            unframed.append(hole_amounts(asked.vmas, entries.holes))
        if len(entries.doubts):
            yield from add_up(doubt_rows(asked.vmas, entries.doubts), asked.page_size)
        if len(entries.leaves):
            waiting.append(entries.leaves)
        if sum(map(len, waiting)) >= TOGETHER:
            yield from sum_waiting(space, asked, waiting)
            waiting = []
        if sum(map(len, unframed)) >= TOGETHER:
            yield Sums(join(unframed))
            unframed = []
    if waiting:
        yield from sum_waiting(space, asked, waiting)
    if unframed:
        yield Sums(join(unframed))


def sum_waiting(space: Space, asked: Asked, waiting: list[Leaves]) -> Iterator[Sums]:
    if space.tells.tables:  # they are unordered
        leaves = join(waiting)
        waiting = [take(leaves, np.argsort(leaves.addr, kind="stable"))]
    return sum_batches(asked.vmas, waiting, asked.frames, asked.page_size)


def paged(space: Space, asked: Asked, outcome: Outcome) -> Iterator[Pages]:
    # Every page, in address order.
    if space.tells.tables:
        return table_pages(space, asked)
    return filled(space, asked) if asked.holes else leaf_pages(space, asked)


def leaf_pages(space: Space, asked: Asked) -> Iterator[Pages]:
    # Batches of the populated leaves.
    waiting: list[Leaves] = []
    for entries in space.entries(asked.vmas, asked.ranges, frames=asked.look):
        waiting.append(entries.leaves)
        if sum(map(len, waiting)) >= TOGETHER:
            yield from join_batches(asked.vmas, waiting, asked.frames, asked.page_size)
            waiting = []
    if waiting:
        yield from join_batches(asked.vmas, waiting, asked.frames, asked.page_size)


def table_pages(space: Space, asked: Asked) -> Iterator[Pages]:
    # Batches that have rows for holes and doubts too; in order only if holes are wanted.
    vmas = asked.vmas
    for entries in space.entries(vmas, asked.ranges, frames=asked.look):
        rows = []
        if len(entries.leaves):
            rows.append(join_frames(vmas, entries.leaves, asked.frames, asked.page_size))
        if len(entries.holes):
            rows.append(hole_rows(vmas, entries.holes))
        if len(entries.doubts):
            rows.append(doubt_rows(vmas, entries.doubts))
        if not asked.holes:
            yield from rows
        elif rows:
            every = join(rows)
            yield take(every, np.argsort(every.addr, kind="stable"))


def filled(space: Space, asked: Asked) -> Iterator[Pages]:
    # Batches with ABSENT rows between the leaves, for a source that cannot tell holes apart.
    at, vmas = 0, asked.vmas
    for pages in leaf_pages(space, asked):
        if len(pages):
            end = int(pages.addr[-1] + pages.size[-1])
            yield fill(vmas, pages, at, end, asked.ranges)
            at = end
    none = np.zeros(0, np.uint64)
    rest = unpopulated(vmas, none, none, none.astype(np.uint8))
    rest = fill(vmas, rest, at, 1 << 64, asked.ranges)
    if len(rest):
        yield rest


# What a walk may return: how it is read, and the amounts of a row.
WALKS: dict[type[Any], tuple[Callable[..., Any], Callable[..., Any]]] = {
    Pages: (paged, lambda pages: pages),
    Sums: (summed, lambda sums: sums.amounts),
}
