"""Many hosts: each report by DuckDB, and by Spark, at one, two and four times the data."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.opponents import timed
from benchmarks.processes import own
from benchmarks.rows import Plan, Row, interleave
from pagewalk.history.fleet import DUCKDB, asking, look_at_fleet
from pagewalk.history.record import record
from pagewalk.history.record_space import How
from pagewalk.history.statements import REPORTS, report
from pagewalk.model.errors import PackageMissing
from pagewalk.proc.chosen import Wanted, choose
from pagewalk.snapshot.places import place_of

HOSTS, TIMES = 50, 24
HOUR = 3600 * 10**9
BEGAN = 1_700_000_000 * 10**9
COUNT = "select count(*) from recordings where record = 'page'"
SPARK = "local[2]"
MORE = (1, 2, 4)  # times the data


def fleet(plan: Plan) -> list[Row]:
    """Time each report on 50 hosts with 24 recordings each, made from real ones."""
    hosts, times = max(HOSTS // plan.scale, 2), max(TIMES // plan.scale, 2)
    rows = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        kept = recorded(Path(folder) / "kept", times, plan.mib(0.5))
        root = spread(kept, Path(folder) / "data", hosts)
        what = f"{hosts} hosts x {times} recordings"
        got = interleave(plan.rounds, {
            "count": partial(timed, partial(asked, root, COUNT, DUCKDB)),
            **{name: partial(timed, partial(asked, root, report(name).sql, DUCKDB))
               for name in REPORTS}})
        rows = [Row(f"{what}: report {name} by DuckDB", "DuckDB: a count of all runs of pages",
                    "ms", got[name], got["count"]) for name in REPORTS]
        rows += by_spark(plan, kept, Path(folder), hosts, what)
    return rows


def recorded(folder: Path, times: int, mib: int) -> list[str]:
    """Record all processes ``times`` times, with one that has ``mib``; return the files."""
    folder.mkdir()
    with own("populated", "anon", mib):
        for at in range(times):
            record(str(folder / f"{at}.parquet"), choose(Wanted(everyone=True)), "--all", How())
    return [str(folder / f"{at}.parquet") for at in range(times)]


def spread(files: list[str], root: Path, hosts: int) -> str:
    """Make a data set in which each of ``hosts`` has all ``files``; return where it is."""
    for host in range(hosts):
        for at, file in enumerate(files):
            place = Path(place_of(str(root), f"host{host:03}", BEGAN + at * HOUR))
            place.parent.mkdir(parents=True)
            os.link(file, place)
    return str(root)


def asked(root: str, sql: str, engine: str) -> None:
    with asking(look_at_fleet(root), root, engine, 4 << 30) as ask:
        for _ in ask(sql).rows:
            pass


def by_spark(plan: Plan, kept: list[str], folder: Path, hosts: int, what: str) -> list[Row]:
    """Return a row for one, two and four times the data: report programs, its session open."""
    from pagewalk.history.spark import ask, connected, read

    opponent = "DuckDB: the same report on the same data"
    rows = []
    try:
        with connected(SPARK) as session:
            for more in MORE:
                root = spread(kept, folder / f"data{more}", hosts * more)

                def work(root: str = root) -> None:
                    read(session, root)
                    list(ask(session, report("programs").sql).rows)

                got = interleave(1, {
                    "spark": partial(timed, work),
                    "duckdb": partial(timed, partial(asked, root, report("programs").sql, DUCKDB))})
                rows.append(Row(f"{more} x {what}: report programs by Spark in this process,"
                                " its session open", opponent, "ms", got["spark"], got["duckdb"]))
    except PackageMissing as error:
        return [Row(f"{what}: report programs by Spark", opponent, "ms", missing=str(error))]
    return rows
