"""What was learned about an address is not asked again."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pagewalk.model.columns import I64, U64
from pagewalk.system.learned import Learned

ADDRESSES = st.lists(st.integers(0, 20), max_size=30)


@given(ADDRESSES, ADDRESSES)
def test_each_address_is_looked_up_once(first: list[int], second: list[int]) -> None:
    asked: list[int] = []

    def learn(addresses: U64) -> I64:
        asked.extend(addresses.tolist())
        return addresses.astype(np.int64) * 3

    learned = Learned(learn)
    for some in (first, second):
        assert learned.of(np.array(some, np.uint64)).tolist() == [3 * one for one in some]
    assert sorted(asked) == sorted({*first, *second})
