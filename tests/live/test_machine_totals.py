"""The kernel's numbers for the machine agree with one another, and with what we do."""

from __future__ import annotations

import mmap

import pytest

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
    assert totals.meminfo and totals.vmstat and totals.zones and totals.buddy
    for line, counter in (("AnonPages", "nr_anon_pages"), ("Shmem", "nr_shmem")):
        assert totals.meminfo[line] == totals.vmstat[counter] * mmap.PAGESIZE
    assert totals.vmstat["nr_free_pages"] == sum(zone.free for zone in totals.zones)


@pytest.mark.vmshort
def test_the_files_of_one_kernel_agree() -> None:
    # The machine goes on meanwhile: one look at which nothing was allocated is enough.
    look_again(lambda: agree(read_totals(refresh=True)))
    totals = read_totals(refresh=True)
    assert totals.not_read == () and totals.refreshed
    assert totals.zones and totals.buddy
    # Each zone's free blocks are part of its free pages; those that the kernel has not
    # initialised yet are in no block (deferred_init).
    look_again(check_blocks)


def check_blocks() -> None:
    totals = read_totals(refresh=True)
    assert totals.zones and totals.buddy
    free = {(zone.node, zone.name): zone.free for zone in totals.zones}
    assert all(blocks.pages <= free[blocks.node, blocks.zone] for blocks in totals.buddy)
