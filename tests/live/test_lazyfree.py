"""MADV_FREE pages are reported by VMA and by page, or with the reason where they are unknown."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from functools import partial

import pytest

from pagewalk import close, open_process, table
from pagewalk.account.lazyfree import with_lazyfree
from tests.kernel_says import read_smaps
from tests.live.bracket import look_again, working_sources
from tests.live.command import pagewalk
from tests.machine import prepared
from tests.targets import TARGETS, start

pytestmark = pytest.mark.live
# Huge pages if 8 MiB get any, all of them freed with MADV_FREE.
FREE_HUGE = """
import mmap, os, signal
area = mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(mmap.MADV_HUGEPAGE)
for at in range(0, len(area), 4096):
    area[at] = 1
area.madvise(mmap.MADV_FREE)
print("ready", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""

WORKING = [name for name in working_sources() if name != "procfs"]


@pytest.mark.parametrize("source", WORKING)
def test_columns_and_where_equal_smaps(source: str) -> None:
    with start("lazyfree", stopped=True) as running:
        said = lazyfree(running.pid)
        assert said == 16 * 4096
        ran = pagewalk("maps", running.pid, "--columns", "anon,lazyfree", "-f", "json",
                       "--source", source)
        assert (ran.code, ran.json["totals"]["lazyfree"]) == (0, said)
        ran = pagewalk("pages", running.pid, "--where", "lazyfree", "-f", "json",
                       "--source", source)
        rows = [json.loads(line) for line in ran.out.splitlines()]
        assert (ran.code, sum(row["size"] for row in rows)) == (0, said)


def test_where_lazyfree_is_withheld_the_reason_is_given() -> None:
    with start("lazyfree", stopped=True) as running:
        ran = pagewalk("maps", running.pid, "--columns", "anon,lazyfree", "--source", "procfs")
        said = " ".join(ran.out.split())
        assert "lazyfree, vm_flags: the dirty and accessed bits are in the page tables" in said
        ran = pagewalk("pages", running.pid, "--where", "lazyfree", "--source", "procfs")
        assert (ran.code, ran.out) == (2, "")
        assert "--where lazyfree: source 'procfs' does not show it" in ran.err
        ran = pagewalk("maps", running.pid, "--columns", "lazyfree", "--counts")
        assert (ran.code, ran.out) == (2, "")


@pytest.mark.parametrize("source", WORKING)
def test_show_and_explain_mention_it(source: str) -> None:
    with start("lazyfree", stopped=True) as running:
        ran = pagewalk("show", running.pid, "--source", source)
        assert "lazyfree: 64 KiB of anon were released with MADV_FREE" in ran.out
        ran = pagewalk("show", running.pid, "--source", source, "-f", "json")
        assert ran.json["totals"]["lazyfree"] == 16 * 4096
        ran = pagewalk("explain", running.pid, "--source", source)
        assert re.search(r"smaps LazyFree = lazyfree +64 +64 +0", ran.out), ran.out
        assert "lazyfree: 64 KiB of anon" in ran.out
        assert ran.code == 0


@pytest.mark.parametrize("name", ["thp", "fork_cow", "droppable", "huge_zero", "plain"])
def test_it_equals_smaps_on_other_memory(name: str) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:
        for pid in running.pids:
            opened = open_process(pid, WORKING[0])
            found = with_lazyfree(table(opened), opened)
            close(opened)
            said = lazyfree(pid)
            assert found.totals["lazyfree"] == said


def test_all_of_a_huge_page_is_found() -> None:
    with prepared("thp"), subprocess.Popen(
        [sys.executable, "-c", FREE_HUGE], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            assert lazyfree(process.pid) >= 2 << 20
            for name in WORKING:
                look_again(partial(check_lazyfree, process.pid, name))
        finally:
            process.send_signal(signal.SIGKILL)


def lazyfree(pid: int) -> int:
    return sum(vma.fields["LazyFree"] for vma in read_smaps(pid)) << 10


def check_lazyfree(pid: int, source: str) -> None:
    # The last few pages wait in a list of the CPU (lru_lazyfree, mm/swap.c) until it is full.
    said, opened = lazyfree(pid), open_process(pid, source)
    found = with_lazyfree(table(opened), opened)
    close(opened)
    assert found.totals["lazyfree"] == said == lazyfree(pid)


def test_without_page_tables_only_the_kernel_has_a_figure() -> None:
    with start("lazyfree", stopped=True) as running:
        ran = pagewalk("explain", running.pid, "--source", "procfs")
        assert "smaps LazyFree 64" in ran.out
        ran = pagewalk("show", running.pid, "--source", "procfs", "-f", "json")
        assert "lazyfree" not in ran.json["totals"]
