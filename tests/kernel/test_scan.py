"""All of RAM as runs: each frame once, with the program in the kernel and without it."""

from __future__ import annotations

import tracemalloc
from collections import deque
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from pagewalk.kernel import scan
from pagewalk.kernel.open import open_bpf
from pagewalk.kernel.programs import loader
from pagewalk.kernel.programs.scan_frames import FrameScanner
from pagewalk.kernel.running import RunningKernel, open_running
from pagewalk.kernel.scan import chunks, layout_of, proved_scanner, raw_runs, scan_frames
from pagewalk.kernel.structs.frame_runs import CHUNK, TORN, RawRuns
from pagewalk.model.frames import Kind
from pagewalk.proc.iomem import read_ranges
from tests.kernel.loops import needs_loops


def test_chunks_end_where_no_block_is_cut() -> None:
    assert list(chunks([(1, 0x9F)])) == [(1, 0x9F)]
    ends = [last for _, last in chunks([(0x100, 3 * CHUNK + 5)])]
    assert ends == [CHUNK, 2 * CHUNK, 3 * CHUNK, 3 * CHUNK + 5]


@pytest.fixture(scope="module")
def running() -> Iterator[RunningKernel]:
    opened = open_running(open_bpf(), loads=True)
    with closing(opened.kernel):
        yield opened


@pytest.fixture(autouse=True)
def pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the program however little RAM there is."""
    monkeypatch.setattr(loader, "SCANNER_PAYS", 0)


@pytest.mark.live
@pytest.mark.vmshort
@pytest.mark.parametrize("loads", [True, False])
def test_each_frame_of_ram_is_in_one_run(running: RunningKernel, loads: bool) -> None:
    ranges = read_ranges()
    reader = running if loads else running._replace(shortcuts=None)
    first, pages = [], []
    for frames in scan_frames(reader, ranges):
        first.append(frames.pfn)
        pages.append(frames.pages)
        assert set(frames.kind.tolist()) <= {kind.value for kind in Kind}
    starts, lengths = np.concatenate(first), np.concatenate(pages)
    assert (lengths > 0).all()
    # Where the next run does not follow, a range ends and the next begins.
    cut = np.flatnonzero(starts[1:] != (starts + lengths)[:-1]) + 1
    begins = starts[np.append(0, cut)].tolist()
    ends = (starts + lengths)[np.append(cut - 1, len(starts) - 1)].tolist()
    joined = [range_ for range_ in ranges if range_[0] not in {last for _, last in ranges}]
    assert begins == [begin for begin, _ in joined]
    assert ends[-1] == ranges[-1][1]
    assert sum(lengths.tolist()) == sum(last - begin for begin, last in ranges)


@pytest.mark.live
@needs_loops
def test_the_program_makes_the_runs_where_it_agrees(running: RunningKernel) -> None:
    ranges, layout = read_ranges(), layout_of(running)
    assert proved_scanner(running, layout, ranges) is not None
    assert proved_scanner(running._replace(shortcuts=None), layout, ranges) is None


@pytest.mark.live
@needs_loops
def test_a_program_that_disagrees_is_not_used(
    running: RunningKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the word of who is charged were elsewhere on this kernel.
    runs = FrameScanner.runs

    def shifted(self: FrameScanner, first: int, last: int) -> RawRuns:
        found = runs(self, first, last)
        found.memcg[:] += np.uint64(8)
        return found

    monkeypatch.setattr(FrameScanner, "runs", shifted)
    assert proved_scanner(running, layout_of(running), read_ranges()) is None


@pytest.mark.live
@needs_loops
@pytest.mark.parametrize("why", ["torn", "unreadable"])
def test_what_the_program_cannot_tell_is_read_from_copies(
    running: RunningKernel, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    layout, ranges = layout_of(running), read_ranges()
    scanner = proved_scanner(running, layout, ranges)
    first, last = next(iter(chunks(ranges)))

    def torn(self: FrameScanner, first: int, last: int) -> RawRuns:
        assert why == "torn", "the program must not look at memory that is not there"
        nothing = np.zeros(1, np.uint64)
        return RawRuns(
            np.array([first]), np.array([last - first]), nothing | TORN, nothing.astype(np.int32),
            nothing, nothing, nothing,
        )  # fmt: skip

    monkeypatch.setattr(FrameScanner, "runs", torn)
    if why == "unreadable":
        monkeypatch.setattr(scan, "_readable", lambda *_: False)
    found = raw_runs(running, layout, first, last, scanner)
    assert not (found.state & TORN).any()
    assert found.pages.sum() == last - first


@pytest.mark.live
@pytest.mark.parametrize("loads", [True, False])
def test_no_more_than_a_chunk_is_held(running: RunningKernel, loads: bool) -> None:
    reader = running if loads else running._replace(shortcuts=None)
    ranges = read_ranges() * (8 if loads else 2)  # as if there were that much RAM
    deque(scan_frames(reader, ranges[:1]), 0)
    tracemalloc.start()
    try:
        deque(scan_frames(reader, ranges), 0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A frame takes 64 bytes in a copy of its struct page, again in one without the free ones, 37 as
    # words and 49 in Frames; the batch before is still there. With as much again for what is in
    # between, that is less than 512.
    assert peak < 512 * CHUNK
