"""The kernel's numbers for a cgroup, on files written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagewalk.model.errors import BadText, GroupGone
from pagewalk.proc.cgroup_numbers import (
    UNLIMITED,
    GroupNumbers,
    parse_amount,
    parse_counts,
    parse_pressure,
    read_numbers,
)
from tests.proc.test_cgroups import plain

FIRST = {
    "memory.usage_in_bytes": "4096\n", "memory.max_usage_in_bytes": "8192\n",
    "memory.limit_in_bytes": f"{UNLIMITED}\n", "memory.memsw.usage_in_bytes": "12288\n",
    "memory.memsw.limit_in_bytes": "67108864\n", "memory.kmem.usage_in_bytes": "1024\n",
    "memory.kmem.tcp.usage_in_bytes": "512\n", "memory.stat": "rss 3\ntotal_rss 5\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 1\noom_kill 2\n", "memory.failcnt": "7\n",
}
SECOND = {
    "memory.current": "4096\n", "memory.peak": "8192\n", "memory.max": "67108864\n",
    "memory.high": "max\n", "memory.low": "0\n", "memory.min": "max\n",
    "memory.swap.current": "12288\n", "memory.swap.max": "max\n",
    "memory.stat": "anon 3\nfile 5\n", "memory.events": "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\n",
    "memory.pressure": "some avg10=0.00 avg60=0.12 avg300=0.00 total=5012\n"
                       "full avg10=0.00 avg60=0.00 avg300=0.00 total=12\n",
}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in {**files, "cgroup.procs": ""}.items():
        (folder / name).write_text(text)


def test_version_1_has_its_own_names_for_the_same_amounts(tmp_path: Path) -> None:
    write(tmp_path, FIRST)
    assert read_numbers(plain(tmp_path, 1), "/") == GroupNumbers(
        current=4096, peak=8192, limit=None, both=12288, both_limit=64 << 20, kmem=1024, tcp=512,
        stat={"rss": 3, "total_rss": 5},
        events={"oom_kill_disable": 0, "under_oom": 1, "oom_kill": 2, "failcnt": 7},
    )


def test_version_2(tmp_path: Path) -> None:
    write(tmp_path, SECOND)
    assert read_numbers(plain(tmp_path), "/") == GroupNumbers(
        current=4096, peak=8192, limit=64 << 20, high=None, low=0, min=UNLIMITED,
        swap_current=12288, swap_limit=None, stat={"anon": 3, "file": 5},
        events={"low": 0, "high": 1, "max": 2, "oom": 3, "oom_kill": 4},
        pressure={"some": 5012, "full": 12},
    )


@pytest.mark.parametrize("version", [1, 2])
def test_what_has_no_file_is_none(tmp_path: Path, version: int) -> None:
    write(tmp_path, {})
    assert read_numbers(plain(tmp_path, version), "/") == GroupNumbers()


def test_a_directory_without_processes_is_no_group_any_more(tmp_path: Path) -> None:
    write(tmp_path, SECOND)
    (tmp_path / "cgroup.procs").unlink()
    with pytest.raises(GroupGone):
        read_numbers(plain(tmp_path), "/")


@pytest.mark.parametrize("text", [b"", b"\n", b"-1\n", b"maximum\n", b"1\n2\n", b"1 2\n"])
def test_an_invalid_amount_is_refused(text: bytes) -> None:
    with pytest.raises(BadText, match=r"memory\.max"):
        parse_amount(text, "memory.max", none=True)


@pytest.mark.parametrize("line", [b"\n", b"a\n", b"a -1\n", b"a b 1\n", b"a 1"])
def test_an_invalid_line_is_refused(line: bytes) -> None:
    with pytest.raises(BadText, match=r"line 2 of memory\.stat"):
        parse_counts(b"anon 1\n" + line, "memory.stat")
    with pytest.raises(BadText, match=r"line 1 of memory\.pressure"):
        parse_pressure(line)
