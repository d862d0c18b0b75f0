"""What frames are used for: those of processes that we know, and the kernel's own counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from pagewalk.kernel.open import open_bpf
from pagewalk.kernel.running import RunningKernel, open_running
from pagewalk.kernel.scan import chunks, scan_frames
from pagewalk.model.columns import U64, join, take
from pagewalk.model.frames import FOLIO_MAPPED, MAPPED_WHOLE, ORDER_SHIFT, REFERENCED, Frames, Kind
from pagewalk.proc.iomem import read_ranges
from tests.kernel_says import PFN, PRESENT, read_counts, read_pagemap
from tests.live.bracket import look_again
from tests.machine import IN_GUEST, alone, prepared
from tests.targets import TARGETS, Running, start

pytestmark = [pytest.mark.live, pytest.mark.vmshort]

CACHED = Kind.SHMEM if IN_GUEST else Kind.FILE  # a guest has no disk: its files are in RAM

# The kinds of the frames that each target's regions map, without the zero page, which is reserved.
KINDS = {
    "plain": {Kind.ANON},
    "locked": {Kind.ANON},
    "file_shared": {CACHED},
    "file_private": {CACHED, Kind.ANON},
    "memfd": {Kind.SHMEM, Kind.ANON},
    "sysv": {Kind.SHMEM},
    "lazyfree": {Kind.ANON},
    "thp": {Kind.ANON},
    "shmem_thp": {Kind.SHMEM},
    "hugetlb_private": {Kind.HUGETLB},
    "hugetlb_shared": {Kind.HUGETLB},
    "ksm": {Kind.KSM, Kind.ANON},
    "packet_ring": {Kind.KERNEL},
    "bpf_array": {Kind.KERNEL},
}


@pytest.fixture(scope="module")
def running() -> Iterator[RunningKernel]:
    opened = open_running(open_bpf(), loads=True)
    with closing(opened.kernel):
        yield opened


def frames_of(target: Running) -> U64:
    """Return the frames that the target's own regions map, ascending."""
    parts = []
    for fact in target.facts.values():
        if isinstance(fact, dict) and fact.get("start"):
            words = read_pagemap(target.pid, fact["start"], fact["end"])
            parts.append(words[words & PRESENT != 0] & PFN)
    return np.unique(np.concatenate(parts))


def at(running: RunningKernel, pfns: U64) -> Frames:
    """Return what is told of each of ``pfns``, in order."""
    parts = [part for part in chunks(read_ranges())
             if ((pfns >= np.uint64(part[0])) & (pfns < np.uint64(part[1]))).any()]
    runs = join([join(list(scan_frames(running, [part]))) for part in parts])
    return take(runs, np.searchsorted(runs.pfn, pfns.astype(np.int64), side="right") - 1)


@pytest.mark.parametrize("name", KINDS)
def test_frames_of_a_known_process(name: str, running: RunningKernel) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as target:

        def check() -> None:
            pfns = frames_of(target)
            found = at(running, pfns)
            used = found.kind != Kind.RESERVED.value
            assert {Kind(kind) for kind in found.kind[used].tolist()} == KINDS[name]
            np.testing.assert_array_equal(found.mapcount, read_counts(pfns))

        look_again(check)


def test_huge_pages_have_their_order(running: RunningKernel) -> None:
    with prepared("thp"), start("thp", stopped=True) as target:

        def check() -> None:
            found = at(running, frames_of(target))
            assert found.facts is not None
            huge = found.facts[found.facts >> ORDER_SHIFT >= 9]
            assert len(huge) == 512
            assert (huge & np.uint8(MAPPED_WHOLE | FOLIO_MAPPED) != 0).all()

        look_again(check)


def count(path: str, name: str) -> int:
    """Return a number of /proc/meminfo or vmstat."""
    rows = dict(line.split()[:2] for line in Path(path).read_text().splitlines())
    return int(rows[name])


def test_hugetlb_pages_used_and_idle(running: RunningKernel) -> None:
    with alone(), prepared("hugetlb"), start("hugetlb_private", stopped=True):

        def check() -> None:
            total, idle = (count("/proc/meminfo", f"HugePages_{w}:") for w in ("Total", "Free"))
            frames = join(list(scan_frames(running, read_ranges())))
            assert frames.facts is not None
            huge = frames.of(Kind.HUGETLB)
            used = huge & (frames.facts & REFERENCED != 0)
            assert frames.pages[huge].sum() == total * 512
            assert frames.pages[used].sum() == (total - idle) * 512

        look_again(check)


def test_pages_of_compressed_swap(running: RunningKernel) -> None:
    with prepared("zram"), start("swap_private", stopped=True):

        def check() -> None:
            before = count("/proc/vmstat", "nr_zspages")
            frames = join(list(scan_frames(running, read_ranges())))
            assert count("/proc/vmstat", "nr_zspages") == before > 0
            assert frames.pages[frames.of(Kind.ZSMALLOC)].sum() == before

        look_again(check)
