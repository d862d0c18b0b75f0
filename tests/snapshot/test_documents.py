"""Typed results as text and back; what is not of the type is refused."""

import json
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import pytest

from pagewalk.model.columns import I64, Holes
from pagewalk.snapshot.documents import Malformed, from_text, to_text


class Colour(IntEnum):
    RED = 1


class Inner(NamedTuple):
    name: str
    sizes: dict[str, int | None]


class Outer(NamedTuple):
    inner: tuple[Inner, ...]
    colour: Colour
    column: I64
    rate: float
    pairs: list[tuple[int, str]]
    path: bytes
    later: int = 7


MADE = Outer((Inner("a\udcff", {"x": 1, "y": None}),), Colour.RED, np.arange(3), 0.5, [(1, "b")],
             b"/a\xff")


def test_a_result_comes_back_with_its_types() -> None:
    found = from_text(to_text(MADE), Outer)
    assert found.inner == MADE.inner and found.colour is Colour.RED
    assert found.column.tolist() == [0, 1, 2] and found.column.dtype == np.int64
    assert (found.rate, found.pairs, found.path) == (0.5, [(1, "b")], b"/a\xff")
    assert found.later == 7


def test_columns_come_back() -> None:
    made = Holes(np.array([1], np.uint64), np.array([2], np.uint64), np.array([3], np.uint8))
    found = from_text(to_text(made), Holes)
    assert [getattr(found, name).tolist() for name in found.names] == [[1], [2], [3]]


def test_columns_have_one_length() -> None:
    one = json.loads(to_text(Holes(np.zeros(1, np.uint64), np.zeros(1, np.uint64),
                                   np.zeros(1, np.uint8))))
    one[0] = json.loads(to_text(np.zeros(2, np.uint64)))
    with pytest.raises(Malformed, match="several lengths"):
        from_text(json.dumps(one), Holes)


def test_a_field_that_a_later_version_appended_has_its_default() -> None:
    older = json.dumps(json.loads(to_text(MADE))[:-1])
    assert from_text(older, Outer).later == 7


@pytest.mark.parametrize("text", [
    "", "{", "[]", "[1,2,3]", '[[["a",[]]],"BLUE",null,0.5,[],""]',
    '[[["a",[]]],"RED",{"dtype":"|O","shape":[1],"data":"AAAA"},0.5,[],""]',
    '[[["a",[]]],"RED",{"dtype":"<i8","shape":[9],"data":"AAAA"},0.5,[],""]',
    '[[[1,[]]],"RED",{"dtype":"<i8","shape":[0],"data":""},0.5,[],""]',
    '[[["a",[]]],"RED",{"dtype":"<f8","shape":[0],"data":""},0.5,[],""]',
    "[" * 100_000,
])
def test_what_is_not_of_the_type_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        from_text(text, Outer)
