"""Measure how long a process waits for mmap while a tool looks at it: python -m scripts.waits.

The figures of docs/comparison.md are from here. A thread of a process of 2 GiB maps and unmaps a
page without end; for each tool this prints its longest wait in milliseconds, the median of ROUNDS
and, in parentheses, the least and the most. The tools take turns; the first row is without any.
Needs root and the extra `test`; a tool that is not installed is left out.
"""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from statistics import median

from tests.targets import start

MIB, ROUNDS, SECONDS = 2048, 7, 3
# PID stands for the process. "-" waits as long as htop is shown.
TOOLS = (
    "-",
    "pagewalk PID", "pagewalk PID --source procfs", "pagewalk explain PID", "pagewalk heap PID",
    "pmap PID", "pmap -x PID", "pmap -X PID", "top -b -n 1", "htop", "smem", "page-types -p PID",
)


def look(words: list[str]) -> None:
    """Run one tool: htop on a terminal for SECONDS, the others until they end."""
    if words == ["-"]:
        time.sleep(SECONDS)
    elif words[0] == "htop":
        on_a_terminal(words)
    else:
        command = [sys.executable, "-m", *words] if words[0] == "pagewalk" else words
        subprocess.run(command, check=False, capture_output=True)


def on_a_terminal(words: list[str]) -> None:
    ours, theirs = pty.openpty()
    with tempfile.TemporaryDirectory() as folder, subprocess.Popen(
        words, stdin=theirs, stdout=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, "TERM": "xterm", "HTOPRC": f"{folder}/htoprc"},  # not the user's own
    ) as process:
        time.sleep(SECONDS)
        process.send_signal(signal.SIGTERM)
    os.close(ours)
    os.close(theirs)


def main() -> None:
    tools = [tool for tool in TOOLS if tool.split()[0] in ("-", "pagewalk")
             or shutil.which(tool.split()[0])]
    waits: dict[str, list[float]] = {tool: [] for tool in tools}
    with start("mapper", MIB) as target:
        for _ in range(ROUNDS):
            for tool in tools:
                target.tell("stall")  # begins anew
                look(tool.replace("PID", str(target.pid)).split())
                waits[tool].append(target.tell("stall")["worst_ns"] / 1e6)
    for tool, found in waits.items():
        print(f"{median(found):8.2f}  ({min(found):.2f} to {max(found):.2f})  {tool}")


if __name__ == "__main__":
    main()
