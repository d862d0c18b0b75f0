"""Chunks of RAM, put together to batches: nothing lost, and never too many at once."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.model.columns import join
from pagewalk.model.errors import SourceUnavailable
from pagewalk.model.frames import Frames, Kind
from pagewalk.sources import ram
from tests.system.by_hand import Run, frames


def chunk(number: int, runs: int) -> Frames:
    return frames(*(Run(Kind.ANON, 2, mapcount=at) for at in range(runs)), first=number << 16)


@pytest.mark.parametrize(
    ("runs", "batches"),
    [
        ([1] * 35, [16, 16, 3]),  # 4 GiB of RAM at most
        ([40, 40, 40, 7], [80, 47]),
        ([90, 60, 1], [90, 61]),  # a chunk is never cut
        ([], []),
    ],
)
def test_chunks_become_batches(
    monkeypatch: pytest.MonkeyPatch, runs: list[int], batches: list[int]
) -> None:
    monkeypatch.setattr(ram, "_RUNS", 70)
    every = [chunk(number, many) for number, many in enumerate(runs)]
    found = list(ram._together(iter(every)))
    assert [len(batch) for batch in found] == batches
    for batch, one in zip([join(found)] if found else [], [join(every)] if every else [],
                          strict=True):
        for name in Frames.names:
            assert np.array_equal(getattr(batch, name), getattr(one, name))


def test_what_needs_kernel_memory_refuses_procfs() -> None:
    with pytest.raises(SourceUnavailable, match="cannot read kernel memory"):
        ram.open_ram("procfs", kernel=True)
