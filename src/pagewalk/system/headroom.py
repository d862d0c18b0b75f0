"""What could be reclaimed before an out-of-memory kill, and what could not. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from pagewalk.kernel.structs.memcgs import Memcgs
from pagewalk.model.columns import Bool
from pagewalk.model.frames import FOLIO_MAPPED, Kind
from pagewalk.proc.cgroup_numbers import GroupNumbers
from pagewalk.system.census import Census
from pagewalk.system.counted_as import dirty_files
from pagewalk.system.ram import Labels


class Headroom(NamedTuple):
    """Amounts that add up to all the frames that were counted.

    At once: ``free``; ``clean_unmapped`` and ``clean_mapped`` pages of files; ``lazyfree``
    (MADV_FREE); ``slab_reclaimable``, of which the kernel frees what no object in use pins.
    After writing: ``dirty`` pages of files. To swap, as far as there is room: ``swappable``
    anonymous and shared memory. Never: ``locked`` (mlock and other unevictable pages, and what is
    dirty on a file system that has nowhere to write it), ``kernel``,
    ``hugetlb``, and ``held``: pages of files and processes that are on no LRU list.
    """

    free: int
    clean_unmapped: int
    clean_mapped: int
    lazyfree: int
    slab_reclaimable: int
    dirty: int
    swappable: int
    locked: int
    hugetlb: int
    kernel: int
    held: int

    @property
    def at_once(self) -> int:
        """Return what goes without being written anywhere."""
        return (self.free + self.clean_unmapped + self.clean_mapped + self.lazyfree
                + self.slab_reclaimable)


FREE = (Kind.BUDDY, Kind.DEFERRED, Kind.CPU_LIST, Kind.UNACCEPTED)
ANON = (Kind.ANON, Kind.KSM, Kind.SWAP_CACHE)


def headroom(census: Census, labels: Labels) -> Headroom:
    """Return what of ``census`` could be reclaimed, in pages; ``labels`` must be told."""
    file, anon = census.of(Kind.FILE), census.of(*ANON)
    shmem = census.of(Kind.SHMEM)
    locked = census.has("unevictable", "mlocked") & (file | anon | shmem)
    locked |= file & census.has("dirty") & ~dirty_files(census)
    listed = census.has("lru") & ~locked
    clean, lazy = clean_files(census), lazyfree(census)
    mapped = census.mapped | (census.facts & FOLIO_MAPPED != 0)
    slab = census.of(Kind.SLAB) & (census.label == labels.reclaimable)
    users = file | anon | shmem | census.of(Kind.HUGETLB, *FREE)
    count = census.count
    return Headroom(
        free=count(census.of(*FREE)),
        clean_unmapped=count(clean & ~mapped),
        clean_mapped=count(clean & mapped),
        lazyfree=count(lazy),
        slab_reclaimable=count(slab),
        dirty=count(file & listed & ~clean),
        swappable=count((anon | shmem) & listed & ~lazy),
        locked=count(locked),
        hugetlb=count(census.of(Kind.HUGETLB)),
        kernel=count(~users & ~slab),
        held=count((file | anon | shmem) & ~listed & ~locked),
    )


def clean_files(census: Census) -> Bool:
    """Return the rows that are clean pages of files, which go at once, mapped or not."""
    stay = census.has("unevictable", "mlocked", "dirty", "writeback")
    return census.of(Kind.FILE) & census.has("lru") & ~stay


def lazyfree(census: Census) -> Bool:
    """Return the rows that were given back with MADV_FREE and not written to since."""
    stay = census.has("unevictable", "mlocked", "swapbacked")
    return census.of(*ANON) & census.has("lru") & ~stay


def protected(groups: Memcgs, row: int) -> int:
    """Return at most how many bytes memory.min keeps when all below the group at ``row`` is short.

    Of each group right below it, what it uses up to its memory.min (effective_protection,
    mm/page_counter.c; before 6.11 mm/memcontrol.c). What lies deeper is protected only as far as
    that is. Its own protects a group from pressure above it, not from its own limit.
    """
    right_below = groups.parent == row
    return int(np.minimum(groups.minimum, groups.usage)[right_below].sum())


def swap_room(free: int, groups: Iterable[GroupNumbers]) -> int:
    """Return how many bytes could still go to swap, of which ``free`` bytes are free.

    ``groups`` are a cgroup and those above it: what each may still put there is a bound, too.
    """
    return min([free, *(left for one in groups if (left := _swap_left(one)) is not None)])


def _swap_left(numbers: GroupNumbers) -> int | None:
    if numbers.swap_limit is not None:
        return max(0, numbers.swap_limit - (numbers.swap_current or 0))
    if numbers.both_limit is None or numbers.both is None or numbers.current is None:
        return None
    # Version 1 limits memory and swap together. Once memory is at its own limit, there is room in
    # swap for the rest; nothing is swapped for the limit of both (try_charge_memcg).
    memory = numbers.current if numbers.limit is None else numbers.limit
    return max(0, numbers.both_limit - memory - max(0, numbers.both - numbers.current))
