"""A pytest plugin for guests: it writes what each test came to into a file of the host.

So a guest that is stopped at its limit, or crashes, has told what ran until then, and the next part
of the round leaves it out.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vmtest.rounds import NAME, read_parts, settled


def tell(**row: object) -> None:
    """Append one line of JSON."""
    with open(Path(os.environ["VMTEST_OUTPUT"]) / NAME, "a") as file:
        file.write(json.dumps(row) + "\n")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tell which tests the round has, and on what it runs; drop those that need not run again."""
    tell(collected=[item.nodeid for item in items], release=os.uname().release,
         commit=os.environ["VMTEST_COMMIT"], cpus=os.cpu_count())
    done = settled(read_parts(Path(os.environ["VMTEST_PARTS"])))
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in done])
    items[:] = [item for item in items if item.nodeid not in done]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell how a test ended; one that fails to set up or to clean up has failed."""
    if report.when == "call" or report.outcome != "passed":
        tell(test=report.nodeid, outcome=report.outcome, seconds=round(report.duration, 1),
             text=report.longreprtext)
