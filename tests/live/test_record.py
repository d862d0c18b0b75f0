"""A recording answers as the process did: the same command, the same JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.live.bracket import look_again
from tests.live.command import pagewalk_here
from tests.machine import prepared
from tests.targets import TARGETS, start

pytestmark = pytest.mark.live

# What says how long a read took, differs each time.
MOVES = {"stall_ns"}
NAMES = ("plain", "fork_three", "zero_reads", "thp_part", "swap_private", "hugetlb_fork", "sleep")
COMMANDS = (("show",), ("show", "--counts"), ("maps",), ("maps", "--by", "kind"),
            ("maps", "--by", "perms"), ("pages",), ("explain", "--no-smaps"))


def said(*words: object) -> Any:
    """Return the JSON that a command prints, without what differs each time."""
    ran = pagewalk_here(*words, "--format", "json")
    assert ran.code in (0, 3), ran.err
    if words[0] == "pages":
        return [json.loads(line) for line in ran.out.splitlines()]
    return {key: value for key, value in json.loads(ran.out).items() if key not in MOVES}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("name", NAMES)
def test_the_same_command_prints_the_same(
    name: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "a.pagewalk"
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:

        def look() -> None:
            # Others map and unmap libc meanwhile: live before, the recording, live after.
            before = said(*words, running.pid)
            ran = pagewalk_here("record", running.pid, "-o", path, "--physical")
            assert ran.code in (0, 3), ran.err
            recorded = said(*words, path)
            assert before == said(*words, running.pid)
            assert recorded == before

        look_again(look)


def test_frames_are_numbered_anew_unless_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.pagewalk"
    with start("plain", stopped=True) as running:
        assert pagewalk_here("record", running.pid, "-o", path).code == 0
    rows = said("pages", path)
    assert {row["phys"] for row in rows} == {None} and {row["pfn"] for row in rows} == {None}
    assert os.stat(path).st_mode & 0o777 == 0o600
