"""pagewalk run as it is typed: its options. What it measures: tests/live/test_run.py."""

from __future__ import annotations

from pagewalk.commands.run import BUDGETS
from pagewalk.history.budget import TITLES


def test_each_measure_can_have_a_budget() -> None:
    assert list(BUDGETS) == list(TITLES)
