"""Each target provokes what it says: the kernel's own files are asked, not pagewalk."""

from collections.abc import Callable
from typing import Any

import pytest

from tests import kernel_says
from tests.machine import prepare
from tests.targets import STATES, TARGETS, start

__all__ = ["prepare"]

pytestmark = pytest.mark.live

PAGE = 4096
# 2^32 entries would be 32 GiB of pagemap; its own test asks smaps.
TOO_BIG = {"reservation"}
# The regions whose pages all have a stated number of mappings.
FORKED = ("fork_cow", "fork_three", "shared_fork")


def regions(facts: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return [(name, fact) for name, fact in facts.items() if "start" in fact]


@pytest.mark.parametrize("name", sorted(set(TARGETS) - TOO_BIG))
def test_every_page_is_in_the_stated_state(name: str, prepare: Callable[..., None]) -> None:
    prepare(*TARGETS[name].needs)
    with start(name, stopped=True) as running:
        for region, fact in regions(running.facts):
            stated = {state: fact[state] for state in STATES if fact.get(state)}
            seen = kernel_says.count_states(fact["pid"], fact["start"], fact["end"])
            assert seen == stated, region
            assert sum(stated.values()) * PAGE == fact["end"] - fact["start"], region


@pytest.mark.parametrize("name", FORKED)
def test_mapcounts_are_as_stated(name: str) -> None:
    with start(name, stopped=True) as running:
        for region, fact in regions(running.facts):
            entries = kernel_says.read_pagemap(fact["pid"], fact["start"], fact["end"])
            frames = entries[entries & kernel_says.PRESENT != 0] & kernel_says.PFN
            counts = kernel_says.read_counts(frames)
            for mappings in range(1, 5):
                assert (counts == mappings).sum() == fact.get(f"mapped_by_{mappings}", 0), region


def smaps_of(fact: dict[str, Any]) -> dict[str, int]:
    """Return smaps' fields (KiB) of a region, which is exactly one VMA or several whole ones."""
    vmas = kernel_says.read_smaps(fact["pid"])
    return kernel_says.sum_fields(vmas, fact["start"], fact["end"])


def test_reservation_has_its_thousand_pages() -> None:
    with start("reservation", stopped=True) as running:
        fact = running.facts["reserved"]
        smaps = smaps_of(fact)
        assert fact["end"] - fact["start"] == 16 << 40
        assert fact["anon"] == 1000
        assert smaps["Rss"] == smaps["Anonymous"] == 4000
