"""What SQL says of real processes that stand still, against pagemap, kpagecount, and top."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import kernel_says
from tests.kernel_says import KPF_ZERO, PAGE
from tests.live.bracket import look_again
from tests.live.command import pagewalk_here
from tests.live.family_sums import mapped
from tests.machine import prepared
from tests.targets import TARGETS, start

pytestmark = pytest.mark.live
FAMILIES = ("fork_three", "shared_fork", "thp_fork")
SHARING = "select frame, pids, mappings, mapcount, size from sharing order by frame"
# As the kernel adds it up: of each base page a part in 1/4096 bytes, rounded down.
PSS = """
select pid, cast(sum(pages * step * (unit // step * 4096 // mapcount)) // 4096 as bigint) as pss
from pages where state in ('anon', 'file', 'shmem') and mapcount > 0 group by pid
"""


def answer(sql: str, *files: Path) -> list[dict[str, Any]]:
    ran = pagewalk_here("query", *files, sql, "--json")
    assert ran.code == 0, ran.err
    rows: list[dict[str, Any]] = ran.json["rows"]
    return rows


@pytest.mark.parametrize("name", FAMILIES)
def test_who_shares_which_frame_is_what_pagemap_says(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pagewalk"
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:

        def look() -> None:
            # Others map and unmap libraries, so their mapcounts move.
            before = mapped(running.pids)
            assert pagewalk_here("record", *running.pids, "-o", path, "--physical").code == 0
            after = mapped(running.pids)
            assert (before.pfn == after.pfn).all() and (before.mapcount == after.mapcount).all()
            zero = kernel_says.read_folio_flags(after.pfn) & KPF_ZERO != 0
            several = (~zero & ((after.times > 0).sum(axis=0) > 1)).nonzero()[0]
            assert answer(SHARING, path) == [{
                "frame": int(after.pfn[at]),
                "pids": sorted(pid for pid, times in zip(after.pids, after.times[:, at],
                                                         strict=True) if times),
                "mappings": int(after.times[:, at].sum()), "mapcount": int(after.mapcount[at]),
                "size": PAGE} for at in several.tolist()]
            assert len(several) > 6

        look_again(look)


@pytest.mark.parametrize("name", FAMILIES)
def test_pss_by_sql_is_that_of_top(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pagewalk"
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:

        def top() -> dict[int, dict[str, int]]:
            ran = pagewalk_here("top", "--once", "--json")
            assert ran.code in (0, 3), ran.err  # of all processes some may be hidden from root
            return {row["key"]: {name: row[name] for name in ("pss", "uss", "rss", "swap")}
                    for row in ran.json["lines"] if row["key"] in running.pids}

        def look() -> None:
            before = top()
            assert pagewalk_here("record", *running.pids, "-o", path).code == 0
            assert top() == before
            rows = answer("select pid, pss, uss, rss, swap from processes", path)
            assert {row.pop("pid"): row for row in rows} == before
            # Tolerance 0: it is the same arithmetic, in whole numbers.
            assert {row["pid"]: row["pss"] for row in answer(PSS, path)} == {
                pid: amounts["pss"] for pid, amounts in before.items()}

        look_again(look)


# Obeys: writes to so many pages of shared memory that nothing else has the size of.
GROWER = """
import mmap, sys
held = mmap.mmap(-1, 1237 * 4096)
for line in sys.stdin:
    held[: int(line) * 4096] = b"g" * int(line) * 4096
    print(flush=True)
"""


def test_growth_is_what_was_touched_between_two_recordings(tmp_path: Path) -> None:
    paths = []
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", GROWER], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        for pages in (100, 164):
            print(pages, file=process.stdin, flush=True)
            process.stdout.readline()
            paths.append(tmp_path / f"{pages}.pagewalk")
            assert pagewalk_here("record", process.pid, "-o", paths[-1]).code == 0
        process.stdin.close()
    size = f"size = {1237 * PAGE} and backing = 'shmem'"
    rows = answer(f"select rss from vmas where {size} order by time", *paths)
    assert [row["rss"] for row in rows] == [100 * PAGE, 164 * PAGE]
    (row,) = answer("select pid, change, rss from growth", *paths)
    assert (row["pid"], row["change"]) == (process.pid, "stayed") and row["rss"] >= 64 * PAGE
    ran = pagewalk_here("query", *paths, "--question", "grew-mappings", "--json")
    assert 64 * PAGE in [row["rss"] for row in ran.json["rows"]]
