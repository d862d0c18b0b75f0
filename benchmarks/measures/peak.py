"""The peak memory of the whole command, which must not grow with the target."""

from __future__ import annotations

import sys

from benchmarks.opponents import output
from benchmarks.processes import available_mib, own
from benchmarks.rows import Limit, Of, Plan, Row, size

# VmHWM belongs to the address space: unlike ru_maxrss, it starts from 0 at exec.
SHOW = """
import sys
from pathlib import Path
from pagewalk.cli import main
main(["show", sys.argv[1], "--source", "procfs", "--output", "/dev/null"])
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))
"""

# The most that Python and numpy hold. The process has more: the interpreter, the libraries, and
# holes between allocations of different sizes, which vary from run to run.
HELD = """
import sys, tracemalloc
tracemalloc.start()
from pagewalk.cli import main
main(["show", sys.argv[1], "--source", "procfs", "--output", "/dev/null"])
print(tracemalloc.get_traced_memory()[1])
"""

LIMIT_MB = 150.0
# The batches are the same, but not their layout: a batch has 2**18 frames, and if each is a run of
# its own in RAM, nine columns of runs are as long as those of frames: 19 MB on top of the 43 that
# are held anyway. If size mattered, four times the size would take four times the memory.
SAME = 1.45
RUNS = 3  # peaks hardly vary
# How much has to stay free besides the target, in MiB.
SPARE = 3072


def peak(plan: Plan) -> list[Row]:
    """Show 1, 4 and 16 GiB of anonymous memory, and as much of one file mapped repeatedly."""
    rows = []
    for kind, what in (("anon", "dense"), ("file", "one file mapped often")):
        sizes = [plan.mib(gib) for gib in (1, 4, 16)]
        got, held = {}, {}
        for mib in sizes:
            if fits(kind, mib):
                got[mib], held[mib] = peaks(kind, mib)
        names = {mib: f"peak memory of show, {what}, {size(mib)}" for mib in sizes}
        for mib in sizes:
            why = "" if mib in got else f"the machine does not have {size(mib)} to spare"
            rows.append(Row(names[mib], "", "MB", got.get(mib, ()),
                            limit=Limit(LIMIT_MB, Of.WORST), missing=why))
        if sizes[2] in got:
            other = f"itself on {size(sizes[1])}"
            rows.append(Row(names[sizes[2]], other, "MB", got[sizes[2]], got[sizes[1]]))
            rows.append(Row(f"held at most by show, {what}, {size(sizes[2])}", other, "MB",
                            held[sizes[2]], held[sizes[1]], Limit(SAME)))
    return rows


def fits(kind: str, mib: int) -> bool:
    return kind == "file" or available_mib() > mib + SPARE


def peaks(kind: str, mib: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    # MB for each run of the command: of the process, and held.
    with own("populated", kind, mib) as pid:
        whole, held = (
            [int(output([sys.executable, "-c", script, str(pid)])) for _ in range(RUNS)]
            for script in (SHOW, HELD)
        )
    return tuple(kib * 1024 / 1e6 for kib in whole), tuple(amount / 1e6 for amount in held)
