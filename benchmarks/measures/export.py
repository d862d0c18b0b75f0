"""`export`: cold, cached, and ten thousand scrapes: time, memory, descriptors, and what is felt."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

from benchmarks.measures.ram import command
from benchmarks.measures.sets import PROCESSES, ROLLUP, TOP, rollup_all
from benchmarks.opponents import PAGEWALK, environment, timed
from benchmarks.processes import own, start
from benchmarks.rows import Limit, Of, Plan, Row, interleave, size
from pagewalk.proc.stall import BUDGET_NS
from pagewalk.system.recent import REST

WARM = 2  # looks, before anything is compared
SCRAPES = 10_000
EACH_SECOND = 1  # seconds between looks, at most: the memory of many looks is to be seen
GROWN_MB, LOST = 8.0, 0.0


class Server(NamedTuple):
    """An exporter that runs."""

    pid: int
    port: int

    def scrape(self) -> str:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()

    def megabytes(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        said = re.search(r"VmRSS:\s+(\d+)", status)
        assert said is not None
        return int(said[1]) * 1024 / 1e6

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))


@contextmanager
def served(*words: str) -> Iterator[Server]:
    """Serve until the block ends, on a port that is free."""
    argv = [*PAGEWALK, "export", "--listen", "127.0.0.1:0", *words]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if where := re.search(r"http://127\.0\.0\.1:(\d+)/", line):
                    break
            else:
                raise RuntimeError("export ended before it served")
            yield Server(process.pid, int(where[1]))
        finally:
            process.kill()


def export(plan: Plan) -> list[Row]:
    """Export 70 processes with 6 GiB together, and scrape that many times."""
    mib, count = plan.mib(6), max(PROCESSES // plan.scale, 2)
    what = f"{count} processes with {size(mib)}"
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(own("populated", "anon", mib // count))
        target = stack.enter_context(start("mapper", mib // count))
        rows = cold(plan, what)
        with served("--at-most-every", str(EACH_SECOND)) as server:
            rows += cached(plan, what, server)
            target.tell("stall")
            many = scraped(server, SCRAPES // plan.scale)
            worst = target.tell("stall")["worst_ns"] / 1e6
            target.tell("stall")
            time.sleep(many.seconds)
            idle = target.tell("stall")["worst_ns"] / 1e6
    return [*rows, *many.rows(what), Row(
        f"{what}: the worst mmap of one of them during {many.scrapes} scrapes",
        "idle for as long", "ms", (worst,), (idle,))]


def cold(plan: Plan, what: str) -> list[Row]:
    once = ["export", "--once", "--quiet"]
    got = interleave(plan.rounds, {"export": lambda: command(once), "top": lambda: command(TOP),
                                   "theirs": rollup_all})
    row = f"{what}: the whole command export --once, which scans RAM besides"
    return [Row(row, "pagewalk top --once", "ms", got["export"], got["top"]),
            Row(row, ROLLUP, "ms", got["export"], got["theirs"])]


def cached(plan: Plan, what: str, server: Server) -> list[Row]:
    got = interleave(plan.rounds, {"cached": partial(timed, server.scrape), "top": lambda: command(
        TOP), "theirs": rollup_all})
    row = f"{what}: a scrape, of the last look unless that is old"
    return [Row(row, "pagewalk top --once", "ms", got["cached"], got["top"]),
            Row(row, ROLLUP, "ms", got["cached"], got["theirs"])]


class Scraped(NamedTuple):
    """What many scrapes did to a server: of each, how long it took, in ms."""

    scrapes: int
    took: tuple[float, ...]
    seconds: float
    looks: int
    looking: float
    stall_ms: float
    grown: tuple[float, ...]
    lost: int

    def rows(self, what: str) -> list[Row]:
        name = f"{what}, {self.scrapes} scrapes and {self.looks} looks"
        most = Limit(100 / (1 + REST), Of.WORST)
        return [
            Row(f"{name}: one of them", "", "ms", self.took),
            Row(f"{name}: memory that the exporter has grown by", "", "MB", self.grown,
                limit=Limit(GROWN_MB, Of.WORST)),
            Row(f"{name}: descriptors that it has lost", "", "", (float(self.lost),),
                limit=Limit(LOST, Of.WORST)),
            Row(f"{name}: the longest read that may have held a lock", "the budget", "ms",
                (self.stall_ms,), (BUDGET_NS / 1e6,), Limit(1)),
            Row(f"{name}: of the time, it looked", "", "%",
                (100 * self.looking / self.seconds,), limit=most),
        ]


def scraped(server: Server, count: int) -> Scraped:
    """Scrape ``count`` times, one after the other, once it has warmed up.

    Some programs are only loaded into the kernel when a second look pays for them.
    """
    for _ in range(count // 10):
        server.scrape()
    cold = value(server.scrape(), "pagewalk_walks_total")
    while value(server.scrape(), "pagewalk_walks_total") < cold + WARM:
        time.sleep(0.2)
    memory, descriptors, begun = server.megabytes(), server.descriptors(), time.monotonic()
    first = value(server.scrape(), "pagewalk_walks_total")
    took, stall, looking, last = [], 0.0, 0.0, first
    for _ in range(count):
        before = time.perf_counter()
        text = server.scrape()
        took.append((time.perf_counter() - before) * 1e3)
        if (walks := value(text, "pagewalk_walks_total")) > last:
            last = walks
            looking += sum(map(float, re.findall(r"(?m)^pagewalk_walk_seconds{\S+} (\S+)", text)))
        stall = max(stall, value(text, "pagewalk_stall_seconds"))
    seconds = time.monotonic() - begun
    time.sleep(1)  # the last connections are still being closed
    return Scraped(count, tuple(took), seconds, int(last - first), looking, stall * 1e3,
                   (server.megabytes() - memory,), max(0, server.descriptors() - descriptors))


def value(text: str, name: str) -> float:
    said = re.search(rf"(?m)^{name} (\S+)", text)
    assert said is not None
    return float(said[1])
