"""PSS and USS of every process on this machine, by whole commands."""

from __future__ import annotations

import shutil
import sys

from benchmarks.opponents import output, whole
from benchmarks.rows import Plan, Row, absent, interleave

PAGEWALK_ALL = """
import os
from pagewalk import table
from pagewalk.model.errors import PagewalkError
for name in os.listdir("/proc"):
    if name.isdigit():
        try:
            totals = table(int(name), source="procfs").totals
        except PagewalkError:  # kernel threads, and what even root may not read
            continue
        print(name, totals["rss"], totals["pss"], totals["uss"], totals["swap"])
"""

PSUTIL_ALL = """
import psutil
for process in psutil.process_iter():
    try:
        info = process.memory_full_info()
    except psutil.Error:
        continue
    print(process.pid, info.rss, info.pss, info.uss, info.swap)
"""


def everyone(plan: Plan) -> list[Row]:
    """Time one script over all processes against one with psutil, and against smem."""
    contestants = {
        "pagewalk": lambda: whole([sys.executable, "-c", PAGEWALK_ALL]),
        "psutil": lambda: whole([sys.executable, "-c", PSUTIL_ALL]),
    }
    if shutil.which("smem"):
        contestants["smem"] = lambda: whole(["smem"])
    count = len(output([sys.executable, "-c", PAGEWALK_ALL]).splitlines())
    got = interleave(plan.rounds, contestants)
    what, note = "all processes: PSS and USS", f"{count} processes with memory"
    rows = [
        Row(what, f"{name} (whole command)", "ms", got["pagewalk"], got.get(name, ()), note=note)
        for name in ("psutil", "smem")
    ]
    if "smem" not in got:
        rows[1:] = absent(rows[1:], "smem is not installed: python -m benchmarks --setup")
    return rows
