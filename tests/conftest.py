"""What all tests share: the rule for live tests, and the machine's set-ups."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator

import pytest

from tests import left, plain_numbers
from tests.machine import IN_GUEST, MachineLacks, disk, prepare
from tests.targets import CannotProvoke

__all__ = ["disk", "prepare"]


def pytest_sessionstart() -> None:
    """Make SIGTERM, as from timeout(1), end a run like Ctrl-C, with everything put back."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def nothing_left(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Fail if the live tests have changed the machine or left anything behind."""
    if os.geteuid() or not any(item.get_closest_marker("live") for item in request.session.items):
        yield
        return
    with left.nothing(tmp_path_factory.getbasetemp()):
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip live tests for an ordinary user, unless PAGEWALK_LIVE=1 makes that a failure.

    In CI a live test that cannot run is a failure: it runs anyway, and says what is missing.
    """
    if os.geteuid() == 0 or os.environ.get("PAGEWALK_LIVE") == "1":
        return
    skip = pytest.mark.skip(reason="live tests need root: run them as root, or set PAGEWALK_LIVE=1")
    for item in items:
        if item.get_closest_marker("live"):
            item.add_marker(skip)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Skip in a guest what its old kernel cannot do; on the host that is a failure.

    The targets and set-ups are made for the newest kernel, which is the host's: a skip there would
    go unnoticed. No test may make numpy look up attributes on an enum: see plain_numbers.
    """
    try:
        with plain_numbers.watched() as asked:
            yield
    except (CannotProvoke, MachineLacks) as reason:
        if IN_GUEST:
            pytest.skip(str(reason))
        raise
    assert asked == set(), "numpy loses a Ctrl-C here: give it a plain number"
