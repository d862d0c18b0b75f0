"""Run a command alongside other work, as on a build machine: python -m tests.busy -- COMMAND.

As many workers as there are CPUs keep compiling C files and starting programs, so that CPU time is
scarce and the pages of libc are mapped and unmapped all the time. They end with the command.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCES = Path(__file__).parent / "targets"
# A compiler forks an assembler and both map big libraries; the others are small and short-lived, so
# they map libc more often. The script ends by itself when its parent is gone, for whatever reason.
WORK = """
while kill -0 $PPID 2>&-; do
    for source in "$0"/*.c; do cc -O2 -c -o "$1/$$.o" "$source"; done
    "$2" -c 'import decimal, json, socket'
    for round in 1 2 3 4 5 6 7 8 9 10; do ls -l /usr/bin | sort | wc -l; done
done
"""


@contextmanager
def busy(jobs: int) -> Iterator[None]:
    """Keep ``jobs`` CPUs busy until the block ends."""
    with tempfile.TemporaryDirectory(prefix="busy-") as folder:
        words = ["sh", "-c", WORK, str(SOURCES), folder, sys.executable]
        # Each in its own process group: what a worker has started ends with it.
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        workers = [subprocess.Popen(words, process_group=0, **quiet) for _ in range(jobs)]
        try:
            yield
        finally:
            for worker in workers:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()


def main() -> int:
    """Run the command, and exit with its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.busy", description=__doc__)
    cpus = len(os.sched_getaffinity(0))
    parser.add_argument("--jobs", type=int, default=cpus, help="workers (default: one per CPU)")
    parser.add_argument("command", nargs="+", help="put -- before it")
    arguments = parser.parse_args()
    with busy(arguments.jobs), subprocess.Popen(arguments.command) as command:
        while True:
            try:
                return command.wait()
            except KeyboardInterrupt:  # the command got it too, and has to clean up
                continue


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
