"""The kernel's numbers for the machine, read together."""

from __future__ import annotations

import os

import pytest

from pagewalk.proc import zones
from pagewalk.proc.totals import read_totals


def test_a_file_that_cannot_be_read_is_none_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zones, "PATH", "/proc/no/zoneinfo")
    totals = read_totals(refresh=False)
    assert totals.zones is None
    assert totals.meminfo is not None and totals.vmstat is not None
    assert [why.partition(":")[0] for why in totals.not_read] == [
        "source 'zoneinfo' is not available",
    ]


def test_slabs_are_only_read_after_a_refresh() -> None:
    assert (read_totals(refresh=True).slabs is not None) == (os.geteuid() == 0)
    assert read_totals(refresh=False).slabs is None
