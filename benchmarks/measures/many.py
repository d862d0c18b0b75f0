"""A process with tens of thousands of VMAs: whole commands against one read of its smaps."""

from __future__ import annotations

import subprocess

from benchmarks.opponents import PAGEWALK, cat, environment, timed
from benchmarks.processes import own
from benchmarks.rows import Limit, Plan, Row, interleave

# The exit codes for unexplained amounts, and for those that moved during the read, are answers too.
ANSWERS = (0, 3, 4)
SPREAD = 16  # pages from one VMA to the next
MOST = 10.0


def many(plan: Plan) -> list[Row]:
    """Time explain and maps on many VMAs, idle and while a thread maps and unmaps."""
    rows = []
    for command, thousands, threads in (("explain", 26, 0), ("explain", 26, 1), ("maps", 50, 0)):
        count = thousands * 1000 // plan.scale
        with own("mappings", count, threads, SPREAD) as pid:
            got = interleave(
                plan.rounds,
                {
                    "ours": lambda: answered(command, pid),  # noqa: B023
                    "theirs": lambda: cat(pid, "smaps"),
                },
            )
        busy = " and a thread that maps" if threads else ""
        rows.append(
            Row(f"{command}, {count} VMAs{busy} (whole command)", "cat smaps", "ms", got["ours"],
                got["theirs"], Limit(MOST))
        )
    return rows


def answered(command: str, pid: int) -> float:
    """Return how many milliseconds a command takes to answer."""
    words = [*PAGEWALK, command, str(pid), "--quiet"]
    codes: list[int] = []
    took = timed(
        lambda: codes.append(
            subprocess.run(words, check=False, stdout=subprocess.DEVNULL, env=environment())
            .returncode
        )
    )
    if codes[0] not in ANSWERS:
        raise RuntimeError(f"{' '.join(words)} exited with {codes[0]}")
    return took
