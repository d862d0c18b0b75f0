"""Columns as people name them, and the order of rows."""

from __future__ import annotations

import pytest

from pagewalk.commands.maps import Order, named, ordered, spelled
from pagewalk.model.errors import BadRequest

KNOWN = {"rss": "rss", "not_present": "not_present", "not_pres": "not_present", "pss": "pss"}


@pytest.mark.parametrize(("typed", "column"), [
    ("rss", "rss"), ("RSS", "rss"), (" Rss ", "rss"), ("not_present", "not_present"),
    ("NOT PRES", "not_present"), ("not-present", "not_present"),
])
def test_a_column_is_called_by_its_key_or_as_it_is_printed(typed: str, column: str) -> None:
    assert named(typed, KNOWN) == column


def test_the_nearest_name_is_suggested_and_without_one_all_are_listed() -> None:
    with pytest.raises(BadRequest, match="no column is called 'rs'; did you mean 'rss'"):
        named("rs", KNOWN)
    with pytest.raises(BadRequest, match=r"choose from: rss, not_present, pss$"):
        named("qqqqqq", KNOWN)


def test_a_heading_becomes_a_name() -> None:
    assert spelled("NO TABLE") == "no_table"


@pytest.mark.parametrize(("order", "limit", "rows"), [
    (None, None, [0, 1, 2, 3]), (None, 2, [0, 1]),
    (Order("rss", smallest=False), None, [3, 0, 2, 1]),
    (Order("rss", smallest=True), 2, [1, 0]),
])
def test_the_order_of_rows(order: Order | None, limit: int | None, rows: list[int]) -> None:
    assert ordered(4, [5, 1, 5, 9], order, limit) == rows


def test_where_amounts_are_withheld_the_order_stays() -> None:
    assert ordered(3, [], Order("pss", smallest=False), None) == [0, 1, 2]
