"""The largest files in the page cache by name: what is deleted, who keeps it, who is charged.

Every file counts in the totals; names are only read for the largest of each sort.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from pagewalk.kernel.structs.direct_map import DirectMap
from pagewalk.kernel.structs.inodes import (
    BLOCK_DEVICES,
    FileSystems,
    Inodes,
    read_file_systems,
    read_inodes,
)
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.memcgs import read_groups
from pagewalk.kernel.structs.open_files import Holder, holders_of
from pagewalk.model.columns import I64, U8, Bool, Withheld, alike
from pagewalk.proc.places import Key, Place, find_places
from pagewalk.system.cached import CachedFiles

MOST = 5000  # names of each sort, if nothing else is asked for
MOST_KEPT = 64  # files of which it is looked up who keeps them


class Sort(IntEnum):
    """What a file in the page cache is, in the order in which they are listed."""

    DELETED = 0  # it has no name any more, and goes when nobody has it open or mapped
    FILE = 1  # it is on a disk, or on a network
    TMPFS = 2  # its only place is RAM: a file on a tmpfs
    UNNAMED = 3  # it never had a place: memfd, SysV, shared anonymous memory, a driver's buffers
    DEVICE = 4  # the blocks of a device: what file systems keep of their own structures
    GONE = 5  # it went before it could be looked up


class Amounts(NamedTuple):
    """Bytes of RAM, as in CachedFiles."""

    cached: int
    mapped: int
    dirty: int
    active: int
    huge: int | None

    @property
    def unmapped(self) -> int:
        """Return how much of it no process maps."""
        return self.cached - self.mapped


class Charge(NamedTuple):
    """Who is charged: a word as in Frames.owner, 0 for nobody, and for how many bytes."""

    owner: int
    bytes: int


class CachedFile(NamedTuple):
    """One file.

    ``inside`` is its path in its file system, or the name of an UNNAMED one, None if no name is in
    the kernel's memory; ``removed`` says that this name was removed, but that there are others.
    ``place`` is where it can be seen, None if nowhere. ``charges`` are the largest first, None if
    it is not known who is charged; ``kept_by`` None if it was not looked up.
    """

    sort: Sort
    amounts: Amounts
    file_system: str
    dev: int
    inode: int
    nlink: int
    inside: str | None
    removed: bool
    place: Place | None
    charges: tuple[Charge, ...] | None
    kept_by: tuple[Holder, ...] | None


class FilesTotal(NamedTuple):
    """How many files there are, and what they have in RAM."""

    files: int
    amounts: Amounts


class Deleted(NamedTuple):
    """How many deleted files there are, what they have in RAM, and the largest; None if none.

    ``shared`` bytes of it are shared memory that no process maps.
    """

    files: int
    amounts: Amounts
    largest: CachedFile | None
    shared: int = 0


class FilesReport(NamedTuple):
    """The page cache by file.

    ``files`` by sort, and of each the largest first. ``totals`` are of all files of a sort, also of
    those that are not listed; ``systems`` of all files by the type of their file system, "" for
    those that are gone. If ``holders_complete`` is False, more processes may keep a file.
    ``withheld`` is what could not be told, and why.
    """

    files: tuple[CachedFile, ...]
    totals: Mapping[Sort, FilesTotal]
    systems: Mapping[str, FilesTotal]
    holders_complete: bool
    withheld: tuple[Withheld, ...] = ()


Find = Callable[[set[Key]], dict[Key, Place]]


def name_files(
    kernel: Kernel, direct_map: DirectMap, cached: CachedFiles, page_size: int, most: int = MOST,
    find: Find = find_places, systems: FileSystems | None = None,
) -> FilesReport:
    """Return what ``cached`` is by file, at most ``most`` of each sort with their names.

    ``systems`` are the file systems of the files, if they were read before. Raises OSError,
    NotInBtf, and what ``find`` raises, which says where files can be seen.
    """
    first = alike(cached.object)
    cache = _Cache(cached, first, page_size)
    objects, pages = cached.object[first], _per_file(cached.pages, first)
    systems = systems or read_file_systems(kernel, objects)
    sorts = sorts_of(systems, cached.shmem[first])
    rows = largest(sorts, pages, most)
    inodes = read_inodes(kernel, objects[rows])
    kept = np.flatnonzero(np.isin(sorts[rows], (Sort.DELETED.value, Sort.UNNAMED.value)))
    kept = kept[np.argsort(-pages[rows[kept]], kind="stable")][:MOST_KEPT]
    holders = holders_of(kernel, direct_map, inodes.mapping[kept])
    files = _files(
        _Chosen(sorts[rows], _amounts(cache, rows), _charges(cache, rows)),
        inodes, _places(inodes, find), dict(zip(kept.tolist(), holders.of, strict=True)),
    )
    names = (*systems.names, "")
    by_system = _totals(cache, systems.row % len(names), len(names))
    return FilesReport(
        tuple(files), dict(zip(Sort, _totals(cache, sorts, len(Sort)), strict=True)),
        dict(zip(names, by_system, strict=True)), holders.complete,
    )


def deleted_files(
    kernel: Kernel, direct_map: DirectMap, cached: CachedFiles, page_size: int
) -> Deleted:
    """Return what deleted files have in RAM, and the largest of them; raises as name_files does.

    ``cached`` has a row for each file: who is charged is not told apart.
    """
    systems = read_file_systems(kernel, cached.object)
    report = name_files(kernel, direct_map, cached, page_size, 1, systems=systems)
    largest_one = next((one for one in report.files if one.sort is Sort.DELETED), None)
    shared = cached.shmem & (sorts_of(systems, cached.shmem) == Sort.DELETED.value)
    unmapped = int((cached.pages - cached.mapped)[shared].sum()) * page_size
    return Deleted(*report.totals[Sort.DELETED], largest_one, unmapped)


def name_owners(kernel: Kernel, direct_map: DirectMap, cached: CachedFiles) -> dict[int, str]:
    """Return the path of the cgroup that each word of ``cached.owner`` charges.

    Words of groups that are gone are missing. Raises SourceUnavailable.
    """
    if cached.owner is None:
        return {}
    words = np.unique(cached.owner)
    groups, rows = read_groups(kernel, direct_map, words)
    named = zip(words.tolist(), rows.tolist(), strict=True)
    return {word: groups.path[row] for word, row in named if row >= 0}


def sorts_of(systems: FileSystems, shmem: Bool) -> U8:
    """Return the Sort of each file, u8."""
    devices = [row for row, name in enumerate(systems.names) if name == BLOCK_DEVICES]
    sorts = np.where(shmem, Sort.TMPFS.value, Sort.FILE.value).astype(np.uint8)
    sorts[systems.nlink == 0] = Sort.DELETED.value
    sorts[systems.detached] = Sort.UNNAMED.value
    sorts[np.isin(systems.row, devices)] = Sort.DEVICE.value
    sorts[systems.row < 0] = Sort.GONE.value
    return sorts


def largest(sorts: U8, pages: I64, most: int) -> I64:
    """Return the rows of the ``most`` largest of each sort, by sort and the largest first."""
    order = np.lexsort((-pages, sorts))
    begins = np.searchsorted(sorts[order], np.arange(len(Sort)))
    rank = np.arange(len(order)) - begins[sorts[order]]
    return order[rank < most]


class _Cache(NamedTuple):
    # The sums, the first row of each file in them, and bytes of a page.
    sums: CachedFiles
    first: I64
    page_size: int

    def columns(self) -> Iterator[I64 | None]:
        # Bytes of each file, for each of Amounts: one column after the other, to hold one only.
        sums = self.sums
        for column in (sums.pages, sums.mapped, sums.dirty, sums.active, sums.huge):
            yield None if column is None else _per_file(column, self.first) * self.page_size


def _per_file(column: I64, first: I64) -> I64:
    return np.add.reduceat(column, first) if len(first) else column


def _totals(cache: _Cache, group: U8 | I64, count: int) -> list[FilesTotal]:
    # The sums of all files of each group. Sums of bytes are exact in a float up to 2^53.
    files = np.bincount(group, minlength=count).tolist()
    columns = [
        None if column is None
        else np.bincount(group, column, count).astype(np.int64).tolist()
        for column in cache.columns()
    ]
    return [
        FilesTotal(files[row], Amounts._make(None if c is None else c[row] for c in columns))
        for row in range(count)
    ]


class _Chosen(NamedTuple):
    # Of each listed file its sort, its amounts and who is charged.
    sort: U8
    amounts: list[Amounts]
    charges: list[tuple[Charge, ...] | None]


def _files(
    chosen: _Chosen, inodes: Inodes, places: list[Place | None],
    kept_by: dict[int, tuple[Holder, ...]],
) -> list[CachedFile]:
    columns = zip(
        map(Sort, chosen.sort.tolist()), chosen.amounts, inodes.file_system, inodes.dev.tolist(),
        inodes.inode.tolist(), inodes.nlink.tolist(), inodes.path, inodes.removed.tolist(), places,
        chosen.charges, map(kept_by.get, range(len(inodes))), strict=True,
    )
    return [CachedFile(*row) for row in columns]


def _amounts(cache: _Cache, rows: I64) -> list[Amounts]:
    columns = [
        [None] * len(rows) if column is None else column[rows].tolist()
        for column in cache.columns()
    ]
    return [Amounts._make(row) for row in zip(*columns, strict=True)]


def _charges(cache: _Cache, rows: I64) -> list[tuple[Charge, ...] | None]:
    # Of each of the files `rows` those who are charged, the largest first.
    cached, first = cache.sums, cache.first
    if cached.owner is None:
        return [None] * len(rows)
    many = np.diff(first, append=len(cached))[rows]
    ends = np.cumsum(many)
    at = np.repeat(first[rows] - ends + many, many) + np.arange(many.sum())
    at = at[np.lexsort((-cached.pages[at], np.repeat(np.arange(len(rows)), many)))]
    sizes = cached.pages[at] * cache.page_size
    every = list(map(Charge, cached.owner[at].tolist(), sizes.tolist()))
    return [tuple(every[begin:end]) for begin, end in pairwise([0, *ends.tolist()])]


def _places(inodes: Inodes, find: Find) -> list[Place | None]:
    keys: list[Key | None] = [
        None if path is None or apart else (dev, path.encode("utf-8", "surrogateescape"))
        for path, apart, dev in zip(
            inodes.path, inodes.detached.tolist(), inodes.dev.tolist(), strict=True
        )
    ]
    found = find({key for key in keys if key is not None})
    return [None if key is None else found.get(key) for key in keys]
