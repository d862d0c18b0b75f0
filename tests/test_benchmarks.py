"""The rows of the benchmarks' table."""

from __future__ import annotations

import pytest
from benchmarks.rows import Limit, Row


@pytest.mark.parametrize(
    ("ours", "theirs", "ratios", "met"),
    [
        ((3.0, 4.0), (1.0, 2.0), (3.0, 2.0), False),
        ((3.0, 4.0), (4.0,), (0.75, 1.0), True),
        ((3.0, 4.0), (0.0, 8.0), (0.5,), True),  # a clock too coarse for the opponent
        ((3.0, 4.0), (0.0, 0.0), (), None),
        ((3.0, 4.0), (), (), None),
        ((), (1.0,), (), None),
    ],
)
def test_rounds_in_which_the_opponent_took_no_time_have_no_ratio(
    ours: tuple[float, ...], theirs: tuple[float, ...], ratios: tuple[float, ...], met: bool | None
) -> None:
    row = Row("measure", "opponent", "ms", ours, theirs, Limit(1.5))
    assert row.ratios == ratios
    assert row.met is met
