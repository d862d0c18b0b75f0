"""Rows by frame, in memory and in pieces on disk: all of them, sorted, no frame in two batches."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagewalk.model.columns import I32, I64, U8, Rows, join
from pagewalk.system.sorted_rows import SortedRows


class Numbered(Rows):
    """Rows that tell in which order they were added."""

    pfn: I64
    number: I32
    kind: U8


def numbered(pfns: list[int], first: int) -> Numbered:
    count = np.arange(first, first + len(pfns))
    return Numbered(np.array(pfns, np.int64), count.astype(np.int32),
                    (count % 251).astype(np.uint8))


@given(st.lists(st.lists(st.integers(0, 30), max_size=40), max_size=8), st.integers(1, 20))
def test_rows_come_back_by_frame_in_the_order_of_adding(parts: list[list[int]], piece: int) -> None:
    rows, first = SortedRows(Numbered, piece=piece), 0
    for part in parts:
        rows.add(numbered(part, first))
        first += len(part)
    every = [pfn for part in parts for pfn in part]
    assert len(rows) == len(every)
    batches = list(rows.batches())
    rows.close()
    expected = sorted(enumerate(every), key=lambda pair: pair[1])
    whole = join(batches) if batches else numbered([], 0)
    assert whole.pfn.tolist() == [pfn for _, pfn in expected]
    assert whole.number.tolist() == [number for number, _ in expected]
    assert whole.kind.tolist() == [number % 251 for number, _ in expected]
    for one, two in pairwise(batches):
        assert one.pfn[-1] < two.pfn[0]
    for batch in batches:
        assert len(batch)


def test_many_rows_are_on_disk_in_a_file_without_a_name(tmp_path: Path) -> None:
    rows = SortedRows(Numbered, piece=100, folder=str(tmp_path))
    assert open_below(tmp_path) == []
    rows.add(numbered(list(range(1000))[::-1], 0))
    # Each batch holds about as many rows as a piece; 13 bytes each are in the file.
    assert max(len(batch) for batch in rows.batches()) <= 200
    assert [size for _, size in open_below(tmp_path)] == [1000 * 13]
    assert list(tmp_path.iterdir()) == []
    rows.close()
    assert open_below(tmp_path) == []
    rows.close()


def open_below(folder: Path) -> list[tuple[str, int]]:
    """Return the files in ``folder`` that this process has open, and their sizes."""
    found = []
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of this list itself
            path = os.readlink(fd)
            if path.startswith(f"{folder}/"):
                found.append((path, fd.stat().st_size))
    return found


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    rows = SortedRows(Numbered, piece=1, folder=str(tmp_path / "missing"))
    with pytest.raises(OSError, match="missing"):
        rows.add(numbered([3, 2, 1], 0))
