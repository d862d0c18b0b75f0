"""The comparison of two recordings: its time beside that of reading both, and its memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.opponents import output, timed
from benchmarks.processes import available_mib
from benchmarks.rows import Limit, Of, Plan, Row, interleave, size
from pagewalk.cli import main
from pagewalk.history.diff import diff
from pagewalk.history.matching import match
from pagewalk.history.sides import RecordedSide
from pagewalk.snapshot.read import Recording
from pagewalk.sources.recorded_space import PAGE_COLUMNS

# Every page of it is a run of its own: a child has copied every second one. Told to, it copies half
# of the others.
SHARED = """
import mmap, os, signal, sys
import numpy as np
size = int(sys.argv[1]) << 20
memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(15)  # MADV_NOHUGEPAGE
page = mmap.PAGESIZE
bytes = np.frombuffer(memory, np.uint8)
bytes[::page] = 1
ready, told = os.pipe()
if not os.fork():
    bytes[::2 * page] = 2
    os.write(told, b"x")
    signal.pause()
os.read(ready, 1)
print("ready", flush=True)
sys.stdin.readline()
bytes[page : size // 2 : 2 * page] = 3
print("done", flush=True)
sys.stdin.readline()
"""
PEAK = """
import sys
from pathlib import Path
from pagewalk.cli import main
main(["diff", *sys.argv[1:], "--output", "/dev/null"])
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))
"""
RATIO = 10.0
# A row group of each side is 2**17 runs of 12 columns, 12 MB, which is held as Parquet, as Arrow,
# as columns and side by side; the libraries take 90 MB.
LIMIT_MB = 350.0
# From the size on at which a file has more than one row group, nothing is larger.
SAME = 1.25
SPARE = 3072


def diffs(plan: Plan) -> list[Row]:
    """Compare two recordings of 4 GiB whose pages all are runs of their own; 1 GiB for memory."""
    rows, peaks = [], {}
    with TemporaryDirectory(prefix="pagewalk-", dir="/var/tmp") as folder:
        for mib in (plan.mib(1), plan.mib(4)):
            what = f"diff of two recordings, {size(mib)}, a run a page"
            if available_mib() < mib * 3 // 2 + SPARE:
                rows.append(Row(what, "", "ms",
                                missing=f"the machine does not have {size(mib)} to spare"))
                continue
            files = recordings(Path(folder), mib)
            peaks[mib] = [int(output([sys.executable, "-c", PEAK, *files])) * 1024 / 1e6
                          for _ in range(3)]
            rows.append(Row(f"peak memory of {what}", "", "MB", tuple(peaks[mib]),
                            limit=Limit(LIMIT_MB, Of.WORST)))
            if mib == plan.mib(4):
                rows += measured(plan, what, files)
    if len(peaks) == 2:
        small, large = peaks.values()
        rows.append(Row("peak memory of diff, 4 times the size", "itself on the smaller", "MB",
                        tuple(large), tuple(small), Limit(SAME)))
    return rows


def measured(plan: Plan, what: str, files: list[str]) -> list[Row]:
    got = interleave(plan.rounds, {
        "diff": lambda: timed(lambda: compare(files)), "read": lambda: timed(lambda: read(files)),
    })
    return [Row(what, "reading the rows of pages of both", "ms", got["diff"], got["read"],
                Limit(RATIO))]


def recordings(folder: Path, mib: int) -> list[str]:
    """Record a process before and after it has changed."""
    files = [str(folder / f"{name}-{mib}.pagewalk") for name in ("before", "after")]
    command = [sys.executable, "-c", SHARED, str(mib)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          start_new_session=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            for file in files:
                process.stdout.readline()
                if main(["record", str(process.pid), "-o", file, "--physical", "--quiet"]):
                    raise RuntimeError("it could not be recorded")
                process.stdin.write("\n")
                process.stdin.flush()
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    return files


def compare(files: list[str]) -> None:
    before, after = (RecordedSide(Recording(file)) for file in files)
    found = diff(before, after, match(before.members(), after.members(), True))
    if not found.whole.bytes.get("copied") or found.unexplained:
        raise RuntimeError(f"what was copied is not told: {json.dumps(found.whole.bytes)}")


def read(files: list[str]) -> None:
    for file in files:
        for _ in Recording(file).parts("page", PAGE_COLUMNS):
            pass
