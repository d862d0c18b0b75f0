"""Walks of processes that never stop mapping, forking or exec'ing: none refused or impossible."""

from __future__ import annotations

import mmap
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
from tests.live.command import pagewalk as ran_pagewalk
from tests.machine import fewer, prepared
from tests.targets import start

pytestmark = pytest.mark.live

VM = Path("/proc/sys/vm")
WALKS = 400  # of which some ten meet a page that is being moved
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
    """Have the kernel move pages together until the block ends, in RAM full of holes."""
    done = threading.Event()

    def compact() -> None:
        while not done.is_set():
            (VM / "compact_memory").write_text("1")

    with mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as holes:
        holes.madvise(mmap.MADV_NOHUGEPAGE)
        for at in range(0, len(holes), PAGE):
            holes[at] = 1
        for at in range(0, len(holes), 2 * PAGE):
            holes.madvise(mmap.MADV_DONTNEED, at, PAGE)
        mover = threading.Thread(target=compact)
        mover.start()
        try:
            yield
        finally:
            done.set()
            mover.join()


@pytest.mark.parametrize("source", working_sources())
def test_a_page_that_the_kernel_moves_is_still_what_it_is(source: str) -> None:
    looked: list[U64] = []
    with start("dense", 64, stopped=True) as running, compacting():
        region = running.facts["dense"]
        for _ in range(fewer(WALKS)):
            held, frames = dict.fromkeys(State, 0), []
            for pages in pagewalk.walk(running.pid, source=source):
                assert isinstance(pages, Pages) and pages.pfn is not None
                inside = (pages.addr >= region["start"]) & (pages.addr < region["end"])
                for state in State:
                    held[state] += int(pages.size[inside & (pages.state == state)].sum())
                frames.append(pages.pfn[inside])
            assert held[State.ANON] + held[State.MIGRATING] == region["anon"] * PAGE
            assert sum(held.values()) == region["anon"] * PAGE
            looked.append(np.concatenate(frames))
    assert any(len(one) != len(looked[0]) or (one != looked[0]).any() for one in looked)


@pytest.mark.parametrize("source", working_sources())
def test_swapped_shared_memory_among_mappings_that_come_and_go(source: str) -> None:
    pages = 64
    with prepared("zram"), start("storm", 2, 0, fewer(3000), pages) as running:
        for command in (("show",), ("maps",), ("maps", "--all"), ("pages",), ("explain",)):
            ran = ran_pagewalk(*command, running.pid, "--source", source, "--format", "json")
            # Partial, because it changed during each; the ledger of a running process may not
            # close.
            assert ran.code in ((0, 3, 4) if command == ("explain",) else (0, 3)), ran.err
            if command[0] == "maps":
                region = running.facts["swapped"]
                rows = [v for v in ran.json["vmas"] if int(v["start"], 16) == region["start"]]
                assert [row["swap_shmem"] for row in rows] in ([pages * PAGE], [None])
                assert rows[0]["swap_shmem"] is not None or "swap of shmem: " in ran.err
