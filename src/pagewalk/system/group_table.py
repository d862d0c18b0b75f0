"""All cgroups beside one another: what each and those below it are charged for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.kernel.structs.memcgs import Memcgs
from pagewalk.model.columns import I64, U64, Bool, Rows, Withheld, partial, take
from pagewalk.model.errors import GroupGone
from pagewalk.model.frames import Frames, Kind
from pagewalk.proc.cgroup_numbers import GroupNumbers, read_numbers
from pagewalk.proc.cgroup_search import check_enabled
from pagewalk.proc.cgroups import find_hierarchy, list_groups, not_charged
from pagewalk.sources.ram import COUNTERS, RamSource
from pagewalk.system.cached import CacheSums
from pagewalk.system.census import Census
from pagewalk.system.counted_as import ANON
from pagewalk.system.files import FilesReport, name_files
from pagewalk.system.group_counters import KERNEL, parts_from
from pagewalk.system.group_ledger import USERS
from pagewalk.system.headroom import clean_files, lazyfree
from pagewalk.system.survey import Survey, Surveying, groups_of, opened

KEEPERS = 3  # files or caches that are named as what keeps a removed group
ROOT_INODE = 1  # of the topmost directory of a hierarchy (kernfs_create_root, fs/kernfs/dir.c)


class Amounts(Rows):
    """A row for each group, in bytes (i64), those below it included.

    ``usage`` is what the kernel says is charged; ``anon``, ``file``, ``shmem``, ``kernel`` (pages
    and objects) are what was found of it. ``unmapped`` are pages of files and shared memory that no
    process at all maps; ``reclaimable`` what could be reclaimed at once: clean pages of files,
    LazyFree, and kernel objects that can shrink, as far as nothing uses them. Both are None if
    frames are not visible, and then the others are what the kernel counts.
    """

    usage: I64
    anon: I64
    file: I64
    shmem: I64
    kernel: I64
    unmapped: I64 | None
    reclaimable: I64 | None


class Keeper(NamedTuple):
    """What keeps removed group ``row``: files, the largest first, and kernel objects by cache."""

    row: int
    files: FilesReport
    caches: tuple[tuple[str, int], ...]


class GroupTable(NamedTuple):
    """All groups, what they are charged for, and what keeps those that were removed.

    Where frames are not visible no removed ones are among them; ``withheld`` says so.
    """

    groups: Memcgs
    amounts: Amounts
    keepers: tuple[Keeper, ...]
    withheld: tuple[Withheld, ...] = ()

    @property
    def partial(self) -> list[str]:
        """Return what rights took away."""
        return partial(self.withheld)


def look_at_groups(source: RamSource, *, dying: bool = False) -> GroupTable:
    """Scan RAM once for all groups; with ``dying`` also look up what keeps removed ones.

    Where frames are not visible it is what counters tell of those that were not removed. Raises
    NotPermitted, SourceUnavailable, BadText.
    """
    if source.name == COUNTERS and not dying:
        return by_counters(source.notes)
    look = GroupsLook(source, dying=dying)
    for frames in source.frames():
        look.add(frames)
    return look.found()


class GroupsLook:
    """Adds up batches of frames, given to ``add``, for all groups; ``found`` ends it.

    Raises as look_at_groups does.
    """

    def __init__(self, source: RamSource, *, dying: bool = False) -> None:
        check_enabled()
        self._source, groups = source, groups_of(source)
        self._removed = np.flatnonzero(groups.removed) if dying else np.zeros(0, np.int64)
        self._kept = {row: CacheSums() for row in self._removed.tolist()}
        self._sums = Surveying(source, groups, [self._listen] if dying else [])

    def _listen(self, frames: Frames, labels: I64) -> None:
        here = np.intersect1d(np.unique(labels) - 1, self._removed)
        for row in here.tolist():
            self._kept[row].add(take(frames, labels == row + 1))

    def add(self, frames: Frames) -> None:
        """Add a batch."""
        self._sums.add(frames)

    def found(self) -> GroupTable:
        """Return what was found."""
        found, source = self._sums.found(), self._source
        page, running = source.facts.page_size, opened(source)
        keepers = tuple(
            Keeper(
                row,
                name_files(running.kernel, running.direct_map, cache.files(), page, KEEPERS),
                tuple(caches_of(found, row)),
            )
            for row, cache in self._kept.items()
        )
        # Of sockets no column tells, so that the version does not matter.
        withheld = (*source.notes, *not_charged(1))
        return GroupTable(found.groups, amounts_of(found, page), keepers, withheld)


def by_counters(notes: tuple[Withheld, ...]) -> GroupTable:
    """Return what the kernel counts for each group that has a directory."""
    hierarchy = find_hierarchy()
    listed = list_groups(hierarchy)
    found: list[GroupNumbers | None] = []
    for path in listed.path:
        try:
            one = read_numbers(hierarchy, path)
        except GroupGone:
            one = None
        # In version 2 a group without the memory controller is no memory cgroup.
        counted = one is not None and (one.stat is not None or path == hierarchy.root)
        found.append(one if counted else None)
    kept = np.array([one is not None for one in found], bool)
    kept &= (listed.parent < 0) | kept[listed.parent]
    numbers = [one for one, there in zip(found, kept.tolist(), strict=True) if one and there]
    parent = np.where(listed.parent < 0, -1, np.cumsum(kept)[listed.parent] - 1)[kept]
    paths = [listed.path[row] for row in np.flatnonzero(kept).tolist()]
    gone = Withheld("groups that were removed and live on",
                    "removed groups are not visible without frames", partial=True)
    usage = usage_of(listed.inode[kept], parent, numbers)
    return GroupTable(
        counted_groups(listed.inode[kept], parent, tuple(paths), usage, numbers),
        counted_amounts(usage, parent, numbers, hierarchy.version), (),
        (*notes, *not_charged(1), gone),
    )


def counted_groups(
    inode: U64, parent: I64, path: tuple[str, ...], usage: I64, numbers: list[GroupNumbers]
) -> Memcgs:
    none = np.zeros(len(path), bool)
    limit = [-1 if one.limit is None else one.limit for one in numbers]
    minimum = [min(one.min or 0, 1 << 62) for one in numbers]
    return Memcgs(
        memcg=np.zeros(len(path), np.uint64), inode=inode, parent=parent, dying=none, removed=none,
        usage=usage, limit=np.array(limit, np.int64), minimum=np.array(minimum, np.int64),
        swap=None, kmem=None, path=path,
    )


def usage_of(inode: U64, parent: I64, numbers: list[GroupNumbers]) -> I64:
    # A container may show a group as the topmost one, which has a number of its own.
    usage = np.array([one.current or 0 for one in numbers], np.int64)
    return below_root(parent, usage) if len(inode) and inode[0] == ROOT_INODE else usage


def below_root(parent: I64, usage: I64) -> I64:
    # Version 2 tells no number for the root, version 1 what the machine uses; and the kernel's
    # own counter keeps what it does not take off again when kernel memory of removed groups is
    # freed (obj_cgroup_uncharge_pages). What the groups below it use is told and holds.
    return np.where(parent < 0, usage[parent == 0].sum(), usage)


def counted_amounts(
    usage: I64, parent: I64, numbers: list[GroupNumbers], version: int
) -> Amounts:
    """Return the amounts that memory.stat tells."""
    parts = [parts_from(one, version) or {} for one in numbers]

    def column(*names: str) -> I64:
        told = np.array([sum(part.get(name, 0) for name in names) for part in parts], np.int64)
        # Only the root may have no memory.stat: of version 2 on older kernels.
        return told if numbers[0].stat is not None else below_root(parent, told)

    kernel = ("kernel_other", *KERNEL.values())
    return Amounts(usage, column("anon", "anon_huge"), column("file"),
                   column("shmem"), column(*kernel), None, None)


def caches_of(found: Survey, row: int) -> list[tuple[str, int]]:
    """Return the caches of which the group at ``row`` is charged most, with the bytes."""
    objects = take(found.objects, found.objects.group == row)
    order = np.argsort(-objects.size, kind="stable")[:KEEPERS].tolist()
    at = np.searchsorted(found.caches.address, objects.cache)
    return [(found.caches.name[int(at[one])] or "not readable", int(objects.size[one]))
            for one in order]


def amounts_of(found: Survey, page: int) -> Amounts:
    """Return what ``found`` says of each group and those below it, in bytes; ``page`` bytes."""
    census, groups = found.census, found.groups
    file = census.of(Kind.FILE)
    cached = file | census.of(Kind.SHMEM)
    own = {
        "anon": census.of(*ANON, Kind.SWAP_CACHE, Kind.HUGETLB),
        "file": file,
        "shmem": census.of(Kind.SHMEM),
        "kernel": ~census.of(*USERS),
        "unmapped": cached & ~census.mapped,
        "reclaimable": clean_files(census) | lazyfree(census),
    }
    sums = {name: _by_group(census, where, len(groups)) * page for name, where in own.items()}
    for name, objects in _objects_by_group(found).items():
        sums[name] += objects
    for at in range(len(groups) - 1, 0, -1):  # parents come before children
        parent = int(groups.parent[at])
        if parent >= 0:
            for column in sums.values():
                column[parent] += column[at]
    found_of = sum(sums[name] for name in ("anon", "file", "shmem", "kernel"))
    holds = np.where(groups.removed, found_of, groups.usage)
    usage = np.where(groups.parent < 0, below_root(groups.parent, holds), groups.usage)
    return Amounts(usage=usage, **sums)


def _objects_by_group(found: Survey) -> dict[str, I64]:
    # The bytes of kernel objects: all, and of those caches that can shrink.
    known = take(found.objects, found.objects.group >= 0)
    shrink = found.caches.reclaimable[np.searchsorted(found.caches.address, known.cache)]
    return {name: np.bincount(known.group, size, len(found.groups)).astype(np.int64)
            for name, size in (("kernel", known.size), ("reclaimable", known.size * shrink))}


def _by_group(census: Census, where: Bool, count: int) -> I64:
    rows = where & (census.label > 0)
    return np.bincount(census.label[rows] - 1, census.pages[rows], count).astype(np.int64)
