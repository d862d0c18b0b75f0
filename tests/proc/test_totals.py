"""The kernel's numbers for the machine, read together."""

from __future__ import annotations

import mmap
import os

import pytest

from pagewalk.proc import buddyinfo, zones
from pagewalk.proc.totals import Totals, read_totals
from tests.live.bracket import look_again


def test_a_file_that_cannot_be_read_is_none_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zones, "PATH", "/proc/no/zoneinfo")
    monkeypatch.setattr(buddyinfo, "PATH", "/proc/no/buddyinfo")
    totals = read_totals(refresh=False)
    assert (totals.zones, totals.buddy, totals.refreshed) == (None, None, False)
    assert totals.meminfo is not None and totals.vmstat is not None
    assert [why.partition(":")[0] for why in totals.not_read] == [
        "source 'zoneinfo' is not available", "source 'buddyinfo' is not available",
    ]


def test_only_root_can_have_them_refreshed() -> None:
    assert read_totals(refresh=True).refreshed == (os.geteuid() == 0)
    assert not read_totals(refresh=False).refreshed


def agree(totals: Totals) -> None:
    assert totals.meminfo and totals.vmstat and totals.zones and totals.buddy
    for line, counter in (("AnonPages", "nr_anon_pages"), ("Shmem", "nr_shmem")):
        assert totals.meminfo[line] == totals.vmstat[counter] * mmap.PAGESIZE
    assert totals.vmstat["nr_free_pages"] == sum(zone.free for zone in totals.zones)


@pytest.mark.live
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
