"""Walks of processes that never stop mapping, forking or exec'ing: none refused or impossible."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import pagewalk
from pagewalk.model.columns import U64, Pages, State
from tests.churn import walk_storms
from tests.kernel_says import PAGE
from tests.live.bracket import working_sources
from tests.live.command import pagewalk as command
from tests.machine import MachineLacks, fewer, prepared
from tests.targets import start

pytestmark = pytest.mark.live

COMPACT = Path("/proc/sys/vm/compact_memory")
WALKS = 400  # so many that some meet pages that are being moved
SECONDS = 60 / len(working_sources())


@pytest.mark.parametrize("source", working_sources())
def test_no_walk_is_refused_and_no_result_is_impossible(source: str) -> None:
    tally = walk_storms(source, SECONDS)
    assert tally.walks > fewer(30)
    assert tally.ended < tally.walks
    assert dict(tally.refused) == {}
    assert dict(tally.impossible) == {}


@contextmanager
def compacting() -> Iterator[None]:
    """Have the kernel move pages together until the block ends, in RAM that gets holes anew."""
    done = threading.Event()

    def compact(holes: mmap.mmap) -> None:
        while not done.is_set():
            np.frombuffer(holes, np.uint8)[::PAGE] = 1
            for at in range(0, len(holes), 2 * PAGE):
                holes.madvise(mmap.MADV_DONTNEED, at, PAGE)
            COMPACT.write_text("1")

    with mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area.madvise(mmap.MADV_NOHUGEPAGE)
        mover = threading.Thread(target=compact, args=(area,))
        mover.start()
        try:
            yield
        finally:
            done.set()
            mover.join()


@pytest.mark.parametrize("source", working_sources())
def test_a_page_that_the_kernel_moves_is_still_what_it_is(source: str) -> None:
    def look() -> U64:
        held, frames = dict.fromkeys(State, 0), []
        for pages in pagewalk.walk(running.pid, source=source):
            assert isinstance(pages, Pages) and pages.pfn is not None
            inside = (pages.addr >= region["start"]) & (pages.addr < region["end"])
            for state in State:
                held[state] += int(pages.size[inside & (pages.state == state)].sum())
            frames.append(pages.pfn[inside])
        # A machine with swap may need it meanwhile.
        kept = held[State.ANON] + held[State.MIGRATING] + held[State.SWAPPED]
        assert kept == sum(held.values()) == region["anon"] * PAGE
        return np.concatenate(frames)

    if not os.access(COMPACT, os.W_OK):
        raise MachineLacks(f"{COMPACT} (CONFIG_COMPACTION, root)")
    with start("dense", 64, stopped=True) as running:
        region = running.facts["dense"]
        before, moved = look(), 0
        with compacting():
            for _ in range(fewer(WALKS)):
                moved += not np.array_equal(look(), before)
    assert moved


@pytest.mark.parametrize("source", working_sources())
def test_swapped_shared_memory_among_mappings_that_come_and_go(source: str) -> None:
    pages = 64
    with prepared("zram"), start("storm", 2, 0, fewer(3000), pages) as running:
        for words in (("show",), ("maps",), ("maps", "--all"), ("pages",), ("explain",)):
            ran = command(*words, running.pid, "--source", source, "--format", "json")
            # Partial, because it changed during each; the ledger of a running process may not
            # close.
            assert ran.code in ((0, 3, 4) if words == ("explain",) else (0, 3)), ran.err
            if words[0] == "maps":
                region = running.facts["swapped"]
                rows = [v for v in ran.json["vmas"] if int(v["start"], 16) == region["start"]]
                assert [row["swap_shmem"] for row in rows] in ([pages * PAGE], [None])
                assert rows[0]["swap_shmem"] is not None or "swap of shmem: " in ran.err
