"""Files that processes map: what of each is mapped, in the page cache besides, and in neither."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from pagewalk.model.bits import kpf
from pagewalk.model.columns import I64, Backing, Bool, Flag, Pages, Rows, State, VMAs, Withheld
from pagewalk.model.errors import BadRequest
from pagewalk.proc.maps import backing_of
from pagewalk.proc.namespace import own_numbers
from pagewalk.proc.page_cache import (
    Cached,
    OpenFile,
    filesystem_of,
    filesystems_of,
    open_mapped,
    open_path,
    read_cached,
    told_of,
    why_not,
)
from pagewalk.sources import Source
from pagewalk.sources.outcome import Outcome, Who
from pagewalk.system.members import Tried, sum_of
from pagewalk.system.processes import LiveProcesses
from pagewalk.system.who import Asked, of_path, users_for, walk_users
from pagewalk.walking.walk import walk

CELLS = 16  # parts that a file is divided into
CELLS_OF_ONE = 32 * CELLS  # if it is the only one
LOOKS = 3  # at a file whose pages come and go meanwhile
KINDS = {Backing.FILE: "file", Backing.SHMEM: "shmem", Backing.HUGETLB: "hugetlb"}
IN_FILE = np.array([state in (State.FILE, State.SHMEM, State.HUGETLB) for state in State])
OWN = np.array([state in (State.ANON, State.HUGETLB) for state in State])
OLD = "only cachestat(2) tells, which came with Linux 6.5"
OVERLAY = "it is on an overlay, and of the file below only mincore(2) can be asked"
MOVED = ("its pages came and went whenever it was looked at, or are mapped from a device without a"
         " page cache (DAX)")


class Cells(Rows):
    """Equal parts of a file in order, i64 bytes: ``size``, and what is ``mapped``, ``cached``.

    ``cached`` is None where it is not known, ``swapped`` also where nothing can be in swap.
    """

    size: I64
    mapped: I64
    cached: I64 | None
    swapped: I64 | None = None


class FileCache(NamedTuple):
    """A file, and what of it is in RAM, in bytes of whole pages; None where withheld, and ``why``.

    ``less`` is why only what is dirty, being written and in swap is withheld.

    ``kind`` is one of KINDS. ``mappings`` of it reach over ``covered`` bytes of address space;
    ``mapped`` is what page tables map of it, each page once, and ``copies`` the private copies of
    pages that were written. ``cached`` is what the page cache has, mapped or not; ``dirty`` what of
    it must be written to the file before it can go, ``writeback`` what is being written;
    ``swapped`` what of shared memory is in swap.
    """

    name: str
    dev: int
    inode: int
    kind: str
    mappings: int
    covered: int
    mapped: int
    copies: int
    size: int | None = None
    cached: int | None = None
    dirty: int | None = None
    writeback: int | None = None
    swapped: int | None = None
    cells: Cells | None = None
    why: str = ""
    less: str = ""

    @property
    def unmapped(self) -> int | None:
        """Return what is in the page cache and not mapped: a minor fault away."""
        return None if self.cached is None else self.cached - self.mapped

    @property
    def absent(self) -> int | None:
        """Return what is neither in RAM nor in swap: only in the file, or never written."""
        in_swap = self.swapped is None and self.kind == "shmem"
        if self.cached is None or self.size is None or in_swap:
            return None
        return self.size - self.cached - (self.swapped or 0)


class CacheLook(NamedTuple):
    """Files and what of them is in RAM, in the order of their first mappings.

    ``who`` is the process that maps them, None if ``asked``, a file, was asked for.
    """

    files: tuple[FileCache, ...]
    source: str
    who: Who | None
    asked: str | None
    stall_ns: int
    withheld: tuple[Withheld, ...]


class Mapped(NamedTuple):
    """Pages of a file that are mapped: runs of them, ascending and apart (i64, half open)."""

    first: I64
    end: I64

    def below(self, pages: I64) -> I64:
        """Return how many of them there are below each of ``pages``."""
        before = np.append(0, np.cumsum(self.end - self.first))
        at = np.searchsorted(self.first, pages)
        end = np.append(0, np.minimum(self.end, 1 << 62))[at]
        found: I64 = before[at] - np.maximum(end - pages, 0)
        return found


def joined(first: I64, end: I64) -> Mapped:
    """Return the union of runs in any order."""
    order = np.argsort(first, kind="stable")
    first, end = first[order], np.maximum.accumulate(end[order])
    begins = np.flatnonzero(first > np.append(-1, end)[:-1])
    return Mapped(first[begins], end[np.append(begins[1:], len(first)) - 1] if len(first) else end)


@dataclass(eq=False)
class Found:
    """A file that is mapped: see FileCache. ``at`` is the range of its first mapping.

    ``mapped`` are pages of ``page`` bytes.
    """

    name: str
    key: tuple[int, int]
    kind: str
    at: tuple[int, int]
    page: int
    mappings: int = 0
    covered: int = 0
    copies: int = 0
    mapped: Mapped = field(default_factory=lambda: joined(*np.zeros((2, 0), np.int64)))

    def add(self, first: I64, end: I64) -> None:
        """Add runs of its pages that are mapped."""
        self.mapped = joined(np.append(self.mapped.first, first), np.append(self.mapped.end, end))


Wanted = Callable[[VMAs], I64]
Files = dict[tuple[int, int], Found]


def of_files(vmas: VMAs) -> I64:
    """Return the rows of the VMAs that map files or shared memory."""
    kinds = np.isin(vmas.backing, [kind.value for kind in KINDS])
    return np.flatnonzero(kinds & (vmas.inode != 0))


def add_mapped(files: Files, wanted: Wanted, source: Source) -> Outcome:
    """Walk the VMAs that ``wanted`` returns the rows of, and add what they map to ``files``.

    Raises what a walk raises.
    """
    rows = wanted(source.vmas())
    if not len(rows):
        return told_here(source.outcome(), source)
    pages = walk(source, Pages, ranges=source.vmas().ranges[rows])
    vmas, page = pages.vmas, pages.facts.page_size
    theirs = [add_mapping(files, vmas, row, page) for row in wanted(vmas).tolist()]
    which = np.full(len(vmas), -1, np.int64)
    every = list({id(one): one for one in theirs}.values())
    number = {id(one): at for at, one in enumerate(every)}
    which[wanted(vmas)] = [number[id(one)] for one in theirs]
    base = (vmas.offset.astype(np.int64) - vmas.start.astype(np.int64)) // page
    for batch in pages:
        copied = private(batch)
        own = np.flatnonzero(OWN[batch.state] & copied)
        copies = np.bincount(which[batch.vma[own]], batch.size[own], len(every))
        for one, size in zip(every, copies.tolist(), strict=True):
            one.copies += int(size)
        held = np.flatnonzero(IN_FILE[batch.state] & ~copied)
        vma = batch.vma[held]
        first = base[vma] + batch.addr[held].astype(np.int64) // page
        end = first + batch.size[held].astype(np.int64) // page
        add_runs(every, which[vma], first, end)
    return told_here(pages.outcome, source)


def told_here(outcome: Outcome, source: Source) -> Outcome:
    """Leave of what is withheld what came up in the walk: nothing else matters to files."""
    never = source.outcome().withheld
    outcome.withheld = [row for row in outcome.withheld if row not in never]
    return outcome


def private(batch: Pages) -> Bool:
    """Return which pages are private copies: only hugetlb pages do not say so by their state."""
    huge = batch.state == State.HUGETLB.value
    of_file = batch.flags & np.uint32(Flag.FILE) != 0
    if batch.kflags is not None:
        of_file = batch.kflags & kpf("anon") == 0
    copied: Bool = (batch.state == State.ANON.value) | (huge & ~of_file)
    return copied


def add_mapping(files: Files, vmas: VMAs, row: int, page: int) -> Found:
    key = int(vmas.dev[row]), int(vmas.inode[row])
    found = files.get(key)
    if found is None:
        at = int(vmas.start[row]), int(vmas.end[row])
        kind = KINDS[Backing(int(vmas.backing[row]))]
        found = files[key] = Found(vmas.name[row], key, kind, at, page)
    found.mappings += 1
    found.covered += int(vmas.size[row])
    return found


def add_runs(every: Sequence[Found], which: I64, first: I64, end: I64) -> None:
    """Add pages [``first``, ``end``) of the files ``which``, in the order of their addresses."""
    if not len(which):
        return
    new = (np.diff(which, prepend=-1) != 0) | (first != np.append(-1, end[:-1]))
    begins = np.flatnonzero(new)
    first, end = first[begins], end[np.append(begins[1:], len(end)) - 1]
    which = which[begins]
    order = np.argsort(which, kind="stable")
    files, at = np.unique(which[order], return_index=True)
    for file, rows in zip(files.tolist(), np.split(order, at[1:]), strict=True):
        every[file].add(first[rows], end[rows])


# ---- what the page cache has

Opening = Callable[[Found], AbstractContextManager[OpenFile]]


def look_at_mapped(source: Source) -> CacheLook:
    """Return the files that a process maps, with what is in RAM of each; raises as a walk does."""
    assert source.live is not None
    target, files = source.live.target, Files()
    outcome = add_mapped(files, of_files, source)
    filesystems = filesystems_of(target)

    def opening(one: Found) -> AbstractContextManager[OpenFile]:
        return open_mapped(target, filesystems, one.name, one.key, one.at)

    def again(key: tuple[int, int]) -> Found | None:
        one = Files()
        add_mapped(one, lambda vmas: rows_of(vmas, key), source)
        return one.get(key)

    told = tuple(tell(one, opening, again, len(files)) for one in files.values())
    return CacheLook(told, source.name, source.who, None,
                     outcome.stall.longest_ns, (*source.notes, *outcome.withheld, *untold(told)))


def look_at_file(path: str, source: str, budget_ns: int) -> CacheLook:
    """Return what is in RAM of the file at ``path``, and what of it any process maps.

    Raises BadRequest if it cannot be opened, and what members.try_each raises.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_path(path))
            # Whatever becomes of the path, it is about the file that was opened.
            asked = of_path(file.path)
        except OSError as error:
            raise BadRequest(f"cannot look at {path}: {(error.strerror or '').lower()}") from None
        none = Found(path, (file.dev, file.inode), kind_of(path, file), (0, 0), file.page)
        one, tried = mapped_by_all(none, asked, source, budget_ns)

        def again(_: tuple[int, int]) -> Found:
            return mapped_by_all(none, asked, source, budget_ns)[0]

        found = tell(one, lambda _: nullcontext(told_of(file.fd)), again, 1)
    return CacheLook((found,), tried.source, None, path, tried.stall_ns,
                     (*tried.withheld, *untold([found])))


def kind_of(path: str, file: OpenFile) -> str:
    return KINDS.get(backing_of(path, file.inode, filesystem_of(file.dev)), "file")


def mapped_by_all(
    none: Found, asked: Asked, source: str, budget_ns: int
) -> tuple[Found, Tried]:
    """Return ``none`` with what any process maps of it, and what became of the processes."""
    files = Files()
    with LiveProcesses(source, budget_ns).opened(own_numbers()[0]) as own:
        users, name = users_for(own, asked), own.name
    tried = walk_users(users, name, source, budget_ns,
                       lambda _, __, one: add_mapped(files, asked.rows, one))
    if users is not None and users.hidden:
        tried = tried._replace(withheld=(*tried.withheld, Withheld(
            "what others map of it", f"{len(users.hidden)} of its mappings are of processes that"
            " this /proc does not show", partial=True)))
    whole = replace(none)
    for one in files.values():
        whole.mappings += one.mappings
        whole.covered += one.covered
        whole.copies += one.copies
        whole.add(one.mapped.first, one.mapped.end)
    return whole, tried


def rows_of(vmas: VMAs, key: tuple[int, int]) -> I64:
    dev, inode = key
    return np.flatnonzero((vmas.dev == np.uint64(dev)) & (vmas.inode == np.uint64(inode)))


def tell(
    found: Found, opening: Opening, again: Callable[[tuple[int, int]], Found | None], files: int
) -> FileCache:
    """Return what of a file is in RAM; it is walked ``again`` if that changed meanwhile."""
    one: Found | None = found
    count = CELLS_OF_ONE if files == 1 else CELLS
    for _ in range(LOOKS):
        if one is None:
            return made(found, why="it was unmapped meanwhile")
        try:
            with opening(one) as file:
                told = ask(one, file, count)
        except OSError as error:
            return made(one, why=why_not(error))
        cells = told.cells
        if cells is None or cells.cached is None or (cells.mapped <= cells.cached).all():
            return told
        one = again(found.key)
    return made(found, why=MOVED)


def made(found: Found, why: str = "") -> FileCache:
    mapped = int((found.mapped.end - found.mapped.first).sum()) * found.page
    return FileCache(found.name, *found.key, found.kind, found.mappings, found.covered, mapped,
                     found.copies, why=why)


def ask(found: Found, opened: OpenFile, count: int) -> FileCache:
    """Return what is in RAM of an open file, in at most ``count`` cells; raises OSError."""
    # What is mapped of a large folio beyond the end of the file counts as its own.
    page = found.page
    pages = max(-(-opened.size // page), int(found.mapped.end.max(initial=0)))
    count = min(count, pages)
    edges = np.arange(count + 1) * pages // max(count, 1)
    size = np.diff(edges) * page
    mapped = np.diff(found.mapped.below(edges)) * page
    file = made(found)._replace(size=pages * page)
    if found.kind == "hugetlb":  # neither call tells, but each page there counts in st_blocks
        return file._replace(cached=opened.allocated, cells=Cells(size, mapped, None))
    parts = [read_cached(opened.fd, int(at) * page, int(length), below=opened.below)
             for at, length in zip(edges, size, strict=False)]
    cached = np.array([part.resident for part in parts], np.int64)
    total = Cached(int(cached.sum()), *(sum_of(part[at] for part in parts) for at in (1, 2, 3)))
    swapped = None
    if found.kind == "shmem" and total.evicted is not None:
        swapped = np.array([part.evicted for part in parts], np.int64)
    less = "" if total.dirty is not None else OVERLAY if opened.below else OLD
    return file._replace(
        less=less, cached=total.resident, dirty=total.dirty, writeback=total.writeback,
        swapped=None if swapped is None else int(swapped.sum()),
        cells=Cells(size, mapped, cached, swapped))


def untold(files: Iterable[FileCache]) -> Iterator[Withheld]:
    """Yield what is withheld of files: a row for each reason."""
    why: dict[tuple[str, str], list[str]] = {}
    for one in files:
        if one.why:
            why.setdefault((one.why, "in RAM"), []).append(one.name)
        if one.less:
            why.setdefault((one.less, "dirty or in swap"), []).append(one.name)
    for (reason, what), names in why.items():
        more = len(names) - 1
        others = f" and {more} other{'s' * (more > 1)}" if more else ""
        # What this kernel tells nobody is not missing for lack of rights.
        yield Withheld(f"what is {what} of {names[0]}{others}", reason, partial=what == "in RAM")
