"""The columns themselves: taking rows and joining batches."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from pagewalk.model.columns import (
    EXEC,
    READ,
    SHARED,
    WRITE,
    Amounts,
    Holes,
    Leaves,
    Pages,
    join,
    perms_text,
    take,
)
from tests.by_hand import ROWS, VMAS, cut, pages


def rows_of(columns: Pages) -> list[tuple[int | None, ...]]:
    lists = [
        [None] * len(columns) if (c := getattr(columns, f.name)) is None else c.tolist()
        for f in fields(columns)
    ]
    return list(zip(*lists, strict=True))


@pytest.mark.parametrize("rows", [slice(2, 5), np.array([4, 0]), np.arange(len(ROWS)) % 3 == 0])
def test_take_picks_the_same_rows_of_every_column(rows: slice | np.ndarray) -> None:
    whole = pages(ROWS)
    picked = np.arange(len(ROWS))[rows].tolist()
    assert rows_of(take(whole, rows)) == [rows_of(whole)[i] for i in picked]


@pytest.mark.parametrize("frames", [True, False])
def test_join_undoes_cutting(frames: bool) -> None:
    whole = pages(ROWS, frames=frames)
    assert rows_of(join(list(cut(whole, 4)))) == rows_of(whole)


def test_a_column_withheld_by_one_part_is_withheld_by_the_whole() -> None:
    first, second = cut(pages(ROWS), 7)
    assert join([first, replace(second, mapcount=None)]).mapcount is None


@pytest.mark.parametrize("columns", [Leaves, Holes, Pages, Amounts])
def test_columns_of_a_batch_cannot_be_replaced(columns: type) -> None:
    empty = columns(*(np.zeros(0, np.uint64) for _ in fields(columns)))
    with pytest.raises(AttributeError):
        setattr(empty, fields(columns)[0].name, None)


def test_vma_sizes_are_bytes() -> None:
    assert VMAS.size.tolist() == [4 * 4096, 6 * 4096, 3 * 4096, 1024 * 4096]


@pytest.mark.parametrize(
    ("word", "expected"),
    [(0, "---p"), (READ, "r--p"), (READ | WRITE, "rw-p"), (READ | EXEC, "r-xp"),
     (READ | WRITE | SHARED, "rw-s"), (READ | WRITE | EXEC | SHARED, "rwxs")],
)
def test_permissions_are_written_as_in_maps(word: int, expected: str) -> None:
    assert perms_text(word) == expected
