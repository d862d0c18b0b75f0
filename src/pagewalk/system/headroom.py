"""What could be had back before an out-of-memory kill, and what could not. Pure."""

from __future__ import annotations

from typing import NamedTuple

from pagewalk.model.frames import FOLIO_MAPPED, Kind
from pagewalk.system.census import Census
from pagewalk.system.ram import Labels


class Headroom(NamedTuple):
    """Amounts that add up to all the frames that were counted.

    At once: ``free``; ``clean_unmapped`` and ``clean_mapped`` pages of files; ``lazyfree``
    (MADV_FREE); ``slab_reclaimable``, of which the kernel frees what no object in use pins.
    After writing: ``dirty`` pages of files. To swap, as far as there is room: ``swappable``
    anonymous and shared memory. Never: ``locked`` (mlock and other unevictable pages), ``kernel``,
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
    """Return what of ``census`` could be had back, in pages."""
    file, anon = census.of(Kind.FILE), census.of(*ANON)
    shmem = census.of(Kind.SHMEM)
    locked = census.has("unevictable", "mlocked") & (file | anon | shmem)
    listed = census.has("lru") & ~locked
    dirty = census.has("dirty", "writeback")
    mapped = census.mapped | (census.facts & FOLIO_MAPPED != 0)
    clean = file & listed & ~dirty
    lazy = anon & listed & ~census.has("swapbacked")
    slab = census.of(Kind.SLAB) & (census.label == labels.reclaimable)
    users = file | anon | shmem | census.of(Kind.HUGETLB, *FREE)
    count = census.count
    return Headroom(
        free=count(census.of(*FREE)),
        clean_unmapped=count(clean & ~mapped),
        clean_mapped=count(clean & mapped),
        lazyfree=count(lazy),
        slab_reclaimable=count(slab),
        dirty=count(file & listed & dirty),
        swappable=count((anon | shmem) & listed & ~lazy),
        locked=count(locked),
        hugetlb=count(census.of(Kind.HUGETLB)),
        kernel=count(~users & ~slab),
        held=count((file | anon | shmem) & ~listed & ~locked),
    )
