"""Columns of rows as numbers and text: what is null, and what no name can be."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pagewalk.model.arrow import escaped
from pagewalk.model.errors import BadRecording
from pagewalk.snapshot.part import Part, unescaped, whole_numbers


def part(**columns: object) -> Part:
    return Part(pa.table(columns), "a.pagewalk")


@pytest.mark.parametrize("chunks", [
    [[1, None, -3], [None]], [[1, 2]], [[]], [[], [5]], [list(range(70)), [None] * 9 + [7]],
])
def test_numbers_are_what_pyarrow_makes_of_them(chunks: list[list[int | None]]) -> None:
    column = pa.chunked_array(chunks, pa.int64())
    for part in (column, column.slice(1), column.slice(1, max(len(column) - 2, 0))):
        wanted = [-1 if one is None else one for one in part.to_pylist()]
        assert whole_numbers(part, -1).tolist() == wanted


def test_a_column_that_is_null_throughout_is_none_and_a_single_null_is_zero() -> None:
    rows = part(none=pa.nulls(2, pa.int64()), some=[None, 7], all=[5, 7])
    assert rows.numbers("none") is None
    some = rows.numbers("some")
    assert some is not None and some.tolist() == [0, 7]
    assert rows.needed("all").tolist() == [5, 7] and rows.values("some") == [None, 7]
    with pytest.raises(BadRecording, match=r"a\.pagewalk.*a row has no some"):
        rows.needed("some")


@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int32(), pa.string())])
def test_text_is_what_was_escaped_whatever_column_it_is_in(kind: pa.DataType) -> None:
    names = ["a", None, "b\udcff", "\\x41", "a"]
    column = pa.array([None if one is None else escaped(one) for one in names], pa.string())
    rows = Part(pa.table({"name": pa.chunked_array([column.cast(kind)])}), "a.pagewalk")
    assert rows.texts("name") == names
    assert [rows.text("name", at) for at in range(5)] == [one or "" for one in names]
    assert len(rows.without("name")) == 1


def test_labels_are_rows_of_their_values() -> None:
    rows = part(state=["anon", "file", "anon"], gap=["anon", None, None])
    codes, names = rows.codes("state")
    assert [names[code] for code in codes] == ["anon", "file", "anon"]
    with pytest.raises(BadRecording, match="a row has no gap"):
        rows.codes("gap")


@pytest.mark.parametrize("text", [
    "", "plain", "\\x", "\\x5c", "\\xff", "\udc80\udcff", "é\\x41\udce9", "\\\\x"])
def test_names_that_are_not_utf8_survive(text: str) -> None:
    escaped(text).encode()
    assert unescaped(escaped(text)) == text
