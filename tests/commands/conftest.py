"""What tests in a real terminal have in common: a process to look at, and windows."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.commands.test_watch import Window
from tests.targets import asleep


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Return a process that does nothing."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            asleep(process.pid, "sleep")
            yield process
        finally:
            process.kill()


@pytest.fixture
def windows() -> Iterator[list[Window]]:
    """Return a list of windows, which are closed at the end."""
    opened: list[Window] = []
    yield opened
    for window in opened:
        window.close()
