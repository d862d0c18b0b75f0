"""pagewalk check reports every difference, and none where there is none."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import pagewalk
from pagewalk.account.check import Report, check
from tests.live.bracket import working_sources
from tests.live.command import one_sentence
from tests.live.command import pagewalk as pagewalk_command
from tests.machine import fewer, prepared
from tests.targets import TARGETS, start

pytestmark = pytest.mark.live

OTHERS = [name for name in working_sources() if name != "procfs"]
PAGE = 4096


@pytest.mark.parametrize("source", OTHERS)
@pytest.mark.parametrize("name", ["plain", "thp_part", "hugetlb_fork", "swap_private", "guard",
                                  "uffd_wp", "runs", "fork_cow", "prot_none"])
def test_two_sources_see_the_same_pages(name: str, source: str) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:
        report = compare(running.pid, source, running.pid, "procfs")
    assert report.differences == []
    assert report.pages > 100
    assert report.fields > 100


def compare(first: int, by: str, second: int, and_by: str) -> Report:
    one, other = pagewalk.open_process(first, by), pagewalk.open_process(second, and_by)
    try:
        return check(one, other)
    finally:
        pagewalk.close(one)
        pagewalk.close(other)


def test_parent_and_child_differ_in_the_pages_that_were_copied() -> None:
    # The same addresses in two processes: the pages that differ are those copied after the fork.
    with start("fork_cow", stopped=True) as running:
        parent, child = running.facts["parent"], running.facts["child3"]
        assert (parent["start"], parent["end"]) == (child["start"], child["end"])
        report = compare(parent["pid"], "procfs", child["pid"], "procfs")
        frames = {
            d.addr + step
            for d in report.differences if d.what == "pfn"
            for step in range(0, d.size, PAGE)
            if parent["start"] <= d.addr < parent["end"]
        }
    assert len(frames) == child["mapped_by_1"] == 24


def test_the_command_says_so_and_exits_0() -> None:
    with start("plain", stopped=True) as running:
        ran = pagewalk_command("check", running.pid, "--format", "json")
    assert ran.code == 0
    assert ran.json["differences"] == []
    assert ran.json["second"] == "procfs"
    assert ran.json["pages"] > 100


@contextmanager
def forking_shells(count: int) -> Iterator[None]:
    """Run shells that start one program after another: all map and unmap the same libraries."""
    loop = "while :; do /bin/true; done"
    shells = [
        subprocess.Popen(["/bin/sh", "-c", loop], start_new_session=True) for _ in range(count)
    ]
    try:
        yield
    finally:
        for shell in shells:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()


@pytest.mark.skipif(not OTHERS, reason="there is only one source here")
def test_mappings_by_other_processes_are_not_differences() -> None:
    told = 0
    with start("python", stopped=True) as running, forking_shells(2):
        for _ in range(fewer(20)):
            report = compare(running.pid, OTHERS[0], running.pid, "procfs")
            assert report.differences == [], report.differences[:5]
            # the process is stopped, and its own pages do not move
            assert report.moved == report.moved_by_others
            assert report.unsteady == report.unsteady_by_others
            told += report.moved + report.unsteady
    # Two shells change libc's mapcounts some hundred times a second: if none of these runs saw
    # that, they would not have read mapcounts at all.
    assert told > 0


def test_freeze_makes_every_difference_a_real_one() -> None:
    with start("plain") as running, forking_shells(1):
        for _ in range(4):
            ran = pagewalk_command("check", running.pid, "--freeze", "--format", "json")
            assert (ran.code, ran.json["differences"]) == (0, [])


@pytest.mark.skipif("ebpf" not in OTHERS, reason="auto does not choose ebpf here")
def test_a_source_is_never_compared_with_itself() -> None:
    with start("plain", stopped=True) as running:
        ran = pagewalk_command("check", running.pid, "--against", "ebpf", "--format", "json")
        same = pagewalk_command("check", running.pid, "--source", "procfs")
    assert ran.code == 0
    assert ran.json["second"] == "ebpf"
    assert ran.json["first"] in ("kcore", "procfs")
    assert same.code == 2
    assert one_sentence(same) == (
        "--source and --against are both procfs, and a source always agrees with itself; name two"
        " different sources"
    )
