"""A process that is only columns in memory is shown, explained and compared as a live one is."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagewalk.account.check import check
from pagewalk.commands.explain import looks
from pagewalk.commands.maps import tabulate
from pagewalk.commands.pages import selected, walk_part
from pagewalk.commands.show import pages, show
from pagewalk.model.columns import Flag, Pages, State, Sums
from pagewalk.model.errors import BadRequest
from pagewalk.render import view
from pagewalk.walking.walk import walk
from pagewalk.walking.where import parse_where
from tests import by_hand
from tests.account.test_table import ON_PAPER
from tests.by_hand import HEAP, PAGE, PROGRAM, Row
from tests.live.command import pagewalk_here

PAPER = {name: sum(column) for name, column in ON_PAPER.items()}


def written(name: str, write_it: Any, format_name: str = "json") -> Any:
    out = io.StringIO()
    write_it(lambda *results: view(format_name, name)(*results, out))
    return json.loads(out.getvalue()) if format_name == "json" else out.getvalue()


def test_show() -> None:
    source = by_hand.source()
    said = written("show", lambda write: show(source, write, counts=False))
    assert said["process"] == {"pid": 4711, "name": "pro gram\x1b[1m", "exe": "/usr/bin/program"}
    assert {name: said["totals"][name] for name in PAPER} == PAPER
    assert [(line["against"], line["unexplained"]) for line in said["ledger"]] == [
        ("status VmSize", 0), ("status VmRSS", 0), ("status VmSwap", 0), ("status HugetlbPages", 0),
    ]
    assert said["stall_ns"] == 1_234_567


def test_show_without_frames() -> None:
    source = by_hand.source()
    said = written("show", lambda write: show(source, write, counts=True))["totals"]
    assert (said["present"], said["rss"], said["swap"]) == tuple(
        PAPER[name] for name in ("present", "rss", "swap")
    )
    assert said["pss"] is said["uss"] is said["distinct"] is None


def test_the_log() -> None:
    text = written("pages", lambda write: pages(by_hand.source(), write), "log")
    assert text.count("VA:") == PAPER["size"] // PAGE
    assert text.count("Physical page exists at PA:") == PAPER["present"] // PAGE


def test_maps() -> None:
    table = tabulate(by_hand.source(), [], counts=False, everything=False)
    for name, column in ON_PAPER.items():
        ours = table.columns[name]
        assert ours is not None and ours.tolist() == list(column), name


def test_maps_with_every_field_of_smaps() -> None:
    table = tabulate(by_hand.source(tables=True), ["shared_clean"], counts=False, everything=True)
    parts = ("shared_clean", "shared_dirty", "private_clean", "private_dirty")
    columns = [table.columns[part] for part in parts]
    assert sum(int(column.sum()) for column in columns if column is not None) == PAPER["rss"]
    # Other processes' swap entries are not recorded with it, and this machine's are not asked.
    assert table.totals["swap_pss"] is None


def test_pages() -> None:
    found = list(selected(walk_part(by_hand.source(), None, "heap"), parse_where("anon,~ksm")))
    assert np.concatenate([rows.addr for rows in found]).tolist() == [HEAP, HEAP + PAGE]
    span = f"{PROGRAM + PAGE:x}-{PROGRAM + 3 * PAGE:x}"
    walked = walk_part(by_hand.source(), span, None)
    text = written("pages", lambda write: write(walked, walked), "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["addr"], row["state"]) for row in rows] == [
        (f"0x{PROGRAM + PAGE:016x}", "file"), (f"0x{PROGRAM + 2 * PAGE:016x}", "absent"),
    ]


def test_explain() -> None:
    (look,) = looks(by_hand.source(tables=True, page_tables=by_hand.PAGE_TABLES), smaps=True)
    assert {line.against: line.unexplained for line in look.lines if line.unexplained} == {}
    assert {"smaps Rss", "smaps_rollup Pss", "pmap total", "status VmPTE"} <= {
        line.against for line in look.lines
    }


def test_explain_says_what_it_cannot() -> None:
    (look,) = looks(by_hand.source(by_hand.ROWS[1:]), smaps=True)
    assert {line.against for line in look.lines if line.unexplained} >= {"smaps Rss", "smaps Pss"}


def test_check() -> None:
    other: list[Row] = [
        (*row[:6], 2) if row[0] == HEAP else row for row in by_hand.ROWS
    ]
    assert check(by_hand.source(), by_hand.source()).differences == []
    found = check(by_hand.source(), by_hand.source(other)).differences
    assert {(d.addr, d.what, d.first, d.second) for d in found if d.what == "mapcount"} == {
        (HEAP, "mapcount", "1", "2")
    }


@pytest.mark.parametrize("want", [Pages, Sums])
@pytest.mark.parametrize("frames", [True, False])
def test_holes_and_ranges_are_honoured_whatever_is_wanted(want: Any, *, frames: bool) -> None:
    ranges = np.array([[PROGRAM + PAGE, PROGRAM + 3 * PAGE], [HEAP, HEAP + PAGE]], np.uint64)
    walked = walk(by_hand.source(), want, frames=frames, holes=True, ranges=ranges)
    sizes = dict.fromkeys(range(len(State)), 0)
    for part in walked:
        rows = part.amounts if want is Sums else part
        assert frames or rows.kflags is None
        for state, size in zip(rows.state.tolist(), rows.size.tolist(), strict=True):
            sizes[state] += size
    assert sizes[State.ABSENT] == PAGE
    assert sum(sizes.values()) == int(walked.covered.sum()) == 3 * PAGE


def test_without_holes_there_are_none() -> None:
    for want in (Pages, Sums):
        states = [
            set((part.amounts if want is Sums else part).state.tolist())
            for part in walk(by_hand.source(), want)
        ]
        assert State.ABSENT not in set().union(*states)


def test_a_walk_is_iterated_over_once_and_leaves_the_source_open() -> None:
    source = by_hand.source()
    walked = walk(source)
    assert sum(len(pages) for pages in walked) == sum(
        bool(flags & (Flag.PRESENT | Flag.SOFT)) for _, _, _, flags, *_ in by_hand.ROWS
    )
    with pytest.raises(BadRequest, match="only once"):
        iter(walked)
    assert source.closed == 0
    assert walked.outcome.done


@pytest.mark.live  # only root sees page frames
def test_pages_say_that_frames_were_numbered_anew(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            for name, more in (("anew", ()), ("physical", ("--physical",))):
                ran = pagewalk_here("record", process.pid, "-o", tmp_path / name, *more)
                assert ran.code in (0, 3)
        finally:
            process.kill()
    why = "made without --physical"
    for words in ((), ("--format", "csv"), ("--columns", "maps,phys")):
        ran = pagewalk_here("pages", tmp_path / "anew", "--limit", 1, *words)
        assert ran.code == 3 and ran.err.count(why) == 1, ran.err
    for path, words in (("anew", ("--columns", "state")), ("physical", ())):
        ran = pagewalk_here("pages", tmp_path / path, "--limit", 1, *words)
        assert ran.code == 0 and why not in ran.err, ran.err
