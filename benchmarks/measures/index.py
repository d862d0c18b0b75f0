"""Who maps which frame: the index of a set's pages, in time beside its walks, and in memory."""

from __future__ import annotations

import json
import sys
from functools import partial

from benchmarks.opponents import output, timed
from benchmarks.processes import own
from benchmarks.rows import Limit, Of, Plan, Row, interleave
from pagewalk.account.table import table
from pagewalk.proc.chosen import Chosen, Wanted, choose
from pagewalk.system.members import look_at_each
from pagewalk.system.processes import LiveProcesses
from pagewalk.system.share import look_at_set

PROCESSES, MAPPINGS, MANY = 70, 1_200_000, 20_000_000
LIMIT_MB = 600.0

# Made-up mappings: each process maps the same frames, in an order of its own. Prints how long they
# took to sort into pieces, and to merge and add up, and the most memory that this ever had.
PIECES = """
import json, sys, time
from contextlib import closing
from pathlib import Path
import numpy as np
from pagewalk.system.sorted_rows import SortedRows
from pagewalk.system.together import Mapping, Together

PROCESSES, MANY, BATCH = int(sys.argv[1]), int(sys.argv[2]), 1 << 16
each, random = MANY // PROCESSES, np.random.default_rng(14)
begin = time.perf_counter()
with closing(SortedRows(Mapping)) as rows:
    for member in range(PROCESSES):
        frames = random.permutation(each)
        for at in range(0, each, BATCH):
            pfn = frames[at : at + BATCH]
            def full(value, kind):
                return np.full(len(pfn), value, kind)
            rows.add(Mapping(pfn, full(member, np.int32), full(0, np.int32),
                             full(4096, np.int64), full(PROCESSES, np.int64), full(0, np.uint8)))
    sorted_at = time.perf_counter()
    together = Together([-1] * PROCESSES)
    together.add(rows.batches())
merged_at = time.perf_counter()
assert together.held == each * 4096
assert int(together.both.sum()) == together.held * PROCESSES * (PROCESSES - 1)
status = Path("/proc/self/status").read_text()
peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
print(json.dumps([(sorted_at - begin) * 1e3, (merged_at - sorted_at) * 1e3,
                  int(peak) * 1024 / 1e6]))
"""


def index(plan: Plan) -> list[Row]:
    """Time the index of processes that share memory, and measure one that is kept in pieces."""
    count, many = max(PROCESSES // plan.scale, 2), MANY // plan.scale
    mib = max(MAPPINGS // plan.scale // count >> 8, 1)
    with own("crowd", count, mib) as parent:
        chosen = [one for one in choose(Wanted(trees=(str(parent),)))
                  if one.process.pid != parent]
        got = interleave(plan.rounds, {
            "index": partial(timed, partial(look_at_set, chosen, LiveProcesses("ebpf"))),
            "walks": partial(timed, partial(walk_each, chosen))})
    what = f"{count} processes that share {mib} MiB, {count * mib << 8} mappings"
    made = f"{many} made-up mappings of {PROCESSES} processes, in pieces"
    sorting, merging, peak = json.loads(output(
        [sys.executable, "-c", PIECES, str(PROCESSES), str(many)]))
    return [
        Row(f"{what}: who maps each frame", "the walks alone", "ms", got["index"], got["walks"],
            Limit(5)),
        Row(f"{made}: to sort them", "", "ms", (sorting,)),
        Row(f"{made}: to merge them and add them up", "", "ms", (merging,)),
        Row(f"{made}: peak memory", "", "MB", (peak,), limit=Limit(LIMIT_MB, Of.WORST)),
    ]


def walk_each(chosen: list[Chosen]) -> None:
    """Walk each of them alone, for its table."""
    look_at_each(chosen, LiveProcesses("ebpf"), lambda _, __, source: table(source))
