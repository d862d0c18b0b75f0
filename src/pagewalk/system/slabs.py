"""Kernel objects by cache: how much RAM, how much of it holds no object, and who is charged."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.kernel.structs.direct_map import DirectMap
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.memcgs import Memcgs, all_groups
from pagewalk.kernel.structs.slabs import (
    Caches,
    Charged,
    ObjectOwners,
    SlabSums,
    add_object_owners,
    add_slab_sums,
    charged_objects,
    object_owners,
    read_caches,
    slab_sums,
)
from pagewalk.model.columns import Withheld
from pagewalk.model.errors import SourceUnavailable
from pagewalk.model.frames import Frames, Kind


class Charge(NamedTuple):
    """What a group is charged for objects of one cache; ``group`` is its path, None if unknown."""

    group: str | None
    objects: int
    bytes: int


class Cache(NamedTuple):
    """Objects of one kind; amounts in bytes.

    ``size`` is all RAM of its slabs; ``each`` is one object. Of ``places`` for objects at least
    ``least`` and at most ``most`` are allocated: those on a CPU's own list of free objects are not
    told apart. ``reclaimable``: the kernel can shrink it. ``charges``, the largest first, None if
    that is withheld. ``name`` is None if the cache could not be read.
    """

    name: str | None
    size: int
    each: int
    slabs: int
    places: int
    least: int
    most: int
    reclaimable: bool
    charges: tuple[Charge, ...] | None

    @property
    def unused(self) -> int:
        """Return how much of ``size`` certainly holds no object, bytes."""
        return self.size - self.most * self.each

    @property
    def ends(self) -> int:
        """Return how much of ``size`` is behind the last place of a slab, bytes."""
        return self.size - self.places * self.each


class SlabReport(NamedTuple):
    """All caches that have slabs, the largest first.

    ``large`` bytes: kmalloc of more than a cache holds, which are pages of their own. ``unread`` is
    how many objects are in slabs whose owners could not be read. ``withheld`` says why ``charges``
    are None.
    """

    caches: tuple[Cache, ...]
    large: int
    unread: int
    withheld: tuple[Withheld, ...]

    def size(self, *, reclaimable: bool | None = None) -> int:
        """Return the bytes of all slabs, or only of those that are reclaimable, or not."""
        return sum(
            cache.size for cache in self.caches
            if reclaimable is None or cache.reclaimable == reclaimable
        )  # fmt: skip

    @property
    def unused(self) -> int:
        """Return how much of the slabs certainly holds no object, bytes."""
        return sum(cache.unused for cache in self.caches)


class SlabLook:
    """Adds up the slabs among batches of frames, given to ``add``; ``report`` ends it.

    The frames must have come from struct pages, of ``page_size`` bytes.
    """

    def __init__(self, kernel: Kernel, direct_map: DirectMap, page_size: int) -> None:
        self._kernel, self._direct_map, self._page = kernel, direct_map, page_size
        self._sums: SlabSums | None = None
        self._owners: ObjectOwners | None = None
        self._withheld: tuple[Withheld, ...] = ()
        self._large = 0

    def add(self, frames: Frames) -> None:
        """Add a batch; raises NotInBtf."""
        sums = slab_sums(self._kernel, frames)
        self._sums = sums if self._sums is None else add_slab_sums([self._sums, sums])
        self._large += int(frames.pages[frames.of(Kind.LARGE_KMALLOC)].sum())
        if self._withheld:
            return
        try:
            owners = object_owners(self._kernel, self._direct_map, frames)
        except SourceUnavailable as error:
            self._withhold(error)
            return
        known = self._owners
        self._owners = owners if known is None else add_object_owners([known, owners])

    def _withhold(self, error: SourceUnavailable) -> None:
        self._owners = None
        self._withheld = (Withheld("who is charged for kernel objects", error.why),)

    def report(self) -> SlabReport:
        """Return what was added; raises NotInBtf."""
        if self._sums is None:
            return SlabReport((), self._large * self._page, 0, self._withheld)
        caches = read_caches(self._kernel, self._sums.cache)
        charges = self._charges(caches)
        rows = [
            _cache(caches, self._sums, row, int(self._sums.pages[row]) * self._page,
                   None if charges is None else charges.get(address, ()))
            for row, address in enumerate(caches.address.tolist())
        ]
        owners = self._owners
        unread = 0 if owners is None else int(owners.objects[owners.objcg == 0].sum())
        rows.sort(key=lambda cache: -cache.size)
        return SlabReport(tuple(rows), self._large * self._page, unread, self._withheld)

    def _charges(self, caches: Caches) -> dict[int, tuple[Charge, ...]] | None:
        if self._owners is None:
            return None
        try:
            groups = all_groups(self._kernel)
        except SourceUnavailable as error:
            self._withhold(error)
            return None
        found = charged_objects(self._kernel, self._direct_map, groups, self._owners, caches)
        return _by_cache(groups, found)


def _by_cache(groups: Memcgs, found: Charged) -> dict[int, tuple[Charge, ...]]:
    charges: dict[int, list[Charge]] = {}
    order = np.argsort(-found.size, kind="stable")
    columns = (found.group, found.cache, found.objects, found.size)
    for group, cache, objects, size in zip(*(c[order].tolist() for c in columns), strict=True):
        path = groups.path[group] if group >= 0 else None
        charges.setdefault(cache, []).append(Charge(path, objects, size))
    return {cache: tuple(rows) for cache, rows in charges.items()}


def _cache(
    caches: Caches, sums: SlabSums, row: int, size: int, charges: tuple[Charge, ...] | None
) -> Cache:
    most = int(sums.inuse[row])
    return Cache(
        name=caches.name[row], size=size, each=int(caches.size[row]),
        slabs=int(sums.slabs[row]), places=int(sums.objects[row]),
        least=most - int(sums.frozen[row]), most=most,
        reclaimable=bool(caches.reclaimable[row]), charges=charges,
    )  # fmt: skip
