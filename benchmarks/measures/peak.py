"""How much memory the whole command takes at most, and that it is not the target's size."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from benchmarks.opponents import output
from benchmarks.processes import available_mib, own, start
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
# The same work on the same batches: only the allocator's rounding may differ.
SAME = 1.1
# What has to stay free beside the target, in MiB.
SPARE = 3072


def peak(plan: Plan) -> list[Row]:
    """Show a process of 1, 4 and 16 GiB, and 16 GiB that are one file mapped 256 times."""
    small, middle, large = (plan.mib(gib) for gib in (1, 4, 16))
    least = peaks(start_dense, small, plan.rounds)
    rows = [
        Row(f"peak memory of show, dense {size(small)}", "", "MB", least,
            limit=Limit(LIMIT_MB, Of.WORST)),
    ]
    for mib in (middle, large):
        what, against = f"peak memory of show, dense {size(mib)}", f"itself on {size(small)}"
        short = available_mib() < mib + SPARE
        if short:
            why = f"the machine has not {size(mib)} to spare; see the file mapped often"
            rows.append(Row(what, against, "MB", limit=Limit(SAME), missing=why))
            continue
        got = peaks(start_dense, mib, plan.rounds)
        rows.append(Row(what, "", "MB", got, limit=Limit(LIMIT_MB, Of.WORST)))
        rows.append(Row(what, against, "MB", got, least, Limit(SAME)))
    often = peaks(start_often, large, plan.rounds)
    what = f"peak memory of show, {size(large)} of one file mapped often"
    rows.append(Row(what, "", "MB", often, limit=Limit(LIMIT_MB, Of.WORST)))
    return rows


@contextmanager
def start_dense(mib: int) -> Iterator[int]:
    with start("dense", mib) as target:
        yield target.pid


@contextmanager
def start_often(mib: int) -> Iterator[int]:
    with own("mapped_often", mib) as pid:
        yield pid


def peaks(
    run: Callable[[int], AbstractContextManager[int]], mib: int, rounds: int
) -> tuple[float, ...]:
    # MB of each run of the command; peaks hardly vary, so that few are enough.
    with run(mib) as pid:
        command = [sys.executable, "-c", SHOW, str(pid)]
        return tuple(int(output(command)) * 1024 / 1e6 for _ in range(min(rounds, 3)))
