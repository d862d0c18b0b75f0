"""pagewalk run as it is typed: its options. What it measures: tests/live/test_run.py."""

from __future__ import annotations

import pytest

from pagewalk.commands.run import BUDGETS
from pagewalk.history.budget import TITLES
from tests.live.command import pagewalk_here


def test_each_measure_can_have_a_budget() -> None:
    assert list(BUDGETS) == list(TITLES)


def test_quiet_is_about_the_report() -> None:
    said = " ".join(pagewalk_here("run", "--help").out.split())
    assert "--quiet Print no report on stderr if all budgets were kept." in said


@pytest.mark.parametrize("measure", BUDGETS)
def test_a_budget_without_its_unit_is_refused(measure: str) -> None:
    ran = pagewalk_here("run", f"--max-{measure}", "200", "true")
    assert ran.code == 2 and not ran.out
    assert "a budget of '200' is less than a page: give a size with a unit" in ran.err
