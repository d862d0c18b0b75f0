"""MemAvailable against what goes at once: all that the kernel reckons otherwise. Pure.

As si_mem_available() does (mm/show_mem.c; before 6.6 mm/page_alloc.c), from its own numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pagewalk.account.ledger import Cause
from pagewalk.proc.totals import Totals
from pagewalk.proc.zones import Zone
from pagewalk.system.headroom import Headroom


class Reckoned(NamedTuple):
    """The parts of MemAvailable, in pages.

    ``free`` are free; ``cache`` and ``slab`` the page cache and reclaimable memory, ``kept_cache``
    and ``kept_slab`` what of them is held back; ``reserved`` is the zones' reserves.
    """

    free: int
    cache: int
    slab: int
    reserved: int
    kept_cache: int
    kept_slab: int

    @property
    def available(self) -> int:
        """Return what they come to; the kernel shows 0 if that is less."""
        kept = self.reserved + self.kept_cache + self.kept_slab
        return self.free + self.cache + self.slab - kept


def reckon(totals: Totals, page: int) -> Reckoned | None:
    """Return how the kernel arrives at MemAvailable, None if it does not give all it takes."""
    meminfo = totals.meminfo or {}
    names = ("MemFree", "Active(file)", "Inactive(file)", "SReclaimable")
    if totals.zones is None or not meminfo.keys() >= {*names}:
        return None
    free, active, inactive, slab = (meminfo[name] // page for name in names)
    cache, low = active + inactive, sum(zone.low for zone in totals.zones)
    slab += (totals.vmstat or {}).get("nr_kernel_misc_reclaimable", 0)
    return Reckoned(free, cache, slab, reserves(totals.zones), min(cache // 2, low),
                    min(slab // 2, low))


def reserves(zones: Sequence[Zone]) -> int:
    """Return the pages that zones keep for the kernel itself (calculate_totalreserve_pages).

    They were worked out with watermarks that nothing had boosted.
    """
    return sum(min(max(zone.protection, default=0) + zone.high - (zone.boost or 0), zone.managed)
               for zone in zones)


def available_causes(
    room: Headroom, counted: Mapping[str, int], totals: Totals, page: int
) -> tuple[Cause, ...] | None:
    """Return what ``room``, in pages, has more than MemAvailable; None if that cannot be told.

    ``counted`` has, also in pages, ``listed``: what is on the LRU lists of files, and
    ``cpu_lists``: what is free on lists of CPUs.
    """
    told = reckon(totals, page)
    if told is None:
        return None
    at_once = room.clean_unmapped + room.clean_mapped + room.lazyfree
    amounts = {
        "cpu_lists": counted["cpu_lists"],
        "zone_reserves": told.reserved,
        "cache_kept_back": told.kept_cache,
        "slab_kept_back": told.kept_slab,
        "dirty_pages": at_once - counted["listed"],
        "misc_reclaimable": -(totals.vmstat or {}).get("nr_kernel_misc_reclaimable", 0),
        "below_zero": min(told.available, 0),
    }
    return tuple(Cause(name, page * pages, True) for name, pages in amounts.items() if pages)
