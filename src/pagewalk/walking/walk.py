"""Walk a process: its entries joined with their VMA and frame, or their sums."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator
from typing import Any, Generic, TypeVar, overload

import numpy as np

from pagewalk.model.columns import (
    I64,
    U64,
    Amounts,
    Backing,
    Pages,
    State,
    Sums,
    Tells,
    VMAs,
    Withheld,
    take,
)
from pagewalk.model.errors import BadRequest
from pagewalk.model.ranges import check, intersect
from pagewalk.model.rules import HAS_ENTRY, IS_PRESENT
from pagewalk.model.states import hwpoison
from pagewalk.proc.stall import BUDGET_NS, HEAR
from pagewalk.sources import Source, close, open_process
from pagewalk.sources.outcome import Outcome
from pagewalk.sources.space import Joined
from pagewalk.walking.at_end import look_back
from pagewalk.walking.recorded import recorded_pages, recorded_sums
from pagewalk.walking.rows import Asked, leaf_pages, paged
from pagewalk.walking.sums import summed

Row = TypeVar("Row", Pages, Sums)

NOT_ASKED = Withheld(
    "pss, uss, distinct, freed and the split by kind", "page frames were not requested",
)

MALFORMED = (
    "malformed page-table entries, still malformed when read again: the tables changed during the"
    " walk, or are corrupt; pages --where doubt lists them"
)


class Walk(Generic[Row]):
    """One walk of one process: iterate over it, once, for its Pages or Sums.

    ``vmas`` are those at its start, of which ``covered`` (i64 bytes) are walked: all of them unless
    ranges were given. ``tells`` says what the walk can report; ``outcome`` is complete at its end.
    ``origin`` says where and when it was recorded; None of a live process.
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
        self.origin = source.space.origin if isinstance(source.space, Joined) else None
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

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Return its Pages, or the Amounts of its Sums, as an Arrow stream, a batch at a time.

        Reading it is the walk: it can be done once. What ends a walk early ends the stream with an
        error of whoever reads it. Raises BadRequest, PackageMissing.
        """
        from pagewalk.model.arrow import batch_of, schema_of, stream

        columns = WALKS[self.want][1]
        return stream(schema_of(STREAMED[self.want]), (batch_of(columns(row)) for row in self),
                      requested_schema)

    def __arrow_c_schema__(self) -> Any:
        """Return the schema of the stream, without reading anything; raises PackageMissing."""
        from pagewalk.model.arrow import schema_of

        return schema_of(STREAMED[self.want]).__arrow_c_schema__()

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


def same(pages: Pages) -> Pages:
    return pages


def amounts_of(sums: Sums) -> Amounts:
    return sums.amounts


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
    asked = Asked(space, vmas, wanted, frames, holes)
    tells, outcome = space.tells, source.outcome()
    if not frames:
        tells = tells._replace(frames=False)
        outcome.withheld.append(NOT_ASKED)
    rows = run(source, want, asked, outcome, whole=ranges is None)
    return Walk(
        source, want, rows, vmas=vmas, tells=tells, outcome=outcome, owned=owned,
        covered=vmas.size.astype(np.int64) if ranges is None else asked.covered(),
    )


def run(
    source: Source, want: type[Row], asked: Asked, outcome: Outcome, *, whole: bool
) -> Generator[Row, None, None]:
    # The walk proper; what can only be known at its end goes into `outcome`.
    read, amounts = (RECORDED if isinstance(asked.space, Joined) else WALKS)[want]
    keep_freed_memory()
    doubtful = 0
    hear = heard(source)
    for row in read(asked):
        here = amounts(row)
        if hear:
            hear(here)
        doubtful += int(here.size[here.state == State.DOUBT.value].sum())
        note_hwpoison(asked.vmas, outcome, here)
        yield row
        del row, here  # otherwise they stay in memory while the next ones are made
    tables = source.page_tables
    if not whole:
        outcome.page_tables = None
    elif tables is not None:  # now: looking back walks again, over some
        outcome.page_tables = int(tables.table_sizes.sum())
    if doubtful:
        outcome.withheld.append(
            Withheld(
                f"{doubtful} bytes",
                MALFORMED,
                partial=True,
            )
        )
    if source.live is not None:
        look_back(source.live, asked.vmas, outcome)
    else:
        outcome.done = True


def heard(source: Source) -> Callable[[Pages | Amounts], None] | None:
    # What tells a listener how much of what is in RAM was walked; None if there is none.
    hear = HEAR.get()
    if hear is None or source.live is None:
        return None
    whole, seen = source.live.status().get("VmRSS"), 0

    def tell(batch: Pages | Amounts) -> None:
        nonlocal seen
        seen += int(batch.size[IS_PRESENT[batch.state]].sum())
        hear("walked", seen, whole)

    return tell


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


def populated(asked: Asked) -> Iterator[Pages]:
    """Yield the pages ``asked`` for that have an entry, in address order."""
    if isinstance(asked.space, Joined):
        return (take(pages, HAS_ENTRY[pages.state]) for pages in recorded_pages(asked))
    return leaf_pages(asked)


# What a walk may return: how it is read, and the amounts of a row; RECORDED: from a recording.
WALKS: dict[type[Any], tuple[Callable[..., Any], Callable[..., Any]]] = {
    Pages: (paged, same),
    Sums: (summed, amounts_of),
}
STREAMED: dict[type[Any], type[Pages] | type[Amounts]] = {Pages: Pages, Sums: Amounts}
RECORDED: dict[type[Any], tuple[Callable[..., Any], Callable[..., Any]]] = {
    Pages: (recorded_pages, WALKS[Pages][1]),
    Sums: (recorded_sums, WALKS[Sums][1]),
}
