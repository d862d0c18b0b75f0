"""Sets of processes in a recording: who shares which page, beside DuckDB; and beside live."""

from __future__ import annotations

import json
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.measures.ram import command
from benchmarks.opponents import PAGEWALK, output, whole
from benchmarks.processes import own
from benchmarks.rows import Limit, Plan, Row, interleave, size

PROCESSES, PAGES = 100, 10_000_000
LIVE = 70
DUCKDB = "DuckDB, two threads: frames that more than one process maps"

# Made-up pages: half of them are each process's alone, a family of ten has three tenths in common,
# and all processes the rest. No page lies behind its neighbour, so that a row is one page.
MAKE = """
import sys
import numpy as np
from pagewalk.history.record_rows import page_rows
from pagewalk.model.bits import kpf
from pagewalk.model.columns import Backing, Flag, State, Tells
from pagewalk.model.facts import Facts
from pagewalk.proc.chosen import Chosen
from pagewalk.proc.counters import Theirs
from pagewalk.proc.processes import Process
from pagewalk.snapshot.documents import to_text
from pagewalk.snapshot.runs import Runs
from pagewalk.snapshot.schema import AMOUNTS, VERSION, Meta
from pagewalk.snapshot.write import Writer, whole_file
from pagewalk.sources.found import Found
from pagewalk.sources.outcome import Who
from pagewalk.sources.recorded import PROCESS
from pagewalk.system.peak import Charged
from pagewalk.system.recorded_processes import SET, RecordedSet

path, count, many = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) // int(sys.argv[2])
random, KIND, PAGE = np.random.default_rng(15), np.uint64, 4096
own, family, START = many // 2, many * 3 // 10, 1 << 32
every = many - own - family

def full(value, kind=KIND):
    return np.full(many, value, kind)

with whole_file(path) as out:
    writer = Writer(out)
    for pid in range(1, count + 1):
        first = 1 + every + (pid - 1) // 10 * family
        second = 1 + every + -(-count // 10) * family + (pid - 1) * own
        frame = np.concatenate([np.arange(1, 1 + every), np.arange(first, first + family),
                                np.arange(second, second + own)]).astype(KIND)
        mapped = np.repeat([count, min(10, count - (pid - 1) // 10 * 10), 1], [every, family, own])
        order = random.permutation(many)
        runs = Runs(
            START + np.arange(many, dtype=KIND) * PAGE, full(PAGE), full(PAGE), full(0, np.int64),
            full(State.ANON.value, np.uint8), full(0, np.uint8), full(Flag.PRESENT, np.uint32),
            full(0), frame[order], full(1), full(kpf("anon", "mmap", "swapbacked")),
            mapped[order].astype(KIND))
        writer.add("page", page_rows(pid, runs))
        size = many * PAGE
        writer.add("vma", {"pid": [pid], "vma": [0], "start": [START], "end": [START + size],
                           "perms": [3], "offset": [0], "dev": [0], "inode": [0], "name": [""],
                           "backing": [Backing.ANON.value], "size": [size]})
        theirs = Theirs({"VmHWM": size, "VmRSS": size}, {}, {})
        found = Found("ebpf", Who(pid, "made-up", None), Tells(True, True, True, True, True, True),
                      (), 0, size, (), True, None, 0, (0, "", 0), (theirs, theirs),
                      np.zeros(0, KIND), None, False, False)
        writer.add("document", {"pid": [pid], "name": [PROCESS], "text": [to_text(found)]})
        writer.add("process", {"pid": [pid], "parent": [0], "mm": [pid], "uid": [0],
                               "started": [0], "name": ["made-up"], "size": [size],
                               **{name: [size if name == "rss" else 0] for name in AMOUNTS}})
    chosen = tuple(Chosen(Process(pid, "made-up", "made-up", 0, size), 0)
                   for pid in range(1, count + 1))
    writer.add("document", {"name": [SET], "text": [to_text(RecordedSet(
        "made up", "ebpf", chosen, tuple((one.process.pid,) for one in chosen), (), (), (), (),
        True, (), Charged(None, None, None), {}))]})
    writer.close(Meta(VERSION, "", 0, 0, "", "", "", False, False, "made-up processes", "", 0),
                 Facts("x86_64", (6, 18), PAGE, 2, lambda: frozenset(), lambda: False))
"""
# Prints how many such frames there are, and milliseconds.
COUNT = """
import sys, time
import duckdb
connection = duckdb.connect(config={"threads": 2})
connection.execute("SET enable_progress_bar = false")
begin = time.perf_counter()
found = connection.execute(
    "SELECT count(*) FROM (SELECT frame FROM read_parquet(?) WHERE record = 'page' GROUP BY frame"
    " HAVING count(DISTINCT pid) > 1)", [sys.argv[1]]).fetchone()
print(found[0], (time.perf_counter() - begin) * 1e3)
"""
# All that share says of them; the frames that are shared are those held that are not in USS.
SHARE = """
import sys, time
from contextlib import closing
from pagewalk.proc.chosen import Wanted, choose
from pagewalk.snapshot.read import Recording
from pagewalk.system.recorded_processes import RecordedProcesses
from pagewalk.system.share import look_at_set
begin = time.perf_counter()
with closing(Recording(sys.argv[1])) as recording:
    where = RecordedProcesses(recording)
    found = look_at_set(choose(Wanted(everyone=True), where.listed()), where)
print(found.held - found.looked.sum_of("uss") >> 12, (time.perf_counter() - begin) * 1e3)
"""


def recorded(plan: Plan) -> list[Row]:
    """Find the pages that are shared in a recording of 10 M, and set FILE beside live."""
    count, pages = PROCESSES, PAGES // plan.scale
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        path = str(Path(folder, "made-up.pagewalk"))
        output([sys.executable, "-c", MAKE, path, str(count), str(pages)])
        shared = set[int]()

        def run(code: str) -> float:
            frames, spent = output([sys.executable, "-c", code, path]).split()
            shared.add(int(frames))
            return float(spent)

        got = interleave(plan.rounds, {"ours": partial(run, SHARE), "theirs": partial(run, COUNT)})
        assert len(shared) == 1, shared  # both found the same
    what = f"a recording of {pages} pages of {count} processes: all that share says"
    return [Row(what, DUCKDB, "ms", got["ours"], got["theirs"], Limit(5)), *beside_live(plan)]


def beside_live(plan: Plan) -> list[Row]:
    """Run `share` and `top` on processes, and on a recording of them."""
    mib, count = plan.mib(6), max(LIVE // plan.scale, 2)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        path = str(Path(folder, "live.pagewalk"))
        pids = list[str]()
        with own("crowd", count, mib // count) as parent:
            words = ["--tree", str(parent)]
            whole([*PAGEWALK, "record", *words, "-o", path, "-q"])
            pids = [str(row["pid"]) for row in json.loads(output(
                [*PAGEWALK, "share", *words, "-f", "json"]))["members"]]
            got = interleave(plan.rounds, {
                "share": lambda: command(["share", *words]),
                "share FILE": lambda: command(["share", path]),
                "top": lambda: command(["top", "--once", *words]),
                "top FILE": lambda: command(["top", path])})
    what = f"{len(pids)} processes that share {size(mib // count)}"
    return [Row(f"{what}: the whole command {name} FILE", f"pagewalk {name}, live", "ms",
                got[f"{name} FILE"], got[name]) for name in ("share", "top")]
