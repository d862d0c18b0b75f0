"""The columns themselves: taking rows, joining batches, and the closed vocabulary of states."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from pagewalk.pages import PRESENT_STATES, Counts, Holes, Leaves, Pages, State, join, take
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


def test_what_one_part_withholds_the_whole_withholds() -> None:
    first, second = cut(pages(ROWS), 7)
    assert join([first, replace(second, mapcount=None)]).mapcount is None


@pytest.mark.parametrize("columns", [Leaves, Holes, Pages, Counts])
def test_columns_of_a_batch_cannot_be_replaced(columns: type) -> None:
    empty = columns(*(np.zeros(0, np.uint64) for _ in fields(columns)))
    with pytest.raises(AttributeError):
        setattr(empty, fields(columns)[0].name, None)


def test_vma_sizes_are_bytes() -> None:
    assert VMAS.size.tolist() == [4 * 4096, 6 * 4096, 3 * 4096, 1024 * 4096]


def test_every_state_of_the_vocabulary_is_there_and_in_one_class() -> None:
    # The closed vocabulary, and what a source may be unable to tell apart.
    present = "anon file shmem zero special hugetlb device present"
    not_present = "empty swapped migrating poisoned guard marker soft doubt"
    assert {s.label for s in PRESENT_STATES} == set(present.split())
    others = {s.label for s in State} - set(present.split())
    assert others == {*not_present.split(), "not_mapped", "absent"}
