"""The measures of the ebpf source; reported as missing where that source does not work."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measures.stall import watched
from benchmarks.opponents import kpage_read, output, pagemap_loop, timed
from benchmarks.processes import own, start
from benchmarks.rows import Limit, Of, Plan, Row, absent, interleave, size
from pagewalk import by_vma, close, open_process, walk
from pagewalk.errors import PagewalkError
from pagewalk.pages import U64, Counts, Flag, Pages
from pagewalk.sources import SOURCES, Source

LOOP = "C loop over pagemap"
WALKS = 100  # of a large target, while a thread of it maps
CHURNS = 10_000  # of a small target that never stays the same

# "That of an idle run": both worst waits are the scheduler's, and vary by about that much from one
# run to the next even when nothing is read.
IDLE = 1.5


def refused() -> str:
    """Return why the ebpf source cannot be measured here, or an empty string."""
    if "ebpf" not in SOURCES:
        return "source not there"
    try:
        by_vma(walk(os.getpid(), source="ebpf", frames=False))
    except PagewalkError as err:
        return str(err)
    return ""


def ebpf_dense(plan: Plan) -> list[Row]:
    """Account for 4 and 2 GiB of anonymous memory from the page tables."""
    sizes = (plan.mib(4), plan.mib(2))
    split = "flags, mapcount, PSS by VMA"
    rows = [
        Row(f"ebpf, dense {size(sizes[0])}: counts by VMA", LOOP, "ms", limit=Limit(1 / 10)),
        Row(f"ebpf, dense {size(sizes[0])}: {split}", LOOP, "ms", limit=Limit(1 / 2)),
        Row(f"ebpf, dense {size(sizes[1])}: counts by VMA", LOOP, "ms", limit=Limit(1 / 10)),
        Row(f"ebpf, dense {size(sizes[1])}: {split}", LOOP, "ms", limit=Limit(1 / 2)),
    ]
    if why := refused():
        return absent(rows, why)
    got = [against_loop("dense", mib, plan.rounds) for mib in sizes]
    samples = [(g[name], g["loop"]) for g in got for name in ("counts", "frames")]
    return [replace(r, ours=o, theirs=t) for r, (o, t) in zip(rows, samples, strict=True)]


def against_loop(target: str, amount: int, rounds: int) -> dict[str, tuple[float, ...]]:
    # The loop takes its turn each time: the memory is dense, and it is quick. The source is opened
    # once, which ebpf_open times; VMAs, totals and what the end of a walk asks are ours as well.
    with start(target, amount) as running, opened(running.pid) as source:
        pid = running.pid
        by_vma(walk(source))  # loads what is loaded once
        return interleave(
            rounds,
            {
                "counts": lambda: timed(lambda: by_vma(walk(source, frames=False))),
                "loop": lambda: pagemap_loop(pid),
                "frames": lambda: timed(lambda: by_vma(walk(source))),
            },
        )


def ebpf_sparse(plan: Plan) -> list[Row]:
    """Account for 16 TiB with 1000 pages; the C loop takes seconds, and is run once."""
    tib = 16 // plan.scale
    note = f"the C loop was run once, over all of the {tib} TiB"
    row = Row(f"ebpf, sparse {tib} TiB: counts by VMA", LOOP, "ms", limit=Limit(1 / 500), note=note)
    if why := refused():
        return absent([row], why)
    with start("reservation", tib) as target:
        pid = target.pid
        loop = (pagemap_loop(pid),)
        got = interleave(
            plan.rounds,
            {"ours": lambda: timed(lambda: by_vma(walk(pid, source="ebpf", frames=False)))},
        )
    return [replace(row, ours=got["ours"], theirs=loop)]


OPEN = """
import sys
from time import perf_counter_ns as now
from pagewalk import by_vma, open_process, walk
begin = now()
source = open_process(int(sys.argv[1]), "ebpf")
opened = now()
by_vma(walk(source, frames=False))
first = now()
by_vma(walk(source, frames=False))
again = now()
vmas = source.vmas()
known = now()
for batch in source.counts(vmas):
    pass
print(opened - begin, again - first, now() - known)
"""


def ebpf_open(plan: Plan) -> list[Row]:
    """Open the source in a fresh interpreter, then walk a hello-world program twice."""
    rows = [
        Row("ebpf: load the reader and find the process", "", "ms", limit=Limit(60, Of.MEDIAN)),
        Row("ebpf, hello world: a further walk of the page tables", "", "ms",
            limit=Limit(1, Of.MEDIAN)),
        Row("ebpf, hello world: that, with VMAs, totals and checks", "", "ms"),
    ]
    if why := refused():
        return absent(rows, why)
    with own("hello") as pid:
        command = [sys.executable, "-c", OPEN, str(pid)]
        runs = [output(command).split() for _ in range(plan.rounds)]
    opened, whole, tables = (tuple(int(run[i]) / 1e6 for run in runs) for i in range(3))
    return [
        replace(row, ours=ours) for row, ours in zip(rows, (opened, tables, whole), strict=True)
    ]


def ebpf_frames(plan: Plan) -> list[Row]:
    """Read flags and mapcounts of all frames of 4 GiB from struct page."""
    row = Row(
        f"ebpf, dense {size(plan.mib(4))}: frames from struct page",
        "C: sorted bulk read of kpageflags and kpagecount", "ms", limit=Limit(1 / 6),
    )
    if why := refused():
        return absent([row], why)
    with start("dense", plan.mib(4)) as target, opened(target.pid) as source:
        frames, pid = source.frames, target.pid
        assert frames is not None
        batches = walk(pid, source="procfs").batches
        pfns = np.sort(np.concatenate([present_frames(batch) for batch in batches]))
        unknown = np.zeros(len(pfns), bool)  # "mapped once", which would save a read
        got = interleave(
            plan.rounds,
            {
                "ours": lambda: timed(lambda: frames.read(pfns, unknown)),
                "theirs": lambda: kpage_read(pid),
            },
        )
    return [replace(row, ours=got["ours"], theirs=got["theirs"])]


@contextlib.contextmanager
def opened(pid: int) -> Iterator[Source]:
    source = open_process(pid, "ebpf")
    try:
        yield source
    finally:
        close(source)


def present_frames(pages: Pages | Counts) -> U64:
    assert isinstance(pages, Pages) and pages.pfn is not None
    frames: U64 = pages.pfn[pages.flags & np.uint32(Flag.PRESENT) != 0]
    return frames


def ebpf_stall(plan: Plan) -> list[Row]:
    """Let a thread map and unmap beside 6 GiB: during 100 walks, and undisturbed for as long."""
    row = Row(
        f"ebpf, {size(plan.mib(6))}: a mapping thread's worst mmap during {WALKS} walks",
        "idle for as long", "ms", limit=Limit(IDLE),
    )
    if why := refused():
        return absent([row], why)
    walks: list[float] = []
    idle: list[float] = []
    with start("mapper", plan.mib(6)) as target:

        def hundred() -> None:
            for _ in range(WALKS):
                by_vma(walk(target.pid, source="ebpf", frames=False))

        for _ in range(plan.rounds):
            spent = watched(target, walks, hundred)
            watched(target, idle, partial(time.sleep, spent))
    return [replace(row, ours=tuple(walks), theirs=tuple(idle))]


def ebpf_churn(plan: Plan) -> list[Row]:
    """Walk a process that keeps mapping and unmapping, and look for frames there cannot be."""
    count = CHURNS // plan.scale
    rows = [
        Row(f"ebpf, {count} walks of a churning process: impossible frames", "", "frames",
            limit=Limit(0, Of.WORST)),
        Row(f"ebpf, {count} walks of a churning process: failures", "", "walks",
            limit=Limit(0, Of.WORST)),
    ]
    if why := refused():
        return absent(rows, why)
    highest = highest_frame()
    impossible = failures = 0
    with start("churn") as target:
        for _ in range(count):
            failures += 1
            with contextlib.suppress(PagewalkError):
                for batch in walk(target.pid, source="ebpf").batches:
                    impossible += int((present_frames(batch) > highest).sum())
                failures -= 1
    return [replace(rows[0], ours=(float(impossible),)), replace(rows[1], ours=(float(failures),))]


def highest_frame() -> int:
    # Devices lie above RAM, but the target maps none. Addresses are shown to root only.
    lines = Path("/proc/iomem").read_text().splitlines()
    ram = [line.split()[0] for line in lines if line.endswith(" : System RAM")]
    return max(int(span.split("-")[1], 16) for span in ram) >> 12
