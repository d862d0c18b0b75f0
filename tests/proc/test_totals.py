"""The kernel's numbers for the machine, read together."""

from __future__ import annotations

import os

import pytest

from pagewalk.proc import buddyinfo, zones
from pagewalk.proc.totals import read_totals


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
