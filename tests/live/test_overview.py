"""The first screen, against the kernel's own sums, pagemap, and the clock."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pagewalk.proc.chosen import Wanted, choose
from pagewalk.proc.stall import BUDGET_NS
from pagewalk.system import overview
from tests.commands.test_watch import Window
from tests.kernel_says import PAGE
from tests.live.bracket import look_again, working_sources
from tests.live.command import pagewalk, pagewalk_here
from tests.live.test_top import said
from tests.machine import prepared
from tests.targets import TARGETS, start

pytestmark = pytest.mark.live
KERNEL = pytest.mark.skipif("ebpf" not in working_sources() and "kcore" not in working_sources(),
                            reason="nothing reads kernel memory here")
ALONE = ("setpriv", "--reuid=65534", "--clear-groups")


def looked_at(*pids: int, clock: Callable[[], float] = lambda: 0.0) -> overview.Overview:
    """Return the first screen of some processes, which has all the time."""
    chosen = choose(Wanted(pids=pids))
    return overview.look_at_overview(overview.open_overview(), chosen, BUDGET_NS, clock)


@KERNEL
@pytest.mark.parametrize("name", ["plain", "fork_cow", "memfd", "thp_fork", "ksm", "swap_forked"])
def test_each_row_is_what_smaps_rollup_says(name: str) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:

        def look() -> None:
            before = said(running.pids)
            rows = {row.pid: row._asdict() for row in looked_at(*running.pids).rows}
            assert before == said(running.pids)
            assert {pid: {key: rows[pid][key] >> 10 for key in before[pid]} for pid in rows
                    } == before

        look_again(look)


@KERNEL
def test_all_processes_hold_each_mapped_frame_once() -> None:
    def look() -> None:
        ram = overview.open_overview()
        before = mapped_frames()
        found = overview.ram_in_time(ram).mapped
        after = mapped_frames()
        # What others map and unmap meanwhile shows in frames that are mapped in one of both
        # readings only; what comes and goes in between does not, and is for another look.
        moved = int((before != after).sum())
        most, least = (before | after).sum(), (before & after).sum()
        assert found is not None
        assert least - moved <= found // PAGE <= most + moved

    look_again(look)


def mapped_frames() -> npt.NDArray[np.bool_]:
    """Return of each frame whether it is mapped, by /proc/kpagecount."""
    with open("/proc/kpagecount", "rb", 0) as file:
        parts = []
        while part := file.read(1 << 24):
            parts.append(np.frombuffer(part, np.uint64) > 0)
    return np.concatenate(parts)


@KERNEL
def test_ram_is_in_six_rows_that_add_up_to_it() -> None:
    found = pagewalk_here("--format", "json")
    assert found.code in (0, 3), found.err
    assert sum(found.json["rows"].values()) == found.json["total"]
    said = re.search(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())
    assert said is not None  # what the kernel keeps at boot is not in it
    assert found.json["total"] == (int(said[1]) << 10) + found.json["rows"]["boot"]


@KERNEL
def test_when_time_is_up_no_other_process_is_begun_and_those_left_are_counted() -> None:
    late = overview.LONGEST + overview.OWN + 1
    with start("fork_three", stopped=True) as running:
        # Begun; no time for those that are walked together; the first; no other.
        moments = iter((0.0, late, *[late] * 9))
        found = looked_at(*running.pids, clock=lambda: next(moments))
        assert found.looked is not None
        (walked,) = (one.pids[0] for one in found.looked.members)
        sizes = {one.process.pid: one.process.rss for one in choose(Wanted(pids=running.pids))}
        assert sizes[walked] == max(sizes.values())
        assert {one.pid for one in found.left} == {*running.pids} - {walked}
        assert [row.pid for row in found.rows if row.uss is not None] == [walked]
        assert all(row.rss == sizes[row.pid] for row in found.rows if row.uss is None)


@KERNEL
def test_ram_that_is_too_large_to_look_at_quickly_is_what_the_kernel_counts(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "COUNTED", -1.0)
    found = overview.ram_in_time(overview.open_overview())
    assert found.source == "counters" and found.parts
    assert not found.partial  # nothing that rights would change
    assert "pagewalk ram does" in found.withheld[0].why


@KERNEL
def test_on_a_terminal_it_is_one_screen_with_the_answer_first() -> None:
    window = Window("--limit", "3")
    try:
        code = window.end()
    finally:
        window.close()
    text = re.sub(r"\x1b\[[0-9;]*m", "", window.said)
    assert code in (0, 3)
    order = ["of RAM: processes", "COMMAND", "All processes together, this one too, hold",
             "next: pagewalk", "what this process is made of",
             "all of RAM, to the last page", "pagewalk top  "]
    places = [text.rindex(words) for words in order]
    assert places == sorted(places)


@pytest.mark.parametrize("words", [(), ("--sort", "name"), ("--columns", "rss,uid")])
def test_a_user_gets_the_counters_and_the_list_by_rss(words: tuple[str, ...]) -> None:
    ran = pagewalk(*words, before=ALONE)
    assert ran.code == 3, ran.err
    assert re.match(r"\d+ KiB of RAM: processes \d+ KiB, files in cache", ran.out)
    assert "partial: what each frame is used for, and what processes hold: " in ran.out
    assert f"{os.getpid()} " in pagewalk("--limit", "10000", before=ALONE).out


def test_a_user_is_told_in_the_document_too() -> None:
    found: dict[str, Any] = pagewalk("--format", "json", before=ALONE).json
    assert found["source"] == {"name": "counters"} and found["partial"]
    assert found["pss_sum"] is None and sum(found["rows"].values()) == found["total"]
    ours = next(row for row in found["processes"] if row["pid"] == os.getpid())
    assert ours["uss"] is None and ours["rss"] > 0 and "pytest" in ours["command"]


def test_alone_in_its_namespace_it_still_tells_of_ram() -> None:
    ran = pagewalk("overview", "--format", "json",
                   before=("unshare", "--pid", "--fork", "--mount-proc"))
    assert ran.code in (0, 3), ran.err
    assert ran.json["total"] > 0 and ran.json["processes"] == []
