"""What every test shares: the live tests' rule, and the machine's set-ups."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from tests import plain_numbers
from tests.machine import MachineLacks, prepare
from tests.targets import CannotProvoke

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Skip in a guest what its old kernel cannot be made to do; on the host that is a failure.

    The targets and set-ups are made for the newest kernel, which runs here, or it would go unseen.
    Nothing that a test runs may let numpy ask an enum: see plain_numbers.
    """
    try:
        with plain_numbers.watched() as asked:
            yield
    except (CannotProvoke, MachineLacks) as reason:
        if in_guest():
            pytest.skip(str(reason))
        raise
    assert asked == set(), "numpy loses a Ctrl-C here: give it a plain number"


def in_guest() -> bool:
    """Return whether vmtest booted the kernel that runs here."""
    return "VMTEST_KERNEL" in os.environ
