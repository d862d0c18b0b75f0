"""Reports on hosts that were made by hand: what each must say is known beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pagewalk.history.fleet import DUCKDB, asking, hidden, look_at_fleet
from pagewalk.history.statements import REPORTS, report
from pagewalk.model.errors import BadRecording
from pagewalk.render.fleet_words import answer
from tests.history.by_hand import Process, Run
from tests.history.fleet_by_hand import (
    EXPECTED,
    HIDDEN_BY,
    HOUR,
    NEWEST,
    OF_TWO,
    at,
    many_hosts,
    two_hosts,
    web,
)
from tests.snapshot.by_hand import PAGE

MIB = 1 << 20
# What EXPECTED comes to, in a sentence.
SAID = {
    "programs": "2 programs hold 508K, each page counted once for each program and host; RSS adds"
                " up to 628K.",
    "mappings": "(anonymous) has the most, 412K on 4 hosts; its RSS adds up to 28K.",
    "libraries": "1 library is in the RAM of a host more than once, which takes 16K more than one"
                 " copy of each would.",
    "limits": "2 cgroups at 80 % of the limit or more; the fullest is /app on a, at 90 %, with"
              " 356K of anonymous memory.",
    "growth": "/bin/web on c grew the most: by 240K in 90 minutes, upwards in 2 of 3 steps, in"
              " 1 process.",
    "outliers": "/bin/web on c has 9.0M alone; the median of 4 hosts is 2.0M.",
    "hosts": "4 hosts with 7 processes in the latest recordings. The clock of 1 host was set back:"
             " d.",
}


def rows(root: str, name: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    with asking(look_at_fleet(root), root, DUCKDB, 1 << 30) as ask:
        found = ask(report(name).sql)
        return found.columns, list(found.rows)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> str:
    return many_hosts(tmp_path_factory.mktemp("fleet"))


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_says_what_was_made(name: str, fleet: str) -> None:
    assert rows(fleet, name)[1] == EXPECTED[name]


@pytest.mark.parametrize("name", REPORTS)
def test_the_first_sentence_is_about_the_first_row(name: str, fleet: str) -> None:
    columns, found = rows(fleet, name)
    assert answer(name, [dict(zip(columns, row, strict=True)) for row in found]) == SAID[name]
    assert answer(name, []).endswith(".")


def test_growth_says_of_how_many_processes_it_is(tmp_path: Path) -> None:
    for hour, pids in enumerate(((1,), (1, 2), (1, 2, 3))):
        at(tmp_path, "a", hour * HOUR, *(web(pid, MIB, 5 * PAGE, Run(10 * pid, 5)) for pid in pids),
           uptime=(hour + 1) * HOUR)
    columns, found = rows(str(tmp_path), "growth")
    (row,) = [dict(zip(columns, one, strict=True)) for one in found]
    assert (row["grown"], row["processes_first"], row["processes_last"]) == (10 * PAGE, 1, 3)
    assert answer("growth", [row]).endswith("in 2 of 2 steps, in 3 processes (1 at first).")


def test_what_cannot_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    at(tmp_path, "a", 0, Process(5))
    cut = Path(at(tmp_path, "b", 0, Process(5)))
    cut.write_bytes(cut.read_bytes()[:-9])
    (cut.parent / ".pagewalk.0123.partial").write_bytes(b"half")
    found = look_at_fleet(str(tmp_path))
    assert list(found.hosts) == ["a"]
    assert len(found.damaged) == 1 and "host=b" in found.damaged[0] and "cut" in found.damaged[0]


def test_processes_that_the_latest_recording_of_a_host_lacks_are_counted(tmp_path: Path) -> None:
    for host, time, refused in (("a", 0, 9), ("a", HOUR, 2), ("b", 0, 0), ("c", 0, 1)):
        at(tmp_path, host, time, Process(5), refused=refused)
    assert look_at_fleet(str(tmp_path)).refused == {"a": 2, "c": 1}


def test_what_may_not_be_read_is_named_and_the_rest_is_told(tmp_path: Path) -> None:
    for host in "abc":
        at(tmp_path, host, 0, Process(5))
    time = next((tmp_path / "host=b").iterdir())
    (time / "snapshot.parquet").unlink()
    (time / "snapshot.parquet").mkdir()
    time = next((tmp_path / "host=c").iterdir())
    time.rename(time.with_name("time=never"))
    found = look_at_fleet(str(tmp_path))
    assert list(found.hosts) == ["a"] and len(found.damaged) == 2
    assert "host=b" in "".join(found.damaged) and "time=never" in "".join(found.damaged)


def test_a_data_set_of_which_nothing_can_be_read_is_an_error(tmp_path: Path) -> None:
    cut = Path(at(tmp_path, "b", 0, Process(5)))
    cut.write_bytes(b"PAR1")
    with pytest.raises(BadRecording, match="cut"):
        look_at_fleet(str(tmp_path))


def test_hosts_that_are_late_are_named(tmp_path: Path) -> None:
    for host, time in (("a", 0), ("b", 2 * HOUR), ("c", HOUR)):
        at(tmp_path, host, time, Process(5))
    found = look_at_fleet(str(tmp_path))
    assert found.late == ["a"] and max(found.hosts.values()) * 1000 == NEWEST + 2 * HOUR


@pytest.mark.parametrize("name", OF_TWO)
def test_what_a_host_hides_is_withheld(name: str, tmp_path: Path) -> None:
    root = two_hosts(tmp_path)
    columns, found = rows(root, name)
    assert found == OF_TWO[name]
    said = answer(name, [dict(zip(columns, row, strict=True)) for row in found])
    assert "2 of" in said and "not known: frames were hidden" in said
    with asking(look_at_fleet(root), root, DUCKDB, 1 << 30) as ask:
        assert hidden(ask) == HIDDEN_BY


@pytest.mark.parametrize("name", ["programs", "mappings"])
def test_what_rss_counts_is_used(name: str, tmp_path: Path) -> None:
    """Device memory with a struct page, too: nothing of it is counted twice."""
    held = {"rss": 4 * PAGE, "uss": 4 * PAGE, "swap": 0}
    at(tmp_path, "a", 0, Process(1, "dax", (Run(10, 4, "device", vma=1),), held))
    columns, found = rows(str(tmp_path), name)
    used = [row[columns.index("used")] for row in found]
    assert sorted(used) == [0, 4 * PAGE][-len(used):]


def test_a_host_that_hides_one_process_of_a_program_is_no_outlier(tmp_path: Path) -> None:
    for host in "abcd":
        at(tmp_path, host, 0, web(1, (9 if host == "d" else 1) * MIB, PAGE),
           *[web(2, None, PAGE)] * (host == "d"))
    assert rows(str(tmp_path), "outliers")[1] == []
