"""The kernel's numbers for the machine agree with one another, and with what we do."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from pagewalk.proc.meminfo import read_meminfo
from pagewalk.proc.slabinfo import read_slabinfo
from pagewalk.proc.totals import Totals, read_totals
from pagewalk.proc.vmstat import read_vmstat, refresh
from tests.live.bracket import look_again

pytestmark = pytest.mark.live


@pytest.mark.vmshort
def test_after_a_refresh_what_we_did_is_counted() -> None:
    assert refresh()
    before = read_vmstat()["pgfault"]
    memory = mmap.mmap(-1, 64 * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    for at in range(0, len(memory), mmap.PAGESIZE):
        memory[at] = 1
    assert refresh()
    # Other processes fault too, so there may be more; an event that was counted stays.
    assert read_vmstat()["pgfault"] - before >= 64


def agree(totals: Totals) -> None:
    assert totals.meminfo and totals.vmstat and totals.zones
    for line, counter in (("AnonPages", "nr_anon_pages"), ("Shmem", "nr_shmem")):
        assert totals.meminfo[line] == totals.vmstat[counter] * mmap.PAGESIZE
    assert totals.vmstat["nr_free_pages"] == sum(zone.free for zone in totals.zones)


@pytest.mark.vmshort
def test_the_files_of_one_kernel_agree() -> None:
    # The machine goes on meanwhile: one look at which nothing was allocated is enough.
    look_again(lambda: agree(read_totals(refresh=True)))
    assert read_totals(refresh=True).not_read == ()


def test_this_machines_caches_fit_their_slabs() -> None:
    def look() -> None:
        text = Path("/proc/slabinfo").read_bytes()
        caches = read_slabinfo()
        assert len(caches) == text.count(b"\n") - 2  # headings
        for cache in caches:
            assert cache.active <= cache.objects <= cache.slabs * cache.per_slab
            assert cache.per_slab * cache.size <= cache.pages_per_slab * mmap.PAGESIZE
        # SReclaimable is what caches like these two have.
        kept = sum(cache.most for cache in caches if cache.name in ("dentry", "inode_cache"))
        assert 0 < kept <= read_meminfo()["SReclaimable"]

    look_again(look)  # a cache's numbers are counters that move on their own
