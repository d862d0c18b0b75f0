"""The program that makes runs of frames, against runs made from copies of struct pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pagewalk.kernel.programs.loops import find_casts
from pagewalk.kernel.programs.scan_frames import FrameScanner
from pagewalk.kernel.scan import chunks
from pagewalk.kernel.structs.direct_map import MemMap
from pagewalk.kernel.structs.frame_layout import FrameLayout, frame_layout
from pagewalk.kernel.structs.frame_runs import CHUNK, HUGETLB, RawRuns, read_runs
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.struct_page import FrameMap
from pagewalk.model.columns import U64
from pagewalk.proc.iomem import read_ranges
from tests.kernel.loops import needs_loops
from tests.live.bracket import Seen, settle
from tests.machine import alone, prepared, setting
from tests.targets import TARGETS, start

pytestmark = [
    pytest.mark.live,
    needs_loops,
]


@pytest.fixture(scope="module")
def layout(kernel: Kernel) -> FrameLayout:
    return frame_layout(kernel.btf)


@pytest.fixture(scope="module")
def scanner(kernel: Kernel, layout: FrameLayout, mem_map: MemMap) -> Iterator[FrameScanner]:
    loaded = FrameScanner(find_casts(kernel.btf), layout, mem_map)
    yield loaded
    loaded.close()


def by_frame(runs: RawRuns) -> U64:
    """Return the five words of each frame, u64[5, n]."""
    words = (runs.state, runs.count.astype(np.uint64), runs.memcg, runs.object, runs.extra)
    return np.repeat(np.stack(words), runs.pages, axis=1)


def check_agreement(frames: FrameMap, layout: FrameLayout, scanner: FrameScanner) -> int:
    """Compare all frames of RAM that hold still; return how many are not ordinary free ones."""
    left = {part: np.ones(part[1] - part[0], bool) for part in chunks(read_ranges())}
    used = 0

    def look() -> Seen[int]:
        nonlocal used
        differ: dict[int, object] = {}
        moved: set[int] = set()
        for (first, last), rows in list(left.items()):
            before, found, after = (
                by_frame(runs)
                for runs in (
                    read_runs(frames, layout, first, last),
                    scanner.runs(first, last),
                    read_runs(frames, layout, first, last),
                )
            )
            still = (before == after).all(axis=0)
            wrong = still & rows & (found != after).any(axis=0)
            used += int((rows & still & (after[2] != 0)).sum())
            differ |= {first + row: (found[:, row].tolist(), after[:, row].tolist())
                       for row in np.flatnonzero(wrong).tolist()}
            moved |= set((np.flatnonzero(rows & ~still) + first).tolist())
            left[first, last] = rows & (wrong | ~still)
            if not left[first, last].any():
                del left[first, last]
        return Seen(differ, moved)

    assert settle(look) == {}
    return used


def test_all_of_ram(frames: FrameMap, layout: FrameLayout, scanner: FrameScanner) -> None:
    # that many frames at least are charged to someone on any machine that runs this
    assert check_agreement(frames, layout, scanner) > 100


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.vmshort)
          for name in ("thp", "hugetlb_private", "hugetlb_fork", "swap_private", "ksm")),
        "hugetlb_pud",
    ],
)
def test_while_there_are(
    name: str, frames: FrameMap, layout: FrameLayout, scanner: FrameScanner
) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True):
        check_agreement(frames, layout, scanner)


SWITCH = Path("/proc/sys/vm/hugetlb_optimize_vmemmap")


@pytest.mark.skipif(not SWITCH.exists(), reason="CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP")
def test_while_struct_pages_of_hugetlb_are_mapped_repeatedly(
    frames: FrameMap, layout: FrameLayout, scanner: FrameScanner
) -> None:
    with alone(), setting(SWITCH, 1), prepared("hugetlb"), start("hugetlb_private", stopped=True):
        check_agreement(frames, layout, scanner)
        runs = [scanner.runs(*part) for part in chunks(read_ranges())]
    hugetlb = [run.pages[run.state & HUGETLB != 0].sum() for run in runs]
    assert sum(hugetlb) >= 16 * 512  # the pages that were prepared


def test_any_part_of_a_chunk(frames: FrameMap, layout: FrameLayout, scanner: FrameScanner) -> None:
    # From the middle of a folio or of a free block too: its other pages lead to the first.
    first = next(first for first, last in chunks(read_ranges()) if last - first == CHUNK)
    for start_at, pages in ((0, 1), (1, 1), (7, 513), (511, 2), (CHUNK - 1, 1)):
        part = scanner.runs(first + start_at, first + start_at + pages)
        assert part.pfn[0] == first + start_at
        assert part.pages.sum() == pages
        assert (part.pages > 0).all()
