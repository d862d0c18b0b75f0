"""Who is charged for each frame and each kernel object: one scan of RAM for all cgroups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from pagewalk.kernel.running import RunningKernel
from pagewalk.kernel.structs.memcgs import Memcgs, all_groups
from pagewalk.kernel.structs.slabs import (
    Caches,
    Charged,
    ObjectOwners,
    add_object_owners,
    charged_objects,
    object_owners,
    read_caches,
)
from pagewalk.model.columns import I64, U64, Bool, take
from pagewalk.model.errors import NotPermitted
from pagewalk.model.frames import Frames
from pagewalk.sources.ram import RamSource
from pagewalk.system.census import Census, Count
from pagewalk.system.labels import ByBacking, ByGroup

Listener = Callable[[Frames, I64], None]
_WAITING = 16  # parts that are added up together


class Survey(NamedTuple):
    """What each cgroup is charged for.

    ``groups`` are all memory cgroups, removed ones too; in ``census`` the label of a row is that of
    its group plus 1, 0 for what nobody is charged for. ``objects`` are kernel objects by group (-1:
    not known) and cache, ``objcgs`` (u64) the obj_cgroups that are charged for any.
    """

    groups: Memcgs
    census: Census
    objects: Charged
    caches: Caches
    objcgs: U64


def survey(source: RamSource, groups: Memcgs, listeners: Sequence[Listener] = ()) -> Survey:
    """Scan all of RAM; each of ``listeners`` is given every batch of frames, and its labels.

    Raises SourceUnavailable, BadText.
    """
    sums = Surveying(source, groups, listeners)
    for frames in source.frames():
        sums.add(frames)
    return sums.found()


class Surveying:
    """Adds up batches of frames, given to ``add``, for a Survey, which ``found`` returns."""

    def __init__(
        self, source: RamSource, groups: Memcgs, listeners: Sequence[Listener] = ()
    ) -> None:
        running = opened(source)
        self._kernel, self._direct_map = running.kernel, running.direct_map
        self._groups, self._listeners = groups, listeners
        self._by_group = ByGroup(self._kernel, self._direct_map, groups)
        self._labels = np.zeros(0, np.int64)
        self._count = Count(source.facts.pmd_order, lambda _: self._labels,
                            ByBacking(self._kernel).of)
        self._owners: list[ObjectOwners] = []

    def add(self, frames: Frames) -> None:
        """Add a batch; raises SourceUnavailable."""
        self._labels = self._by_group.of(frames)
        self._count.add(frames)
        self._owners.append(object_owners(self._kernel, self._direct_map, frames))
        if len(self._owners) > _WAITING:
            self._owners = [add_object_owners(self._owners)]
        for listener in self._listeners:
            listener(frames, self._labels)

    def found(self) -> Survey:
        """Return what was found."""
        kernel, groups = self._kernel, self._groups
        every = add_object_owners(self._owners)
        caches = read_caches(kernel, np.unique(every.cache))
        objects = charged_objects(kernel, self._direct_map, groups, every, caches)
        return Survey(groups, self._count.census, objects, caches, np.unique(every.objcg))


def opened(source: RamSource) -> RunningKernel:
    """Return the open kernel of ``source``; raises NotPermitted if it has none."""
    if source.running is None:
        why = source.notes[0].why if source.notes else "kernel memory is not read; run as root"
        says, _, remedy = why.rpartition("; ")  # why no source works ends with what to do
        raise NotPermitted("what frames belong to", says, remedy)
    return source.running


def stocks(running: RunningKernel) -> int:
    """Return for how many groups a CPU charges in advance at a time: one, since 6.16 several."""
    btf = running.kernel.btf
    if not btf.has("memcg_stock_pcp", "cached"):
        return 1
    return btf.member("memcg_stock_pcp", "cached").size // 8


def groups_of(source: RamSource) -> Memcgs:
    """Return all memory cgroups; raises NotPermitted, SourceUnavailable."""
    return all_groups(opened(source).kernel)


def below(groups: Memcgs, row: int) -> Bool:
    """Return a mask of ``groups``: the one at ``row`` and all below it."""
    inside = np.zeros(len(groups), bool)
    inside[row] = True
    for at, parent in enumerate(groups.parent[row + 1 :].tolist(), row + 1):
        inside[at] = parent >= 0 and inside[parent]  # parents come before children
    return inside


def outermost_removed(groups: Memcgs) -> Bool:
    """Return a mask of the removed groups whose parents were not: the charge of others is theirs.

    Their usage may be more than anything that is left: kernel memory that a group gave to its
    parent when it was removed is still in it (see Memcgs).
    """
    parent = np.maximum(groups.parent, 0)
    found: Bool = groups.removed & ~(groups.removed[parent] & (groups.parent >= 0))
    return found


def of_groups(census: Census, chosen: Bool) -> Census:
    """Return the rows of ``census`` that are charged to groups of the mask ``chosen``."""
    return take(census, np.concatenate(([False], chosen))[census.label])


def objects_of(found: Survey, chosen: Bool) -> Charged:
    """Return the kernel objects that are charged to groups of the mask ``chosen``, by cache."""
    objects = take(found.objects, np.concatenate((chosen, [False]))[found.objects.group])
    cache, back = np.unique(objects.cache, return_inverse=True)
    many, size = (np.bincount(back, column, len(cache)).astype(np.int64)
                  for column in (objects.objects, objects.size))
    return Charged(np.zeros(len(cache), np.int64), cache, many, size)
