"""Walk a process: join a source's leaves with their VMA and their frame, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from pagewalk.flags import KPF
from pagewalk.pages import (
    I64,
    LEVEL_SHIFT,
    U8,
    U32,
    U64,
    Backing,
    Bool,
    Counts,
    Flag,
    Holes,
    Leaves,
    Pages,
    State,
    VMAs,
    Withheld,
    alike,
    join,
    take,
)
from pagewalk.proc import counters, kernel, swap
from pagewalk.proc.frames import FrameReader
from pagewalk.proc.pagemap import PAGE
from pagewalk.proc.stall import BUDGET_NS, Stall
from pagewalk.proc.target import Target, open_target
from pagewalk.ranges import gaps, holder, intersect
from pagewalk.scan import Doubts
from pagewalk.sources import Source, open_source
from pagewalk.states import classify

HUGETLB = np.uint64(1 << KPF["huge"])

# So many leaves have their frames looked up at once: neighbours in RAM, which one read gets, lie
# far apart in the address space. Their columns take 30 MB.
TOGETHER = 1 << 19

# smaps holds the lock for a whole VMA, at about 19 ms a GiB: below this much RSS its VmFlags may
# be read from a running process without leaving the budget.
SMALL_RSS = 128 << 20

VM_LOCKED = 0x2000  # include/linux/mm.h

# What a hole is, by the level at which its walk ended.
HOLE_STATES = np.full(6, State.NOT_MAPPED, np.uint8)
HOLE_STATES[:2] = State.ABSENT, State.EMPTY


@dataclass(slots=True)
class Outcome:
    """What a walk found out beside its pages; complete once its batches have been consumed.

    ``shmem_swap`` i64 bytes in swap of the shmem object under each VMA, ``locked`` a mask of the
    VM_LOCKED VMAs; ``None`` where withheld. ``soft_is_swap`` says that software entries of
    withheld kind (no PFNs) are all known to be swap.
    """

    stall: Stall
    withheld: list[Withheld] = field(default_factory=list)
    shmem_swap: I64 | None = None
    locked: Bool | None = None
    vm_swap: int | None = None
    done: bool = False

    @property
    def partial(self) -> list[str]:
        """Return why the walk is not all this source could have given; empty if it is."""
        return [f"{row.what}: {row.why}" for row in self.withheld if row.partial]


@dataclass(frozen=True, slots=True)
class Walk:
    """One walk of one process: the VMAs at its start, and the batches to consume, once."""

    pid: int
    name: str
    exe: str | None
    source: str
    arch: str
    page_size: int
    frames: bool
    huge: bool
    tables: bool
    young: bool
    vmas: VMAs
    batches: Iterator[Pages | Counts]
    outcome: Outcome


def walk(
    target: int | Source,
    *,
    source: str = "auto",
    frames: bool = True,
    holes: bool = False,
    ranges: U64 | None = None,
    budget_ns: int = BUDGET_NS,
) -> Walk:
    """Walk process ``target`` (a pid, or a Source opened earlier) and return a Walk.

    With ``frames=False`` no page is looked at one by one: batches are Counts, bytes by state, and
    everything that needs a frame is withheld. With ``holes=True`` the batches also hold rows for
    what is not populated. ``ranges`` u64[k, 2] restricts the walk (sorted, half open).

    Nothing is read before the batches are consumed, but the VMAs. Raises ProcessGone,
    NotPermitted, NoAddressSpace, SourceUnavailable; consuming the batches may raise ProcessGone.
    """
    opened = open_process(target, source, budget_ns) if isinstance(target, int) else target
    try:
        vmas = opened.vmas()
    except BaseException:
        if isinstance(target, int):
            close(opened)
        raise
    wanted = vmas.ranges if ranges is None else intersect(vmas.ranges, ranges)[0]
    outcome = Outcome(opened.stall, list(opened.withheld))
    if not frames:
        outcome.withheld.append(
            Withheld("pss, uss and the split by kind", "frames were not asked for", partial=False)
        )
    batches = run(opened, vmas, wanted, outcome, frames=frames, holes=holes)
    return Walk(
        pid=opened.target.pid,
        name=opened.target.name,
        exe=opened.target.exe,
        source=opened.name,
        arch=kernel.architecture(),
        page_size=PAGE,
        frames=frames and opened.frames is not None,
        huge=opened.huge,
        tables=opened.tables,
        young=opened.frames is not None and opened.frames.young,
        vmas=vmas,
        batches=closing(batches, opened) if isinstance(target, int) else batches,
        outcome=outcome,
    )


def open_process(pid: int, source: str = "auto", budget_ns: int = BUDGET_NS) -> Source:
    """Return process ``pid`` opened by ``source``; rights may be dropped before it is walked.

    The caller gives it back with `close`. Raises what `walk` raises.
    """
    target = open_target(pid)
    try:
        target.keep("maps", "smaps")
        return open_source(source, target, budget_ns)
    except BaseException:
        target.close()
        raise


def close(source: Source) -> None:
    """Give back a source and the target it holds."""
    source.close()
    source.target.close()


def closing(batches: Iterator[Pages | Counts], source: Source) -> Iterator[Pages | Counts]:
    try:
        yield from batches
    finally:
        close(source)


def run(
    source: Source, vmas: VMAs, wanted: U64, outcome: Outcome, *, frames: bool, holes: bool
) -> Iterator[Pages | Counts]:
    # The walk proper; what can only be known at its end goes into `outcome`.
    keep_freed_memory()
    if not frames:
        batches: Iterator[Pages | Counts] = source.counts(vmas)
    elif not source.tables:
        batches = filled(source, vmas, wanted) if holes else leaf_pages(source, vmas, wanted)
    else:
        batches = table_pages(source, vmas, wanted, in_order=holes)
    doubtful = 0
    for batch in batches:
        doubtful += int(batch.size[batch.state == State.DOUBT].sum())
        yield batch
        del batch  # or it stays in memory while the next one is made
    if doubtful:
        outcome.withheld.append(
            Withheld(
                f"{doubtful} bytes",
                "page-table entries that no kernel writes, after reading them again: the tables"
                " changed under the walk, or are broken; pages --where doubt shows them",
                partial=True,
            )
        )
    check_still(source, vmas, outcome)
    outcome.vm_swap = counters.read_status(source.target).get("VmSwap")
    read_shmem_swap(source, vmas, outcome)
    read_locked(source, vmas, outcome)
    outcome.done = True


def keep_freed_memory() -> None:
    # glibc gives a batch's memory back to the kernel after each batch, and to fault it in again
    # costs a third of a walk. Its threshold follows the largest piece freed: free one, untouched.
    np.empty(31 << 20, np.uint8)


def leaf_pages(source: Source, vmas: VMAs, wanted: U64) -> Iterator[Pages]:
    # Batches of what is populated.
    waiting: list[Leaves] = []
    for batch in source.leaves(vmas, wanted):
        waiting.append(batch.leaves)
        if sum(map(len, waiting)) >= TOGETHER:
            yield from join_batches(vmas, waiting, source.frames)
            waiting = []
    if waiting:
        yield from join_batches(vmas, waiting, source.frames)


def table_pages(source: Source, vmas: VMAs, wanted: U64, *, in_order: bool) -> Iterator[Pages]:
    # Batches with a row for each hole and doubt too; sums do not mind their order.
    for batch in source.leaves(vmas, wanted):
        parts = [join_frames(vmas, batch.leaves, source.frames)] if len(batch.leaves) else []
        if len(batch.holes):
            parts.append(hole_rows(vmas, batch.holes))
        if len(batch.doubts):
            parts.append(doubt_rows(vmas, batch.doubts))
        if not in_order:
            yield from parts
        elif parts:
            rows = join(parts)
            yield take(rows, np.argsort(rows.addr, kind="stable"))


def filled(source: Source, vmas: VMAs, wanted: U64) -> Iterator[Pages]:
    # Batches with ABSENT rows between the leaves, for a source that cannot tell holes apart.
    at = 0
    for pages in leaf_pages(source, vmas, wanted):
        if len(pages):
            end = int(pages.addr[-1] + pages.size[-1])
            yield fill(vmas, pages, at, end, wanted)
            at = end
    none = np.zeros(0, np.uint64)
    rest = fill(vmas, unpopulated(vmas, none, none, none.astype(np.uint8)), at, 1 << 64, wanted)
    if len(rest):
        yield rest


def join_frames(vmas: VMAs, leaves: Leaves, frames: FrameReader | None) -> Pages:
    """Return ``leaves`` as Pages: with VMA, state and, where ``frames`` is open, frame columns."""
    return next(join_batches(vmas, [leaves], frames))


def join_batches(
    vmas: VMAs, batches: list[Leaves], frames: FrameReader | None
) -> Iterator[Pages]:
    # join_frames of each of `batches`; their frames are looked up at once.
    pfns = [leaves.pfn for leaves in batches if leaves.pfn is not None]
    if frames is None or len(pfns) < len(batches):
        for leaves in batches:
            yield join_columns(vmas, leaves, None, None)
        return
    flags = np.concatenate([leaves.flags for leaves in batches])
    kflags, mapcount = read_frames(flags, np.concatenate(pfns), frames)
    at = 0
    for leaves in batches:
        here = slice(at, at := at + len(leaves))
        pages = join_columns(vmas, leaves, kflags[here], mapcount[here])
        huge = (pages.size > np.uint64(PAGE)) & (leaves.flags & np.uint32(Flag.PRESENT) != 0)
        rows = np.flatnonzero(huge & (kflags[here] & HUGETLB == 0))  # hugetlb: one count for all
        yield split_huge(pages, rows, frames) if len(rows) else pages


def join_columns(vmas: VMAs, leaves: Leaves, kflags: U64 | None, mapcount: U64 | None) -> Pages:
    vma = vma_rows(vmas, leaves.addr)
    state = states(vmas, vma, leaves.flags, kflags)
    return Pages(
        leaves.addr, leaves.size, vma, state, leaves.flags, leaves.entry, leaves.pfn, kflags,
        mapcount,
    )


def vma_rows(vmas: VMAs, addr: U64) -> I64:
    # The VMA of each address, all inside one and ascending: so only the edges are looked up.
    edges = np.searchsorted(addr, vmas.start)
    return np.repeat(np.arange(len(vmas)), np.diff(edges, append=len(addr)))


def states(vmas: VMAs, vma: I64, flags: U32, kflags: U64 | None) -> U8:
    # The State of each leaf, decided once for neighbours that look alike.
    first = alike(vma, flags, kflags)
    state = classify(
        flags[first], vmas.backing[vma[first]], None if kflags is None else kflags[first]
    )
    return np.repeat(state, np.diff(first, append=len(flags)))


def read_frames(flags: U32, pfn: U64, frames: FrameReader) -> tuple[U64, U64]:
    # Flags and mapcount of the first base page of each present leaf, 0 elsewhere.
    present = flags & np.uint32(Flag.PRESENT) != 0
    once = flags & np.uint32(Flag.EXCLUSIVE) != 0
    if present.all():
        return frames.read(pfn, once)
    kflags, mapcount = np.zeros(len(pfn), np.uint64), np.zeros(len(pfn), np.uint64)
    kflags[present], mapcount[present] = frames.read(pfn[present], once[present])
    return kflags, mapcount


def split_huge(pages: Pages, rows: I64, frames: FrameReader) -> Pages:
    # A huge leaf whose base pages are mapped equally often stays one row; another becomes one row
    # a base page.
    assert pages.pfn is not None and pages.mapcount is not None
    per = (pages.size[rows] // np.uint64(PAGE)).astype(np.int64)
    width = int(per.max())
    pfns = pages.pfn[rows][:, None] + np.arange(width, dtype=np.uint64)
    counts = frames.counts(pfns.ravel().astype(np.uint64)).reshape(len(rows), width)
    pages.mapcount[rows] = counts[:, 0]
    uneven = rows[counts.min(axis=1) != counts.max(axis=1)]
    if len(uneven) == 0:
        return pages
    repeat = np.ones(len(pages), np.int64)
    repeat[uneven] = width
    out = take(pages, np.repeat(np.arange(len(pages)), repeat))
    first = np.cumsum(repeat) - repeat
    index = first[uneven][:, None] + np.arange(width)
    step = np.arange(width, dtype=np.uint64)
    assert out.pfn is not None and out.mapcount is not None
    out.addr[index] += step * np.uint64(PAGE)
    out.pfn[index] += step
    out.size[index] = PAGE
    out.mapcount[index] = counts[np.searchsorted(rows, uneven)]
    return out


def hole_rows(vmas: VMAs, holes: Holes) -> Pages:
    """Return ``holes`` as Pages: EMPTY where a page table exists (level 1), else NOT_MAPPED.

    What the source did not look at (level 0) is ABSENT.
    """
    rows = unpopulated(vmas, holes.addr, holes.size, HOLE_STATES[holes.level])
    rows.flags[:] = holes.level.astype(np.uint32) << np.uint32(LEVEL_SHIFT)
    return rows


def doubt_rows(vmas: VMAs, doubts: Doubts) -> Pages:
    """Return ``doubts`` as Pages in state DOUBT, with the raw entry and its level."""
    state = np.full(len(doubts), State.DOUBT, np.uint8)
    rows = unpopulated(vmas, doubts.addr, doubts.size, state)
    rows.flags[:] = doubts.level.astype(np.uint32) << np.uint32(LEVEL_SHIFT)
    rows.entry[:] = doubts.entry
    return rows


def unpopulated(vmas: VMAs, addr: U64, size: U64, state: U8) -> Pages:
    # Rows without a page, for the ranges [addr, addr + size).
    count = len(addr)
    flags = np.zeros(count, np.uint32)
    entry, pfn, kflags, mapcount = (np.zeros(count, np.uint64) for _ in range(4))
    return Pages(addr, size, holder(addr, vmas.ranges), state, flags, entry, pfn, kflags, mapcount)


def fill(vmas: VMAs, pages: Pages, start: int, end: int, wanted: U64) -> Pages:
    """Return ``pages`` with ABSENT rows for the parts of [``start``, ``end``) none of them covers.

    Only parts inside ``wanted`` and inside a VMA count; no row crosses the edge of a VMA.
    """
    covered = np.stack([pages.addr, pages.addr + pages.size], axis=1)
    free, _, _ = intersect(gaps(covered, start, end), wanted)
    state = np.full(len(free), State.ABSENT, np.uint8)
    rows = unpopulated(vmas, free[:, 0], free[:, 1] - free[:, 0], state)
    if len(free) == 0:
        return pages
    both = join([pages, rows])
    return take(both, np.argsort(both.addr, kind="stable"))


def check_still(source: Source, vmas: VMAs, outcome: Outcome) -> None:
    # The address space must still be there, and be mapped as it was: a walk of one that went away
    # meanwhile looks complete otherwise. Raises ProcessGone.
    now = source.vmas()
    before = set(zip(vmas.start.tolist(), vmas.end.tolist(), strict=True))
    after = set(zip(now.start.tolist(), now.end.tolist(), strict=True))
    if before == after:
        return
    gone = len(before - after) or len(after - before)
    outcome.withheld.append(
        Withheld(
            "a consistent moment",
            f"{gone} VMAs changed while the process was walked; --freeze stops it for the walk",
            partial=True,
        )
    )


def read_shmem_swap(source: Source, vmas: VMAs, outcome: Outcome) -> None:
    # Swapped shmem pages leave no trace in the page tables; only the object knows.
    shmem = np.flatnonzero(vmas.backing == Backing.SHMEM)
    if len(shmem) == 0 or not swap.swap_in_use():
        outcome.shmem_swap = np.zeros(len(vmas), np.int64)
        return
    found = np.zeros(len(vmas), np.int64)
    try:
        for row, swapped in zip(shmem.tolist(), source.shmem_swapped(vmas, shmem), strict=True):
            found[row] = swap.shmem_swap(vmas, row, swapped, partial(populated, source, vmas))
        outcome.shmem_swap = found
    except OSError as err:
        outcome.withheld.append(
            Withheld(
                "swap of shmem",
                f"/proc/PID/map_files and cachestat(2) cannot be used ({err.strerror});"
                " needs CAP_SYS_ADMIN and Linux 6.5, or --source ebpf",
                partial=True,
            )
        )


def populated(source: Source, vmas: VMAs, row: int) -> U64:
    only = np.array([[vmas.start[row], vmas.end[row]]], np.uint64)
    parts = [
        np.stack([batch.leaves.addr, batch.leaves.addr + batch.leaves.size], axis=1)
        for batch in source.leaves(vmas, only)
    ]
    return np.concatenate([np.zeros((0, 2), np.uint64), *parts])


def read_locked(source: Source, vmas: VMAs, outcome: Outcome) -> None:
    # Without vm_flags only smaps tells which VMAs are locked, and it holds the lock for a whole
    # VMA.
    if vmas.flags is not None:
        outcome.locked = vmas.flags & np.uint64(VM_LOCKED) != 0
        return
    target = source.target
    status = counters.read_status(target)
    if status.get("VmLck") == 0:
        outcome.locked = np.zeros(len(vmas), bool)
        return
    if status.get("VmRSS", 0) > SMALL_RSS and target.state() not in "Tt":
        outcome.withheld.append(
            Withheld(
                "locked",
                "only smaps tells which VMAs are locked, and reading it would hold the lock of a"
                " running process this large beyond the budget; --freeze makes it harmless",
                partial=False,
            )
        )
        return
    smaps = counters.read_smaps(target, source.stall)
    locked = dict(zip(smaps.start.tolist(), smaps.has("lo").tolist(), strict=True))
    outcome.locked = np.array([locked.get(start, False) for start in vmas.start.tolist()], bool)


__all__ = ["Outcome", "Target", "Walk", "fill", "walk"]
