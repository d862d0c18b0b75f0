"""Amounts of memory as people write them."""

import pytest

from pagewalk.model.errors import BadRequest
from pagewalk.model.sizes import parse_budget, parse_size

KIB, MIB = 1 << 10, 1 << 20


@pytest.mark.parametrize(("text", "bytes_"), [
    ("0", 0), ("4096", 4096), ("200M", 200 * MIB), ("1.5G", 1536 * MIB), ("1k", KIB),
    ("2T", 2 << 40),
    ("200MB", 200 * MIB), ("200MiB", 200 * MIB), ("0.001K", 1), ("7B", 7),
    ("9999999999999999999P", 9999999999999999999 << 50),
])
def test_sizes(text: str, bytes_: int) -> None:
    assert parse_size(text) == bytes_


@pytest.mark.parametrize("text", ["", "M", "-1", "1.", ".5", "1e3", "200X", "1 G", "nan", "1G\n",
                                  "\u0661"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(BadRequest, match="is not a size; give bytes, or a number with K"):
        parse_size(text)


@pytest.mark.parametrize("text", ["1", "200", "1K", "4095", "1.5K", "3.9k"])
def test_a_budget_of_less_than_a_page_lacks_its_unit(text: str) -> None:
    with pytest.raises(BadRequest, match=f"a budget of '{text}' is less than a page: give a size"):
        parse_budget(text)


@pytest.mark.parametrize(("text", "bytes_"), [("0", 0), ("4096", 4 * KIB), ("200M", 200 * MIB)])
def test_a_budget_is_none_or_a_page_at_least(text: str, bytes_: int) -> None:
    assert parse_budget(text) == bytes_
