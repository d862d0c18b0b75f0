"""pagewalk check: no difference where there is none, and each one where there is."""

from __future__ import annotations

import pytest

import pagewalk
from pagewalk.check import Report, check
from tests.live.bracket import working_sources
from tests.live.command import pagewalk as pagewalk_command
from tests.machine import prepared
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
    # The same addresses in two processes: what differs is what was copied after the fork.
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
