"""How much memory the whole command takes at most, and that it is not the target's size."""

from __future__ import annotations

import sys

from benchmarks.opponents import output
from benchmarks.processes import available_mib, own
from benchmarks.rows import Limit, Of, Plan, Row, size

# VmHWM belongs to the address space: unlike ru_maxrss it starts anew at exec.
SHOW = """
import sys
from pathlib import Path
from pagewalk.cli import main
main(["show", sys.argv[1], "--source", "procfs", "--output", "/dev/null"])
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))
"""

LIMIT_MB = 150.0
# The same work on the same batches: only the allocator's rounding may differ. A full batch holds
# the pages of 2 GiB, so that a smaller target takes less.
SAME = 1.1
RUNS = 3  # peaks hardly vary
# What has to stay free beside the target, in MiB.
SPARE = 3072


def peak(plan: Plan) -> list[Row]:
    """Show 1, 4 and 16 GiB of anonymous memory, and as much of one file that is mapped often."""
    rows = []
    for kind, what in (("anon", "dense"), ("file", "one file mapped often")):
        sizes = [plan.mib(gib) for gib in (1, 4, 16)]
        got = {mib: peaks(kind, mib) for mib in sizes if fits(kind, mib)}
        names = {mib: f"peak memory of show, {what}, {size(mib)}" for mib in sizes}
        for mib in sizes:
            why = "" if mib in got else f"the machine has not {size(mib)} to spare"
            rows.append(Row(names[mib], "", "MB", got.get(mib, ()),
                            limit=Limit(LIMIT_MB, Of.WORST), missing=why))
        if sizes[2] in got:
            rows.append(Row(names[sizes[2]], f"itself on {size(sizes[1])}", "MB", got[sizes[2]],
                            got[sizes[1]], Limit(SAME)))
    return rows


def fits(kind: str, mib: int) -> bool:
    return kind == "file" or available_mib() > mib + SPARE


def peaks(kind: str, mib: int) -> tuple[float, ...]:
    # MB of each run of the command.
    with own("populated", kind, mib) as pid:
        command = [sys.executable, "-c", SHOW, str(pid)]
        return tuple(int(output(command)) * 1024 / 1e6 for _ in range(RUNS))
