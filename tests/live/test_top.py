"""All processes, against the kernel's own sums of each."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pagewalk.system.processes import LiveProcesses
from pagewalk.system.top import BY
from tests import kernel_says
from tests.commands.test_watch import Window
from tests.live.bracket import living_thread, look_again
from tests.live.command import pagewalk, pagewalk_here
from tests.machine import memory_cgroup, prepared
from tests.share_by_hand import member
from tests.targets import TARGETS, start

pytestmark = pytest.mark.live


def lines(*words: object) -> dict[Any, dict[str, Any]]:
    """Return the lines of `top` by key."""
    ran = pagewalk_here("top", *words, "--format", "json")
    assert ran.code in (0, 3), ran.err
    return {line["key"]: line for line in ran.json["lines"]}


@pytest.mark.parametrize("name", ["plain", "fork_cow", "memfd", "thp_fork", "ksm", "swap_forked"])
def test_each_line_is_what_smaps_rollup_says(name: str) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:

        def look() -> None:
            before = said(running.pids)
            found = lines(*running.pids)
            assert before == said(running.pids)
            assert {pid: {key: found[pid][key] >> 10 for key in before[pid]} for pid in found
                    } == before

        look_again(look)


def said(pids: tuple[int, ...]) -> dict[int, dict[str, int]]:
    found = {}
    for pid in pids:
        rollup = kernel_says.read_rollup(living_thread(pid))
        uss = rollup["Private_Clean"] + rollup["Private_Dirty"]
        found[pid] = {"rss": rollup["Rss"], "pss": rollup["Pss"], "uss": uss,
                      "swap": rollup["Swap"]}
    return found


def test_what_is_in_common_adds_up() -> None:
    with memory_cgroup("top") as group, start("fork_cow", stopped=True) as running:
        for pid in running.pids:
            (group / "cgroup.procs").write_text(str(pid))
        user = subprocess.run(["id", "-un"], check=True, capture_output=True, text=True).stdout
        keys = {"program": "zoo", "user": user.strip(), "cgroup": f"/{group.name}"}

        def look() -> None:
            each = lines(*running.pids)
            for by, key in keys.items():
                (line,) = lines(*running.pids, "--by", by).values()
                assert (line["key"], line["processes"]) == (key, len(each))
                for name in ("uss", "pss", "rss", "swap"):
                    assert line[name] == sum(one[name] for one in each.values()), (by, name)
            mappings = lines(*running.pids, "--by", "mapping").values()
            for name in ("uss", "rss", "swap"):
                assert sum(line[name] for line in mappings) == sum(
                    one[name] for one in each.values()), name

        look_again(look)


def test_all_processes_are_in_it_and_no_other() -> None:
    with start("fork_cow") as running:
        found = lines("--once")
    assert {*running.pids} <= set(found)
    assert os.getpid() not in found  # it was pagewalk itself


def test_processes_that_come_and_go_do_not_stop_it() -> None:
    code = "while true; do /bin/true; done"
    with subprocess.Popen(["sh", "-c", code]) as process:
        try:
            for _ in range(2):
                ran = pagewalk("top", "--once")
                assert ran.code in (0, 3), ran.err
                assert re.search(rf"(?m)^ *{process.pid} ", pagewalk(
                    "top", "--once", "--limit", 10_000).out)
        finally:
            process.kill()


def test_a_terminal_gets_a_screen_again_and_again_with_what_has_grown() -> None:
    with start("fork_cow") as running:
        window = Window("top", str(running.pid))
        try:
            window.until("GROWN")
            assert re.search(r"PID +USS", window.said)
            window.press(b"\x03")
            assert window.end() == 0
        finally:
            window.process.kill()


def test_a_user_gets_rss_and_is_told_what_is_missing(tmp_path: Path) -> None:
    drop = ("setpriv", "--reuid=65534", "--clear-groups")
    with subprocess.Popen([*drop, "sleep", "1000"]) as process:
        try:

            def look() -> dict[str, Any]:
                ran = pagewalk("top", "--user", 65534, "--format", "json", before=drop)
                assert ran.code == 3, ran.err
                by_pid = {line["key"]: line for line in ran.json["lines"]}
                assert process.pid in by_pid
                found: dict[str, Any] = by_pid[process.pid]
                return found

            line = look_again(look)
        finally:
            process.kill()
    assert line["rss"] > 0 and line["uss"] is None


def test_the_group_of_a_process_that_ended_meanwhile_is_unknown() -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    group_of = BY["cgroup"](LiveProcesses())
    assert group_of(member(ended.pid, 1, "true", 0, 0, 0, 0)) == ("unknown", "unknown")
