"""Who maps one page: by the kernel's reverse map, beside a walk of all processes."""

from __future__ import annotations

from functools import partial

from tests import kernel_says
from tests.kernel_says import PAGE, PFN, PRESENT

from benchmarks.measures.ram import command
from benchmarks.processes import own
from benchmarks.rows import Limit, Plan, Row, interleave

FEW, MANY = 70, 1000
WALK = "who --source procfs, which walks all"


def who(plan: Plan) -> list[Row]:
    """Run `who --pfn` on a page that all of a crowd map, and on one that a single process maps."""
    rows: list[Row] = []
    for count in (FEW, MANY):
        many = max(count // plan.scale, 10)
        with own("crowd", many) as pid:
            pages = {"all of them map": frame(pid, "/libc.so.6"), "one of them maps": frame(
                pid, "[heap]")}
            for which, pfn in pages.items():
                words = ["who", "--pfn", str(pfn)]
                got = interleave(min(plan.rounds, 5), {
                    "ours": partial(command, words),
                    "theirs": partial(command, [*words, "--source", "procfs"])})
                rows.append(Row(
                    f"{many} processes: the whole command who, a page that {which}", WALK, "ms",
                    got["ours"], got["theirs"], Limit(1 / 5) if count == MANY else None))
    return rows


def frame(pid: int, name: str) -> int:
    """Return the first frame of a VMA whose name ends so; only the parent of a crowd has a heap."""
    vma = next(vma for vma in kernel_says.read_maps(pid) if vma.name.endswith(name))
    words = kernel_says.read_pagemap(pid, vma.start, vma.start + 16 * PAGE).tolist()
    return next(int(word) & PFN for word in words if word & PRESENT)
