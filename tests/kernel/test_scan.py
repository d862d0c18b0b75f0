"""All of RAM as runs: each frame once, and the sums that meminfo gives."""

from __future__ import annotations

import pytest

from pagewalk.kernel.open import open_bpf
from pagewalk.kernel.running import open_running
from pagewalk.kernel.scan import chunks, scan_frames
from pagewalk.kernel.structs.frame_runs import CHUNK
from pagewalk.proc.iomem import read_ranges


def test_chunks_end_where_no_block_is_cut() -> None:
    assert list(chunks([(1, 0x9F)])) == [(1, 0x9F)]
    ends = [last for _, last in chunks([(0x100, 3 * CHUNK + 5)])]
    assert ends == [CHUNK, 2 * CHUNK, 3 * CHUNK, 3 * CHUNK + 5]


@pytest.mark.live
def test_each_frame_of_ram_is_in_one_run() -> None:
    ranges = read_ranges()
    with_reader = open_running(open_bpf())
    try:
        at = ranges[0][0]
        left = list(ranges)
        for frames in scan_frames(with_reader, ranges):
            for first, pages in zip(frames.pfn.tolist(), frames.pages.tolist(), strict=True):
                if first != at:
                    left.pop(0)
                    at = left[0][0]
                assert first == at
                at += pages
        assert at == ranges[-1][1]
    finally:
        with_reader.kernel.close()
