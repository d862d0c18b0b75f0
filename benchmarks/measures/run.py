"""What `run` adds to the time of a command, against the same command alone."""

from __future__ import annotations

import sys
from functools import partial

from benchmarks.opponents import HERE, PAGEWALK, whole
from benchmarks.rows import Limit, Plan, Row, interleave, size

FILES = 48  # compiled one after the other, each by several processes: two seconds
PASSES = 8  # over the memory of the large process
FILL = """
import sys
held = bytearray(int(sys.argv[1]) << 20)
for number in range(int(sys.argv[2])):
    for at in range(0, len(held), 1 << 20):
        held[at : at + (1 << 20)] = bytes([number]) * (1 << 20)
"""
BUDGETS = ("--max-uss", "1T", "--max-pss", "1T", "--max-rss", "1T", "--max-swap", "1T")


def run(plan: Plan) -> list[Row]:
    """Time a build of many short processes, one large process, and one that does nothing."""
    files, mib = max(FILES // plan.scale, 1), plan.mib(1)
    build = f"for n in $(seq {files}); do cc -O2 -c -o /dev/null {HERE}/chunks.c; done"
    commands = {
        f"cc, {files} times one after the other": ["sh", "-c", build],
        f"Python writing {size(mib)} {PASSES} times": [
            sys.executable, "-c", FILL, str(mib), str(PASSES)],
        "true(1): what starting and ending takes": ["true"],
    }
    rows = []
    for what, command in commands.items():
        ours = [*PAGEWALK, "run", "--quiet", *BUDGETS, "--", *command]
        if command == ["true"]:  # it may end before it was looked at, which is exit code 3
            ours = [*PAGEWALK, "run", "--quiet", "--", *command]
        got = interleave(plan.rounds, {"ours": partial(whole, ours),
                                       "theirs": partial(whole, command)})
        rows.append(Row(f"run: {what}", "the same command alone", "ms", got["ours"],
                        got["theirs"], None if command == ["true"] else Limit(1.1)))
    return rows
