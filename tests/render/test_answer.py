"""The answer to a SELECT, whatever its columns and names are."""

import csv as reader
import io
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from pagewalk.render import answer
from pagewalk.render.answer import ABREAST, plain, unique

NAMES = ("pid", "name")


def text(rows: list[tuple[Any, ...]], *names: str, **options: Any) -> str:
    out = io.StringIO()
    assert answer.text(names or NAMES, rows, out, **options) == len(rows)
    return out.getvalue()


def test_numbers_stand_on_the_right_and_words_on_the_left() -> None:
    assert text([(5, "a"), (1234, None)]) == " PID  NAME\n   5  a\n1234  n/a\n"


def test_no_rows_are_told() -> None:
    assert text([]) == "PID NAME\nno rows\n"


def test_what_could_harm_a_terminal_is_escaped() -> None:
    shown = text([(1, "\x1b[31m\n\u202e")], "pid", "na\x1bme")
    assert "\x1b" not in shown and len(shown.splitlines()) == 2


def test_amounts_are_known_by_their_names() -> None:
    assert text([(1536, 1536)], "rss", "pid", in_units=True) == " RSS   PID\n1.5K  1536\n"


def test_a_long_answer_is_lined_up_in_parts() -> None:
    lines = text([(i, "x") for i in range(2 * ABREAST + 1)]).splitlines()
    assert len(lines) == 2 * ABREAST + 2 and lines[-1].split() == [str(2 * ABREAST), "x"]


def test_csv_comes_back() -> None:
    rows = [(5, 'a "b", c\n'), (None, "x\udcff"), (1.5, [1, "é"])]
    out = io.StringIO()
    answer.csv(NAMES, rows, out)
    assert list(reader.reader(io.StringIO(out.getvalue(), newline=""))) == [
        ["pid", "name"], ["5", 'a "b", c\n'], ["", "x\udcff"], ["1.5", '[1, "é"]']]


def document(rows: list[tuple[Any, ...]], *names: str) -> Any:
    out = io.StringIO()
    answer.as_json(names, rows, out, about={"recordings": []})
    return json.loads(out.getvalue())


@pytest.mark.parametrize("count", [0, 1, 2])
def test_json_is_a_document(count: int) -> None:
    found = document([(n, None) for n in range(count)], "a", "b")
    assert found["schema"] == "pagewalk/1" and found["columns"] == ["a", "b"]
    assert found["rows"] == [{"a": n, "b": None} for n in range(count)]


def test_no_value_is_lost_where_two_columns_have_one_name() -> None:
    assert document([(1, 2, 3)], "a", "a", "a_2")["rows"] == [{"a": 1, "a_2": 2, "a_2_2": 3}]
    assert unique(["a", "a_2", "a"]) == ["a", "a_2", "a_3"]


@pytest.mark.parametrize(("value", "said"), [
    (float("nan"), "nan"), (float("inf"), "inf"), (1 << 100, 1 << 100), (Decimal("1.50"), "1.50"),
    (datetime(2026, 1, 2, 3), "2026-01-02T03:00:00.000000Z"), (date(2026, 1, 2), "2026-01-02"),
    (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00.000000+00:00"),
    (b"\xff", "/w=="), ({"a": (1, None)}, {"a": [1, None]}), (timedelta(1), "1 day, 0:00:00"),
])
def test_every_type_has_a_form(value: Any, said: Any) -> None:
    assert plain(value) == said
    json.dumps(plain(value), allow_nan=False)
