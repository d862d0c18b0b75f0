"""What every test shares: the live tests' rule, and the machine's set-ups."""

from __future__ import annotations

import os

import pytest

from tests.machine import prepare

__all__ = ["prepare"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip live tests for an ordinary user, unless PAGEWALK_LIVE=1 makes that a failure.

    In CI a live test that cannot run is a failure: there they run, and say what is missing.
    """
    if os.geteuid() == 0 or os.environ.get("PAGEWALK_LIVE") == "1":
        return
    skip = pytest.mark.skip(reason="live tests need root: run them as root, or set PAGEWALK_LIVE=1")
    for item in items:
        if item.get_closest_marker("live"):
            item.add_marker(skip)
