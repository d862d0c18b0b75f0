"""Every pair of sources that work here agrees on a stopped process, page by page."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import pagewalk
from pagewalk.model.columns import Pages, State
from tests.kernel_says import PAGE, read_smaps
from tests.live.bracket import Seen, living_thread, settle, smaller, working_sources
from tests.machine import prepared
from tests.targets import TARGETS, start

pytestmark = pytest.mark.live

NOTHING_THERE = (State.EMPTY, State.NOT_MAPPED, State.ABSENT)
UNTOLD = np.uint64(2**64 - 1)
ROW = np.dtype([("addr", "u8"), ("state", "u1"), ("pfn", "u8"), ("mapcount", "u8")])
# Each is compared with the next: if neighbours are equal, all are.
WORKING = working_sources()
PAIRS = list(pairwise(WORKING))
SHORT = ("fork_three", "thp_part", "swap_forked")
NAMES = [
    pytest.param(name, marks=[pytest.mark.vmshort] if name in SHORT else [])
    for name in TARGETS
    if name not in ("zombie", "vmas")  # in test_exact.py: no pages at all, and 30,000 equal VMAs
]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_pages_frames_states_and_mapcounts(name: str) -> None:
    args = smaller(name, *WORKING)
    with prepared(*TARGETS[name].needs), start(name, *args, stopped=True) as running:
        for pid in running.pids:
            for first, second in PAIRS:
                count, differ = compare(pid, first, second)
                assert count > 10
                assert differ == []


def test_procfs_and_a_page_table_reader_are_compared() -> None:
    assert ("procfs", "ebpf") in PAIRS


def test_a_difference_would_be_noticed() -> None:
    with start("plain", stopped=True) as one, start("plain", stopped=True) as other:
        first, second = (
            base_pages(running.pid, batches_of(running.pid, "procfs", None), None)
            for running in (one, other)
        )
    assert different(first, second)


def compare(pid: int, first: str, second: str) -> tuple[int, list[str]]:
    """Return how many base pages were compared, and the differences that stay.

    Only what differed or moved is looked at again: the less there is to read, the less moves.
    """
    count = 0
    spans: np.ndarray | None = None

    def look() -> Seen[tuple[int, str]]:
        nonlocal count, spans
        walks = [batches_of(pid, name, spans) for name in (first, second, first)]
        before, theirs, after = (base_pages(pid, walked, spans) for walked in walks)
        count = count or len(before)
        moved = different(before, after)
        found = different(before, theirs)
        seen = Seen({key: found[key] for key in found.keys() - moved.keys()}, moved.keys())
        left = sorted({addr for addr, _ in [*moved, *found]})
        spans = np.array([[addr, addr + PAGE] for addr in left], np.uint64).reshape(-1, 2)
        return seen

    left = settle(look)
    return count, sorted(f"{first}, {second}, {key}: {how}" for key, how in left.items())


def batches_of(pid: int, source: str, spans: np.ndarray | None) -> list[Pages]:
    walked = pagewalk.walk(pid, source=source, ranges=spans)
    return [batch for batch in walked if isinstance(batch, Pages)]


def base_pages(pid: int, batches: list[Pages], spans: np.ndarray | None) -> np.ndarray:
    """Return the contents of the page tables as ROW[n], with huge leaves split into base pages.

    VM_PFNMAP VMAs are left out: pagemap shows nothing for them (fs/proc/task_mmu.c, pagemap_read).
    """
    says = read_smaps(living_thread(pid))
    hidden = [(vma.start, vma.end) for vma in says if "pf" in vma.flags]
    pages = np.concatenate([np.empty(0, ROW), *map(expand, batches)])
    for start_, end in hidden:
        pages = pages[(pages["addr"] < start_) | (pages["addr"] >= end)]
    if spans is not None:
        pages = pages[np.isin(pages["addr"], spans[:, 0])]
    return np.sort(pages, order="addr")


def expand(batch: Pages) -> np.ndarray:
    assert batch.pfn is not None and batch.mapcount is not None
    filled = np.flatnonzero(~np.isin(batch.state, NOTHING_THERE))
    times = (batch.size[filled] // PAGE).astype(np.int64)
    row = np.repeat(filled, times)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(times) - times, times)
    pages = np.empty(len(row), ROW)
    pages["addr"] = batch.addr[row] + nth.astype(np.uint64) * np.uint64(PAGE)
    pages["state"] = batch.state[row]
    present = batch.state[row] <= State.PRESENT
    # for a swap entry this is the slot, which is the same for the whole entry
    pages["pfn"] = batch.pfn[row] + np.where(present, nth, 0).astype(np.uint64)
    pages["mapcount"] = batch.mapcount[row]
    # The frame database does not know some frames in use, whose RAM the kernel initialises late.
    assert batch.kflags is not None
    untold = present & (batch.kflags[row] == 0) & (batch.mapcount[row] == 0)
    pages["mapcount"][untold] = UNTOLD
    return pages


def different(first: np.ndarray, second: np.ndarray) -> dict[tuple[int, str], str]:
    """Return a line by (address, column) for each page that differs or that only one has."""
    apart = np.setxor1d(first["addr"], second["addr"]).tolist()
    lines = {(addr, "page"): f"{addr:x} only in one" for addr in apart}
    mine = first[np.isin(first["addr"], second["addr"])]
    theirs = second[np.isin(second["addr"], first["addr"])]
    for name in ("state", "pfn", "mapcount"):
        apart = mine[name] != theirs[name]
        if name == "mapcount":
            apart &= (mine[name] != UNTOLD) & (theirs[name] != UNTOLD)
        for row in np.flatnonzero(apart):
            addr, one, other = int(mine["addr"][row]), mine[name][row], theirs[name][row]
            lines[addr, name] = f"{addr:x} {name} {one:#x}, {other:#x}"
    return lines
