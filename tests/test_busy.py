"""The work alongside a command runs as long as the command does, and ends with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import left

ROOT = Path(__file__).parents[1]


def test_work_runs_alongside_the_command_and_ends_with_it() -> None:
    # The command's parent is busy.py, whose other children are the workers.
    look = "sleep 0.2; cat /proc/$PPID/task/$PPID/children | wc -w; exit 3"
    done = subprocess.run(
        [sys.executable, "-m", "tests.busy", "--jobs", "2", "--", "sh", "-c", look],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, left.MARK: "busy"},
    )
    assert (done.returncode, done.stdout) == (3, "3\n"), done.stderr
    assert left.lasting("busy") == []
