"""The whole command, as a user waits for it, on the smallest process; and what import costs."""

from __future__ import annotations

import sys

from benchmarks.opponents import PAGEWALK, output, whole
from benchmarks.processes import own
from benchmarks.rows import Limit, Of, Plan, Row, interleave

PSUTIL = """
import psutil, sys
process = psutil.Process(int(sys.argv[1]))
print(process.memory_full_info(), process.memory_maps(grouped=False))
"""

IMPORTS = """
from time import perf_counter_ns as now
begin = now()
import numpy
middle = now()
import pagewalk
print(middle - begin, now() - middle)
"""


def hello(plan: Plan) -> list[Row]:
    """Time `pagewalk PID` on a hello-world program, and `import pagewalk` beyond numpy's."""
    with own("hello") as pid:
        got = interleave(
            3 * plan.rounds,
            {
                "pagewalk": lambda: whole([*PAGEWALK, str(pid)]),
                "psutil": lambda: whole([sys.executable, "-c", PSUTIL, str(pid)]),
                "pmap": lambda: whole(["pmap", "-X", str(pid)]),
                "cat": lambda: whole(["cat", f"/proc/{pid}/smaps"]),
            },
        )
    runs = [output([sys.executable, "-c", IMPORTS]).split() for _ in range(3 * plan.rounds + 1)]
    numpy, package = (tuple(int(run[i]) / 1e6 for run in runs[1:]) for i in (0, 1))
    what = "hello world: whole command"
    return [
        Row(what, "python with psutil: memory_full_info, memory_maps", "ms", got["pagewalk"],
            got["psutil"], Limit(200, Of.MEDIAN)),
        Row(what, "pmap -X", "ms", got["pagewalk"], got["pmap"]),
        Row(what, "cat smaps", "ms", got["pagewalk"], got["cat"]),
        Row("import pagewalk, after numpy", "import numpy", "ms", package, numpy,
            Limit(30, Of.MEDIAN)),
    ]
