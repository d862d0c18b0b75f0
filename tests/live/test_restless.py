"""Walks of processes that never stop mapping, forking or exec'ing: none refused or impossible."""

from __future__ import annotations

import pytest

from tests.churn import walk_storms
from tests.kernel_says import PAGE
from tests.live.bracket import working_sources
from tests.live.command import pagewalk
from tests.machine import fewer, prepared
from tests.targets import start

pytestmark = pytest.mark.live

SECONDS = 60 / len(working_sources())


@pytest.mark.parametrize("source", working_sources())
def test_no_walk_is_refused_and_no_result_is_impossible(source: str) -> None:
    tally = walk_storms(source, SECONDS)
    assert tally.walks > fewer(30)
    assert tally.ended < tally.walks
    assert dict(tally.refused) == {}
    assert dict(tally.impossible) == {}


@pytest.mark.parametrize("source", working_sources())
def test_swapped_shared_memory_among_mappings_that_come_and_go(source: str) -> None:
    pages = 64
    with prepared("zram"), start("storm", 2, 0, fewer(3000), pages) as running:
        for command in (("show",), ("maps",), ("maps", "--all"), ("pages",), ("explain",)):
            ran = pagewalk(*command, running.pid, "--source", source, "--format", "json")
            # Partial, because it changed during each; the ledger of a running process may not
            # close.
            assert ran.code in ((0, 3, 4) if command == ("explain",) else (0, 3)), ran.err
            if command[0] == "maps":
                region = running.facts["swapped"]
                rows = [v for v in ran.json["vmas"] if int(v["start"], 16) == region["start"]]
                assert [row["swap_shmem"] for row in rows] in ([pages * PAGE], [None])
                assert rows[0]["swap_shmem"] is not None or "swap of shmem: " in ran.err
