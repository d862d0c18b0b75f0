"""Columns as other programs read them, without a copy; and what to install for that."""

import sys

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from pagewalk.model.arrow import arrow, integers, strings
from pagewalk.model.columns import Amounts, Backing, Pages, Shared, State, VMAs
from pagewalk.model.errors import PackageMissing
from tests.snapshot.by_hand import PAGE, pages

MADE = pages([(PAGE, 0, State.ANON, 7), (2 * PAGE, 1, State.FILE, 1 << 63)])


def test_a_missing_package_is_named_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # import fails
    with pytest.raises(PackageMissing, match=r"record needs .* pyarrow.*-m pip install pyarrow"):
        arrow("record")


@pytest.mark.parametrize("made", [
    MADE, Amounts(MADE.vma, MADE.state, MADE.level, MADE.flags, MADE.size, MADE.kflags),
    Shared(MADE.vma, MADE.addr, MADE.size, MADE.addr, MADE.level),
], ids=lambda made: type(made).__name__)
def test_no_number_is_copied(made: Pages | Amounts | Shared) -> None:
    table = pa.table(made)
    assert table.column_names == list(made.names)
    for name in made.names:
        values, (found,) = getattr(made, name), table.column(name).chunks
        if values is None:
            assert found.null_count == len(made)
            continue
        if pa.types.is_dictionary(found.type):
            found = found.indices
        assert found.buffers()[1].address == values.ctypes.data, name


def test_a_small_number_is_its_word() -> None:
    assert pa.table(MADE).column("state").to_pylist() == ["anon", "file"]
    assert pa.table(MADE).column("pfn").to_pylist() == [7, 1 << 63]


def test_every_column_has_the_same_type_whether_it_was_read_or_not() -> None:
    hidden = Pages(*(None if name in ("pfn", "kflags", "mapcount") else getattr(MADE, name)
                     for name in MADE.names))
    assert pa.table(hidden).schema == pa.table(MADE).schema
    assert pa.table(hidden).column("mapcount").to_pylist() == [None, None]


def test_names_of_mappings_are_utf8() -> None:
    words, small = np.zeros(1, np.uint64), np.array([Backing.SHMEM], np.uint8)
    made = VMAs(words, words, small, words, words, words, small, ("a\udcff\\x",))
    (row,) = pa.table(made).to_pylist()
    assert (row["name"], row["backing"], row["flags"]) == (r"a\xff\x5cx", "shmem", None)


def test_pandas_polars_and_duckdb_read_them() -> None:
    made = MADE
    sums = pd.DataFrame.from_arrow(made).groupby("state", observed=True)["size"].sum()
    assert sums.to_dict() == {"anon": PAGE, "file": PAGE}
    assert pl.DataFrame(made)["addr"].to_list() == [PAGE, 2 * PAGE]
    assert duckdb.sql("select state, pfn from made order by addr").fetchall() == [
        ("anon", 7), ("file", 1 << 63)]


def test_columns_that_are_made_without_pyarrow_array_are_the_same() -> None:
    values = np.array([1, -5, 1 << 62], np.int64)
    known = np.array([True, False, True])
    assert integers(values).equals(pa.array(values))
    assert integers(values[::2]).equals(pa.array(values[::2]))
    assert integers(values, known).equals(pa.array([1, None, 1 << 62], pa.int64()))
    many = np.arange(20) % 3 != 0
    assert integers(np.arange(20), many).null_count == 7
    texts = ["a", None, "", "é\udcff", "\\x"]
    assert strings(texts).equals(pa.array(["a", None, "", "é\\xff", "\\x5cx"], pa.string()))
    assert strings([]).equals(pa.array([], pa.string()))
    for one in (integers(values, known), strings(texts)):
        one.validate(full=True)
