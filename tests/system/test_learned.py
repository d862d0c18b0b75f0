"""What was learned about an address is not asked again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagewalk.model.columns import I64, U64
from pagewalk.system import learned
from pagewalk.system.learned import Learned
from tests.system import large

ADDRESSES = st.lists(st.integers(0, 20), max_size=30)


@given(ADDRESSES, ADDRESSES)
def test_each_address_is_looked_up_once(first: list[int], second: list[int]) -> None:
    asked: list[int] = []

    def learn(addresses: U64) -> I64:
        asked.extend(addresses.tolist())
        return addresses.astype(np.int64) * 3

    known = Learned(learn)
    for some in (first, second):
        assert known.of(np.array(some, np.uint64)).tolist() == [3 * one for one in some]
    assert sorted(asked) == sorted({*first, *second})


def test_what_is_too_much_is_forgotten_and_looked_up_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(learned, "_MOST", 5)
    asked: list[int] = []

    def learn(addresses: U64) -> I64:
        asked.extend(addresses.tolist())
        return addresses.astype(np.int64) * 3

    some = Learned(learn)
    for last in (6, 6, 8, 6):
        assert some.of(np.arange(last, dtype=np.uint64)).tolist() == list(range(0, 3 * last, 3))
    assert asked == [*range(6), *range(8)]


def test_256_gib_take_less_than_150_mb() -> None:
    assert large.measured("systems")[0] < 150
