"""A process with tens of thousands of VMAs: whole commands against one reading of its smaps."""

from __future__ import annotations

import subprocess

from benchmarks.opponents import PAGEWALK, cat, environment, timed
from benchmarks.processes import own
from benchmarks.rows import Limit, Plan, Row, interleave

# What is unexplained, or moved while it was read, is an answer too.
ANSWERS = (0, 3, 4)
SPREAD = 16  # pages from one VMA to the next
MOST = 10.0


def many(plan: Plan) -> list[Row]:
    """Time explain and maps on many VMAs, at rest and while a thread maps and unmaps."""
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
    """Return the milliseconds until a command has answered."""
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
