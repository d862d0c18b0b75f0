"""A process that has reserved much and touched little: the cost is that of finding pages."""

from __future__ import annotations

from benchmarks.opponents import pagemap_loop, timed
from benchmarks.processes import start
from benchmarks.rows import Limit, Plan, Row, interleave
from pagewalk import table

TOUCHED = "1000 scattered pages"


def sparse(plan: Plan) -> list[Row]:
    """Account for 16 TiB with 1000 pages; the C loop takes seconds and is run only once."""
    tib = 16 // plan.scale
    with start("reservation", tib) as target:
        loop = (pagemap_loop(target.pid),)
        got = interleave(
            plan.rounds,
            {
                "counts": lambda: timed(
                    lambda: table(target.pid, source="procfs", frames=False)
                ),
                "frames": lambda: timed(lambda: table(target.pid, source="procfs")),
            },
        )
    note = f"the C loop was run once, over all of the {tib} TiB"
    what, opponent = f"sparse {tib} TiB, {TOUCHED}", "C loop over pagemap"
    return [
        Row(f"{what}: counts by VMA", opponent, "ms", got["counts"], loop, Limit(1 / 200),
            note=note),
        Row(f"{what}: flags, mapcount, PSS by VMA", opponent, "ms", got["frames"], loop, note=note),
    ]
