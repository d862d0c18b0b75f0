"""Recordings: what making one costs beside the walk, how large it is, and what reading it costs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from benchmarks.opponents import PAGEWALK, timed, whole
from benchmarks.processes import own
from benchmarks.rows import Limit, Of, Plan, Row, interleave, size
from pagewalk import Pages, walk
from pagewalk.history.record import record
from pagewalk.history.record_space import How
from pagewalk.proc.chosen import Chosen, Wanted, choose

CROWD = 1000


def recording(plan: Plan) -> list[Row]:
    """Record 4 GiB of base pages and of huge pages, show them, and record a thousand processes."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "a.pagewalk")
        for kind, what in (("anon", "base pages"), ("huge", "huge pages")):
            rows += dense(plan, kind, what, path)
        rows.append(crowd(plan, path))
    return rows


def dense(plan: Plan, kind: str, what: str, path: str) -> list[Row]:
    mib = plan.mib(4)
    with own("populated", kind, mib) as pid:
        target, physical = chosen(pid), path + ".physical"

        def make(where: str, how: How) -> None:
            record(where, target, str(pid), how)

        got = interleave(plan.rounds, {
            "record": lambda: timed(lambda: make(path, How())),
            "physical": lambda: timed(lambda: make(physical, How(physical=True))),
            "walk": lambda: timed(lambda: [None for _ in walk(pid, Pages, holes=True)]),
            "file": lambda: whole([*PAGEWALK, "show", path]),
            "pid": lambda: whole([*PAGEWALK, "show", str(pid)]),
        })
    pages = mib << 8
    name = f"{size(mib)} of {what}"
    return [
        Row(f"record {name}", "its walk: every page, and nothing kept", "ms", got["record"],
            got["walk"], Limit(2)),
        Row(f"record --physical {name}", "its walk: every page, and nothing kept", "ms",
            got["physical"], got["walk"]),
        Row(f"the file of {name}", "", "bytes a page", (os.path.getsize(path) / pages,),
            limit=Limit(1, Of.WORST)),
        Row(f"the file of {name}, --physical", "", "bytes a page",
            (os.path.getsize(physical) / pages,), limit=Limit(1, Of.WORST),
            note="it depends on how RAM is fragmented: a run of frames is one row"),
        Row(f"show FILE of {name}", "show PID", "ms", got["file"], got["pid"], Limit(1.5)),
    ]


def crowd(plan: Plan, path: str) -> Row:
    with own("crowd", CROWD) as pid:
        got = interleave(plan.rounds, {
            "record": lambda: whole([*PAGEWALK, "record", "--tree", str(pid), "-q", "-o", path]),
            "top": lambda: whole([*PAGEWALK, "top", "--once", "--tree", str(pid)]),
        })
    return Row(f"record {CROWD} idle processes", "top --once of the same", "ms", got["record"],
               got["top"], note="top walks a hundred at a time, record each alone")


def chosen(pid: int) -> list[Chosen]:
    """Return what a recording of one process is of."""
    return choose(Wanted((str(pid),)))
