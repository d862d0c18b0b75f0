"""Areas of the kernel's memory against /proc/vmallocinfo, and kernel stacks against meminfo."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pagewalk.kernel.open import open_bpf
from pagewalk.kernel.running import RunningKernel, open_running
from pagewalk.kernel.scan import scan_frames
from pagewalk.kernel.structs.vmap_areas import (
    AreaFrames,
    Areas,
    Use,
    area_sums,
    of_areas,
    read_areas,
)
from pagewalk.model.columns import join, take
from pagewalk.model.errors import SourceUnavailable
from pagewalk.model.frames import Kind
from pagewalk.proc.iomem import read_ranges
from pagewalk.proc.kallsyms import Kallsyms, names_at, read_kallsyms
from tests.kernel_says import PAGE
from tests.live.bracket import look_again

pytestmark = [pytest.mark.live, pytest.mark.vmshort]

# kernel/fork.c: NR_CACHED_STACKS; so many more may be waiting for RCU, one for each task that ended
CACHED_STACKS = 2 * (os.cpu_count() or 1)


@pytest.fixture(scope="module")
def running() -> Iterator[RunningKernel]:
    opened = open_running(open_bpf())
    yield opened
    opened.kernel.close()


@pytest.fixture(scope="module")
def symbols() -> Kallsyms:
    return read_kallsyms()


def areas_of(running: RunningKernel, symbols: Kallsyms | None) -> tuple[Areas, AreaFrames]:
    slabs = join([of_areas(running.kernel, f) for f in scan_frames(running, read_ranges())])
    return read_areas(running.kernel, running.direct_map, running.arch, slabs, symbols)


def vmallocinfo() -> Counter[tuple[int, str, int]]:
    """Return how often an area of that size, asked for there, with that many pages is listed."""
    found: Counter[tuple[int, str, int]] = Counter()
    for line in Path("/proc/vmallocinfo").read_text().splitlines():
        row = re.match(r"\S+-\S+ +(\d+) ([^ +]+)\+\S+(?: \[(\S+)\])?", line)
        if row:  # not vm_map_ram, nor what waits to be unmapped: those have no vm_struct
            pages = re.search(r" pages=(\d+)", line)
            name = f"{row[2]} [{row[3]}]" if row[3] else row[2]
            found[int(row[1]), name, int(pages[1]) if pages else 0] += 1
    return found


def test_areas_are_those_of_vmallocinfo(running: RunningKernel, symbols: Kallsyms) -> None:
    def look() -> None:
        before = vmallocinfo()
        areas, _ = areas_of(running, symbols)
        assert before == vmallocinfo()
        names = names_at(symbols, areas.caller)
        columns = (areas.size.tolist(), names, areas.asked.tolist())
        ours = Counter((size, str(name), asked) for size, name, asked in zip(*columns, strict=True))
        assert ours - before == Counter()
        # An area without pages cannot be told from one that was freed: a chunk of per-CPU memory
        # that was emptied, or addresses that were only reserved.
        assert [row for row in before - ours if row[2]] == []
        assert len(areas) > 50

    look_again(look)


def test_kernel_stacks_are_known(running: RunningKernel, symbols: Kallsyms) -> None:
    def said() -> int:
        # each CPU counts some of it for itself; reading this adds that up
        Path("/proc/sys/vm/stat_refresh").read_bytes()
        text = Path("/proc/meminfo").read_text()
        return int(re.search(r"KernelStack: +(\d+) kB", text)[1]) * 1024 // PAGE  # type: ignore[index]

    def look() -> None:
        before = said()
        areas, mapped = areas_of(running, symbols)
        assert said() == before
        stacks = areas.use == Use.STACK.value
        each = int(areas.pages[stacks][0])
        assert (areas.pages[stacks] == each).all()
        pages = int(mapped.of(areas, Use.STACK).pages.sum())
        assert pages == areas.pages[stacks].sum()
        assert 0 <= pages - before <= CACHED_STACKS * each

    look_again(look)


def test_frames_of_areas_are_the_kernels_own(running: RunningKernel, symbols: Kallsyms) -> None:
    def look() -> None:
        areas, mapped = areas_of(running, symbols)
        found = mapped.of(areas, Use.STACK, Use.PERCPU, Use.VMALLOC)
        kinds = Counter[int]()
        for frames in scan_frames(running, read_ranges()):
            runs = take(frames, frames.of(Kind.KERNEL))
            kinds[Kind.KERNEL] += overlap(found.pfn, found.pages, runs.pfn, runs.pages)
        assert kinds[Kind.KERNEL] == found.pages.sum()

    look_again(look)


def overlap(pfn: np.ndarray, pages: np.ndarray, other: np.ndarray, others: np.ndarray) -> int:
    """Return how many frames are in ranges of both kinds; within each, the ranges are apart."""
    frames = np.repeat(pfn - np.cumsum(pages) + pages, pages) + np.arange(pages.sum())
    at = np.searchsorted(other, frames, side="right") - 1
    inside = (at >= 0) & (frames < (other + others)[at]) if len(other) else np.zeros(0, bool)
    return int(inside.sum())


def test_sums_are_those_of_the_areas(running: RunningKernel, symbols: Kallsyms) -> None:
    areas, _ = areas_of(running, symbols)
    sums = area_sums(areas, symbols)
    assert sums.areas.sum() == len(areas) and sums.pages.sum() == areas.pages.sum()
    asked = {name: Use(use) for use, name in zip(sums.use.tolist(), sums.caller, strict=True)}
    assert asked["pcpu_get_vm_areas"] == Use.PERCPU
    assert list(sums.pages) == sorted(sums.pages, reverse=True)
    nameless = area_sums(areas, None)
    assert set(nameless.caller) == {None}
    assert nameless.pages.sum() == areas.pages.sum()


def test_without_a_slab_of_areas_there_is_a_reason(running: RunningKernel) -> None:
    slabs = join([of_areas(running.kernel, f) for f in scan_frames(running, read_ranges())])
    with pytest.raises(SourceUnavailable, match="no slab has objects that prove to be areas"):
        read_areas(
            running.kernel, running.direct_map, running.arch, take(slabs, slice(0)), None
        )
