"""A process with all of its pages present: the cost is per page."""

from __future__ import annotations

import psutil

from benchmarks.opponents import cat, kpage_read, pagemap_loop, timed
from benchmarks.processes import start
from benchmarks.rows import Limit, Plan, Row, interleave, size
from pagewalk import table


def dense(plan: Plan) -> list[Row]:
    """Account for 4 GiB of anonymous memory: counts only, and with frames."""
    mib = plan.mib(4)
    with start("dense", mib) as target:
        pid = target.pid
        process = psutil.Process(pid)
        got = interleave(
            plan.rounds,
            {
                "counts": lambda: timed(lambda: table(pid, source="procfs", frames=False)),
                "loop": lambda: pagemap_loop(pid),
                "frames": lambda: timed(lambda: table(pid, source="procfs")),
                "kpage": lambda: kpage_read(pid),
                "smaps": lambda: cat(pid, "smaps"),
                "full": lambda: timed(process.memory_full_info),
                "maps": lambda: timed(lambda: process.memory_maps(grouped=False)),
            },
        )
    what = f"dense {size(mib)}"
    frames = f"{what}: flags, mapcount, PSS by VMA"
    return [
        Row(f"{what}: counts by VMA", "C loop over pagemap", "ms", got["counts"], got["loop"],
            Limit(1.2)),
        Row(frames, "C: sorted bulk read of kpageflags and kpagecount", "ms", got["frames"],
            got["kpage"], Limit(1.5), note="collecting and sorting the frames is not timed in C"),
        Row(frames, "cat smaps", "ms", got["frames"], got["smaps"]),
        Row(frames, "psutil memory_full_info", "ms", got["frames"], got["full"]),
        Row(frames, "psutil memory_maps", "ms", got["frames"], got["maps"]),
    ]
