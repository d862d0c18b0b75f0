"""PAGEMAP_SCAN on this kernel: every populated page exactly once, however the scan is cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import pagewalk
from pagewalk.model.columns import Flag, Leaves, join
from pagewalk.proc import pagemap
from pagewalk.proc.pagemap import PAGE, Pagemap
from pagewalk.proc.stall import BUDGET_NS, Slice, Stall
from pagewalk.proc.target import open_target
from pagewalk.sources import procfs
from tests.live.bracket import look_again
from tests.machine import prepared
from tests.targets import TARGETS, start

pytestmark = pytest.mark.live

COUNTS = (511, 512, 513, 1025, 65536)
VEC_LENS = (512, 1024, 4096, 65536)
MAX_PAGES = (1000, 1 << 16, 1 << 20)
ASKED = pagemap.PRESENT | pagemap.SWAPPED | pagemap.PFNZERO | pagemap.HUGE


def scan(pid: int, region: dict[str, int], vec_len: int, max_pages: int, window: int) -> np.ndarray:
    """Return all regions (start, end, categories) of a target's region, in the order found."""
    fd = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY)
    try:
        # With a budget of an hour the window keeps its width.
        found = Pagemap(fd, pid, Stall(3600 * 10**9)).scan(
            region["start"], region["end"], ASKED, Slice(window, window, window), vec_len, max_pages
        )
        return np.concatenate([np.zeros((0, 3), np.uint64), *found])
    finally:
        os.close(fd)


def can_scan() -> bool:
    fd = os.open("/proc/self/pagemap", os.O_RDONLY)
    try:
        return pagemap.can_scan(fd)
    finally:
        os.close(fd)


needs_scan = pytest.mark.skipif(not can_scan(), reason="PAGEMAP_SCAN came with Linux 6.7")


@needs_scan
@pytest.mark.parametrize("count", COUNTS)
def test_each_region_is_found_exactly_once(count: int) -> None:
    with start("runs", count, stopped=True) as running:
        region = running.facts["runs"]
        written = np.arange(region["start"], region["end"], 2 * PAGE, dtype=np.uint64)
        assert len(written) == count
        for vec_len in VEC_LENS:
            for max_pages in MAX_PAGES:
                for window in (1 << 21, 1 << 40):
                    found = scan(running.pid, region, vec_len, max_pages, window)
                    np.testing.assert_array_equal(found[:, 0], written)
                    np.testing.assert_array_equal(found[:, 1], written + np.uint64(PAGE))


@needs_scan
@pytest.mark.parametrize("max_pages", [1, 7, 511, 512, 513])
def test_a_limit_on_pages_cuts_a_long_region_without_loss(max_pages: int) -> None:
    with start("dense", 4, stopped=True) as running:
        region = running.facts["dense"]
        found = scan(running.pid, region, 512, max_pages, 1 << 40)
    # The pieces follow one another without gap or overlap.
    np.testing.assert_array_equal(found[1:, 0], found[:-1, 1])
    assert (int(found[0, 0]), int(found[-1, 1])) == (region["start"], region["end"])
    assert int((found[:, 1] - found[:, 0]).max()) <= max_pages * PAGE


@needs_scan
def test_continuing_at_walk_end_counts_pages_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    # The reason for resume(): with more than 512 regions, walk_end is the start of the last pass.
    monkeypatch.setattr(pagemap, "resume", lambda vec, found, walk_end, stop, *_: walk_end or stop)
    with start("runs", 1025, stopped=True) as running:
        found = scan(running.pid, running.facts["runs"], 4096, 1 << 20, 1 << 40)
    assert len(np.unique(found[:, 0])) == 1025
    if len(found) == 1025:
        pytest.skip("this kernel's walk_end is right")
    assert len(found) > 1025


@contextmanager
def leaves(pid: int, *, by_scan: bool) -> Iterator[Leaves]:
    """Yield every leaf of a process, found by PAGEMAP_SCAN or by reading all of pagemap."""
    source = procfs.open("procfs", open_target(pid), BUDGET_NS)
    try:
        source.space.huge = source.space.huge and by_scan
        vmas = source.vmas()
        ranges = np.stack([vmas.start, vmas.end], axis=1)
        yield join([batch.leaves for batch in source.space.entries(vmas, ranges)])
    finally:
        pagewalk.close(source)


def base_pages(found: Leaves) -> np.ndarray:
    """Return (addr, entry, pfn, flags) of every base page, without the flags from scans."""
    pages = (1 << found.shift.astype(np.int64)) // PAGE
    row = np.repeat(np.arange(len(found)), pages)
    step = (np.arange(len(row)) - np.repeat(np.cumsum(pages) - pages, pages)).astype(np.uint64)
    assert found.pfn is not None
    flags = found.flags & ~np.uint32(Flag.ZERO | Flag.HUGE)
    # A huge leaf has its first entry and frame; those of its other pages follow.
    return np.stack(
        [found.addr[row] + step * np.uint64(PAGE), found.entry[row] + step, found.pfn[row] + step,
         flags[row].astype(np.uint64)]
    )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("runs", marks=pytest.mark.vmshort),
        "plain", "zero_reads", "guard", "file_shared", "thp", "huge_zero", "hugetlb_private",
        "swap_private",
    ],
)
def test_reading_without_scan_finds_the_same_leaves(name: str) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:
        region = next(iter(running.facts.values()))

        def look() -> None:
            # whether a page of libc is mapped once depends on other processes at that moment
            with (
                leaves(running.pid, by_scan=True) as scanned,
                leaves(running.pid, by_scan=False) as read,
            ):
                inside = (read.addr >= region["start"]) & (read.addr < region["end"])
                assert inside.any()
                np.testing.assert_array_equal(base_pages(scanned), base_pages(read))

        look_again(look)
