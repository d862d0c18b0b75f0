"""How long a user waits for the whole command on the smallest process, and for the import."""

from __future__ import annotations

import sys

from benchmarks.opponents import PAGEWALK, output, whole
from benchmarks.processes import own
from benchmarks.rows import Limit, Plan, Row, interleave

PSUTIL = """
import psutil, sys
process = psutil.Process(int(sys.argv[1]))
print(process.memory_full_info(), process.memory_maps(grouped=False))
"""

# The least that a program with numpy takes, start and end included.
IMPORT = "python -c 'import numpy' (whole command)"

IMPORTS = """
from time import perf_counter_ns as now
begin = now()
import numpy
middle = now()
from pagewalk import table, walk
print(middle - begin, now() - middle)
"""


def hello(plan: Plan) -> list[Row]:
    """Time `pagewalk PID` on a hello-world program, and the import of the package after numpy."""
    with own("hello") as pid:
        got = interleave(
            3 * plan.rounds,
            {
                "pagewalk": lambda: whole([*PAGEWALK, str(pid)]),
                "procfs": lambda: whole([*PAGEWALK, str(pid), "--source", "procfs"]),
                "numpy": lambda: whole([sys.executable, "-c", "import numpy"]),
                "psutil": lambda: whole([sys.executable, "-c", PSUTIL, str(pid)]),
                "pmap": lambda: whole(["pmap", "-X", str(pid)]),
                "cat": lambda: whole(["cat", f"/proc/{pid}/smaps"]),
            },
        )
    runs = [output([sys.executable, "-c", IMPORTS]).split() for _ in range(3 * plan.rounds + 1)]
    numpy, package = (tuple(int(run[i]) / 1e6 for run in runs[1:]) for i in (0, 1))
    psutil = "python with psutil: memory_full_info, memory_maps"
    what, by_procfs = "hello world: whole command", "hello world: whole command, --source procfs"
    return [
        Row(what, IMPORT, "ms", got["pagewalk"], got["numpy"], Limit(1.7)),
        Row(by_procfs, IMPORT, "ms", got["procfs"], got["numpy"], Limit(1.4)),
        Row(what, psutil, "ms", got["pagewalk"], got["psutil"]),
        Row(by_procfs, psutil, "ms", got["procfs"], got["psutil"]),
        Row(what, "pmap -X", "ms", got["pagewalk"], got["pmap"]),
        Row(what, "cat smaps", "ms", got["pagewalk"], got["cat"]),
        Row("from pagewalk import table, walk, after numpy", "import numpy", "ms", package, numpy,
            Limit(1 / 3)),
    ]
