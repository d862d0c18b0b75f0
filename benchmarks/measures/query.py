"""SQL over a recording: who shares a page, against a count of the same rows; and the start."""

from __future__ import annotations

import os
import sys
import tempfile

import numpy as np

from benchmarks.opponents import PAGEWALK, timed, whole
from benchmarks.rows import Limit, Plan, Row, interleave
from pagewalk.history.sql import Database
from pagewalk.model.facts import Facts
from pagewalk.snapshot.relation import footers
from pagewalk.snapshot.schema import VERSION, Meta
from pagewalk.snapshot.write import Labels, Writer, whole_file

PROCESSES, PAGES, PAGE = 100, 100_000, 4096
SHARED = 0.5  # of the pages of each
LIMIT, START = 5.0, 1.5
COUNT = "select count(frame) from frames"
SHARING = "select count(*), sum(size) from sharing"
IMPORTS = "python -c 'import duckdb, pyarrow.dataset' (whole command)"


def query(plan: Plan) -> list[Row]:
    """Ask 10 million pages who shares which, a run each: nothing of a recording helps."""
    pages = PAGES // plan.scale
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "many.pagewalk")
        record(path, pages)
        database = Database(footers([path]), 4 << 30, 2)

        def ask(sql: str) -> float:
            return timed(lambda: list(database.ask(sql).rows))

        got = interleave(plan.rounds, {
            "sharing": lambda: ask(SHARING), "count": lambda: ask(COUNT),
            "start": lambda: whole([*PAGEWALK, "query", path, "select 1"]),
            "imports": lambda: whole([sys.executable, "-c", "import duckdb, pyarrow.dataset"]),
        })
    what = f"{pages * PROCESSES / 1e6:g} M pages: shared by more than one process, SQL"
    return [
        Row(what, "DuckDB: a count of the same rows", "ms", got["sharing"], got["count"],
            Limit(LIMIT)),
        Row("query FILE 'select 1': whole command", IMPORTS, "ms", got["start"], got["imports"],
            Limit(START)),
    ]


def record(path: str, pages: int) -> None:
    """Record processes whose pages are scattered in RAM; half of them all processes map."""
    rng, shared = np.random.default_rng(1), int(pages * SHARED)
    common = rng.permutation(shared) * 2
    of_common = np.arange(pages) < shared
    facts = Facts("x86_64", (6, 18), PAGE, 2, frozenset, lambda: False)
    meta = Meta(VERSION, "0", 0, 0, "host", "boot", "6.18", True, False, "scattered pages")
    with whole_file(path) as out:
        writer = Writer(out)
        for pid in range(1, PROCESSES + 1):
            own = rng.permutation(pages - shared) * 2 + (pid << 24)
            writer.add("page", {
                "pid": np.full(pages, pid), "vma": np.zeros(pages, np.int64),
                "state": Labels(of_common.astype(np.int64), ("anon", "file")),
                "start": np.arange(pages) * PAGE, "size": np.full(pages, PAGE),
                "unit": np.full(pages, PAGE), "level": np.zeros(pages, np.int64),
                "flags": np.ones(pages, np.int64), "frame": np.concatenate([common, own]),
                "step": np.ones(pages, np.int64), "kflags": np.zeros(pages, np.int64),
                "mapcount": np.where(of_common, PROCESSES, 1)})
            writer.add("process", {"pid": [pid], "mm": [pid], "name": ["process"], "pss": [0]})
        writer.close(meta, facts)
