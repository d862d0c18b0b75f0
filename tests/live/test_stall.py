"""Reads are done in slices that adapt to a budget, and measured. No absolute speeds here."""

from __future__ import annotations

import re

import numpy as np
import pytest

import pagewalk as library
from tests import kernel_says
from tests.kernel_says import PAGE
from tests.live.bracket import look_again
from tests.live.command import pagewalk
from tests.targets import start

pytestmark = pytest.mark.live

SECOND = 10**9


def test_the_longest_read_is_reported() -> None:
    with start("dense", 64, stopped=True) as running:
        screen = pagewalk("show", running.pid)
        document = pagewalk("show", running.pid, "--format", "json").json
        wide = pagewalk("show", running.pid, "--budget", 50)
    found = re.search(r"longest read (\d+\.\d+) ms \((.+)\), budget (\d+) ms", screen.out)
    assert found and float(found[1]) > 0 and int(found[3]) == 5
    assert "budget 50 ms" in wide.out
    assert document["stall_ns"] > 0


def reads(pid: int, budget_ns: int) -> tuple[int, library.Table]:
    """Return how many reads a walk needed within a budget, and what it found."""
    table = library.table(pid, source="procfs", budget_ns=budget_ns)
    return table.outcome.stall.reads, table


def check_same(one: library.Table, other: library.Table) -> None:
    for name in ("present", "rss", "not_present", "anon", "file", "zero"):
        np.testing.assert_array_equal(one.columns[name], other.columns[name], name)
    # Memory shared with other processes moves when they come and go.
    own = one.columns["anon"] == one.columns["present"]
    for name in ("pss", "uss"):
        first, second = (table.columns[name] for table in (one, other))
        assert first is not None and second is not None
        np.testing.assert_array_equal(first[own], second[own], name)


def test_a_small_budget_makes_more_and_shorter_reads() -> None:
    with start("dense", 256, stopped=True) as running:
        few, one = reads(running.pid, SECOND)
        many, other = reads(running.pid, 1000)
    # No slice fits in 1 us, so all shrink to the smallest, 512 words of 4 KiB pages; half of that
    # number allows for the first reads, which are longer.
    least = (256 << 20) // (512 * PAGE) // 2
    assert many > least > few
    check_same(one, other)


def test_a_small_budget_makes_more_and_narrower_scans() -> None:
    with start("runs", 65536, stopped=True) as running:
        few, one = reads(running.pid, SECOND)
        many, other = reads(running.pid, 1000)
    # A scan finds at most 512 regions of 8 KiB, which is 4 MiB; the smallest window is 2 MiB.
    assert many >= few + 100
    check_same(one, other)


def test_every_read_of_the_walk_is_counted() -> None:
    with start("plain", stopped=True) as running:
        walked = library.walk(running.pid, library.Sums, source="procfs")
        before = walked.outcome.stall.reads
        library.by_vma(walked)
    # The VMAs were read first; then at least one scan or read of pagemap, and the VMAs again.
    assert before >= 1
    assert walked.outcome.stall.reads >= before + 2
    assert walked.outcome.stall.longest_ns > 0


def test_a_process_that_keeps_mapping_is_walked_correctly() -> None:
    mib = 256
    with start("mapper", mib) as running:
        region = running.facts["dense"]
        running.tell("stall")
        for _ in range(5):
            table = library.table(running.pid, source="procfs")
            # the page that it maps may be next to the region for a moment, and merge with its VMA
            inside = (table.vmas.start < region["end"]) & (table.vmas.end > region["start"])
            anon = table.columns["anon"]
            assert anon is not None
            assert int(anon[inside].sum()) == mib << 20
        # It kept mapping pages, which it never touches, while it was walked.
        assert running.tell("stall")["rounds"] > 0
        look_again(lambda: check_rss(running.pid))


def check_rss(pid: int) -> None:
    before = kernel_says.read_rollup(pid)["Rss"]
    totals = library.table(pid, source="procfs").totals
    assert before == kernel_says.read_rollup(pid)["Rss"]
    assert totals["rss"] == before << 10
