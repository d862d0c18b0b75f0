"""Measures of the ebpf source, reported as missing where that source does not work."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measures.stall import watched
from benchmarks.opponents import kpage_read, output, pagemap_loop, timed
from benchmarks.processes import own, start
from benchmarks.rows import Limit, Of, Plan, Row, absent, interleave, size
from pagewalk import close, open_process, table, walk
from pagewalk.kernel.programs.condense_pages import Condenser
from pagewalk.kernel.programs.loops import TABLES
from pagewalk.model.columns import I64, U64, Flag, Pages, VMAs
from pagewalk.model.errors import PagewalkError
from pagewalk.pagetables.count import sweep
from pagewalk.sources import SOURCES, Source
from pagewalk.sources.kernel import KernelSource

LOOP = "C loop over pagemap"
SPLIT = "the full split and PSS by VMA"
# What is timed, in the order of the rows.
ALONE, SHARED = ("counts", "tables", "counted", "split"), ("condensed", "cached", "split")
CACHED = 4  # tables whose struct pages fit in the cache
LOADED = 9  # walks of 2 GiB, after which every program is worth loading
WALKS = 100  # of a large target, one of whose threads keeps mapping
CHURNS = 10_000  # walks of a small target that never stays the same

# The worst wait is to be that of an idle run. Both are the scheduler's, and vary by about this much
# from one run to the next even if nothing is read.
IDLE = 1.5


def refused() -> str:
    """Return why the ebpf source cannot be measured here, or an empty string."""
    if "ebpf" not in SOURCES:
        return "source not there"
    try:
        table(os.getpid(), source="ebpf", frames=False)
    except PagewalkError as err:
        return str(err)
    return ""


def ebpf_dense(plan: Plan) -> list[Row]:
    """Account for 4 and 2 GiB of anonymous memory from the page tables."""
    rows = []
    for gib in (4, 2):
        what = f"ebpf, dense {size(plan.mib(gib))}"
        rows += [
            Row(f"{what}: counts by VMA", LOOP, "ms", limit=Limit(1 / 10)),
            Row(f"{what}: the tables alone, without VMAs, totals and checks", LOOP, "ms"),
            Row(f"{what}: the floor, whole tables counted in the kernel", LOOP, "ms"),
            Row(f"{what}: {SPLIT}", LOOP, "ms", limit=Limit(1 / 2)),
        ]
    what = f"ebpf, dense {size(plan.mib(4))}, shared with a child"
    rows += [
        Row(f"{what}: the floor, struct pages condensed in the kernel", LOOP, "ms"),
        Row(f"{what}: as many, but always those of the same {CACHED} tables", LOOP, "ms"),
        Row(f"{what}: {SPLIT}", LOOP, "ms", limit=Limit(1 / 3)),
    ]
    if why := refused():
        return absent(rows, why)
    got = []
    for gib in (4, 2):
        with start("dense", plan.mib(gib)) as running:
            got += against_loop(running.pid, plan.rounds, ALONE)
    with own("populated", "forked", plan.mib(4)) as pid:
        got += against_loop(pid, plan.rounds, SHARED)
    return [replace(r, ours=ours, theirs=loop) for r, (ours, loop) in zip(rows, got, strict=True)]


def against_loop(
    pid: int, rounds: int, names: tuple[str, ...]
) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    # Samples of each of `names`, each with those of the loop. The source is opened once (ebpf_open
    # times that), and the programs that it loads when they pay are loaded; VMAs, totals and the
    # checks at the end count as our time too.
    with opened(pid) as source:
        for _ in range(LOADED):
            table(source)
            table(source, frames=False)
        assert isinstance(source, KernelSource)
        vmas, space, loaded = source.vmas(), source.space, source.running.shortcuts
        counter = loaded and loaded.loaded_counter
        condenser = loaded and loaded.loaded_condenser  # None before 6.4, like the counter
        tables = whole_tables(source, vmas)
        contestants: dict[str, Callable[[], float]] = {
            "counts": lambda: timed(lambda: table(source, frames=False)),
            "tables": lambda: timed(lambda: list(space.sums(vmas, vmas.ranges, frames=False))),
            "counted": lambda: timed(lambda: counter.count(tables)) if counter else math.nan,
            "condensed": lambda: condensed(condenser, tables),
            "cached": lambda: condensed(condenser, np.resize(tables[:CACHED], len(tables))),
            # Whoever comes after the loop starts with cold caches: always the same contestant.
            "loop": lambda: pagemap_loop(pid),
            "split": lambda: timed(lambda: table(source)),
        }
        got = interleave(rounds, {k: v for k, v in contestants.items() if k in (*names, "loop")})
    return [(got[name], got["loop"]) for name in names]


def condensed(condenser: Condenser | None, tables: U64) -> float:
    # Milliseconds to condense the struct pages of all `tables`.
    if condenser is None:
        return math.nan
    parts = [tables[at : at + TABLES] for at in range(0, len(tables), TABLES)]
    return timed(lambda: [condenser.of_tables(part) for part in parts])


def whole_tables(source: KernelSource, vmas: VMAs) -> U64:
    """Return the kernel addresses of the tables that lie whole in one VMA."""
    running, found = source.running, [np.zeros(0, np.uint64)]

    def note(owner: I64, phys: U64) -> I64:
        found.append(phys)
        return np.zeros(len(owner), np.int64)

    user = vmas.ranges[vmas.end <= np.uint64(running.arch.user_end)]
    space = source.space
    for _ in sweep(running.arch, space.root, space.read_tables, user, count_plain=note):
        pass
    addresses: U64 = running.direct_map.addresses(np.concatenate(found))
    return addresses


def ebpf_sparse(plan: Plan) -> list[Row]:
    """Account for 16 TiB with 1000 pages; the C loop takes seconds and is run only once."""
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
            {"ours": lambda: timed(lambda: table(pid, source="ebpf", frames=False))},
        )
    return [replace(row, ours=got["ours"], theirs=loop)]


OPEN = """
import sys
from time import perf_counter_ns as now
start = now()
import numpy
imported = now()
from pagewalk import open_process, table
begin = now()
source = open_process(int(sys.argv[1]), "ebpf")
opened = now()
table(source, frames=False)
first = now()
table(source, frames=False)
again = now()
vmas = source.vmas()
known = now()
for part in source.space.sums(vmas, vmas.ranges, frames=False):
    pass
print(opened - begin, now() - known, again - first, imported - start)
"""


def ebpf_open(plan: Plan) -> list[Row]:
    """Open the source in a fresh interpreter, then walk a hello-world program twice."""
    rows = [
        Row("ebpf: load the reader and find the process", "import numpy", "ms", limit=Limit(1 / 2)),
        Row("ebpf, hello world: a further walk of the page tables", "import numpy", "ms",
            limit=Limit(1 / 100)),
        Row("ebpf, hello world: that, with VMAs, totals and checks", "import numpy", "ms"),
    ]
    if why := refused():
        return absent(rows, why)
    with own("hello") as pid:
        command = [sys.executable, "-c", OPEN, str(pid)]
        runs = [output(command).split() for _ in range(plan.rounds)]
    *ours, numpy = (tuple(int(run[i]) / 1e6 for run in runs) for i in range(4))
    return [replace(row, ours=own, theirs=numpy) for row, own in zip(rows, ours, strict=True)]


def ebpf_frames(plan: Plan) -> list[Row]:
    """Read the flags and mapcounts of all frames of 4 GiB from struct page."""
    row = Row(
        f"ebpf, dense {size(plan.mib(4))}: frames from struct page",
        "C: sorted bulk read of kpageflags and kpagecount", "ms", limit=Limit(1 / 6),
    )
    if why := refused():
        return absent([row], why)
    with start("dense", plan.mib(4)) as target, opened(target.pid) as source:
        frames, pid = source.space.frames, target.pid
        assert frames is not None
        every = [present_frames(pages) for pages in walk(pid, source="procfs")]
        pfns = np.sort(np.concatenate(every))
        unknown = np.zeros(len(pfns), bool)  # not known to be mapped once, which would save a read
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


def present_frames(pages: Pages) -> U64:
    assert pages.pfn is not None
    frames: U64 = pages.pfn[pages.flags & np.uint32(Flag.PRESENT) != 0]
    return frames


def ebpf_stall(plan: Plan) -> list[Row]:
    """Let a thread map and unmap next to 6 GiB, during 100 walks and for as long undisturbed."""
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
                table(target.pid, source="ebpf", frames=False)

        for _ in range(plan.rounds):
            spent = watched(target, walks, hundred)
            watched(target, idle, partial(time.sleep, spent))
    return [replace(row, ours=tuple(walks), theirs=tuple(idle))]


def ebpf_churn(plan: Plan) -> list[Row]:
    """Walk a process that keeps mapping and unmapping, and look for impossible frames."""
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
                for batch in walk(target.pid, source="ebpf"):
                    impossible += int((present_frames(batch) > highest).sum())
                failures -= 1
    return [replace(rows[0], ours=(float(impossible),)), replace(rows[1], ours=(float(failures),))]


def highest_frame() -> int:
    # Devices are above RAM, but the target maps none. Only root sees the addresses.
    lines = Path("/proc/iomem").read_text().splitlines()
    ram = [line.split()[0] for line in lines if line.endswith(" : System RAM")]
    return max(int(span.split("-")[1], 16) for span in ram) >> 12
