"""A pytest plugin for guests: it writes what each test came to into a file of the host.

So a guest that is stopped at its limit, or crashes, has told what ran until then.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

NAME = "results.jsonl"


def tell(**row: object) -> None:
    """Append one line of JSON."""
    with open(Path(os.environ["VMTEST_OUTPUT"]) / NAME, "a") as file:
        file.write(json.dumps(row) + "\n")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tell how many tests are to come, and the kernel they run on."""
    tell(collected=len(session.items), release=os.uname().release)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell how a test ended; one that fails to set up or to clean up has failed."""
    if report.when == "call" or report.outcome != "passed":
        tell(test=report.nodeid, outcome=report.outcome, seconds=round(report.duration, 1),
             text=report.longreprtext)
