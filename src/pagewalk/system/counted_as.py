"""What the kernel counts under a name, of RAM or of a cgroup, as masks of a census. Pure."""

from __future__ import annotations

from pagewalk.model.columns import Bool
from pagewalk.model.frames import MAPPED_WHOLE, Backing, Kind
from pagewalk.system.census import Census

ANON = (Kind.ANON, Kind.KSM)
LISTED = (*ANON, Kind.FILE, Kind.SHMEM, Kind.SWAP_CACHE)  # what may be on an LRU list


def in_swap_cache(census: Census) -> Bool:
    """Return which rows are also in swap."""
    return census.of(Kind.SWAP_CACHE) | (census.of(*ANON, Kind.SHMEM) & census.has("swapcache"))


def on_lru(census: Census, *, anon: bool, active: bool | None = None) -> Bool:
    """Return which rows are on the LRU lists of swap-backed memory (``anon``) or of files."""
    found: Bool = census.has("lru") & (census.has("swapbacked") == anon)
    found &= ~census.has("unevictable") & census.of(*LISTED)
    return found if active is None else found & (census.has("active") == active)


def whole(census: Census, *kinds: Kind) -> Bool:
    """Return which rows of ``kinds`` are mapped as huge pages."""
    found: Bool = census.of(*kinds) & census.huge & (census.facts & MAPPED_WHOLE != 0)
    return found


def dirty_files(census: Census) -> Bool:
    """Return the rows that are dirty pages of files and counted as such: they can be written."""
    found: Bool = (census.of(Kind.FILE) & census.has("dirty")
                   & (census.backing != Backing.KEPT.value))
    return found


def backing_untold(census: Census) -> int:
    """Return how many dirty pages there are that the kernel may not count as such."""
    return census.count(dirty_files(census) & (census.backing == Backing.UNTOLD.value))


def unevictable(census: Census) -> Bool:
    """Return which rows are on the list of pages that are never reclaimed."""
    return census.has("unevictable") & census.has("lru") & census.of(*LISTED)


def in_writeback(census: Census) -> Bool:
    """Return which rows are being written."""
    return census.has("writeback") & census.of(*LISTED)
