"""pagewalk who of a recording: what only live memory can be asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.history.by_hand import Process, Run, recorded
from tests.live.command import one_sentence, pagewalk_here


@pytest.mark.parametrize("asked", [("--file", "/bin/sh"), ("--pfn", "1"), ("--phys", "0x1000"),
                                   ("--shm", "1"), ("heap", "--file", "/bin/sh")])
def test_what_asks_live_memory_takes_no_recording(asked: tuple[str, ...], tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.pagewalk", Process(5, runs=(Run(9),)))
    for word in (path, f"{path}:5"):
        ran = pagewalk_here("who", word, *asked)
        option = next(one for one in asked if one.startswith("--"))
        assert ran.code == 2
        assert one_sentence(ran).startswith(
            f"{option} is about the live memory of this machine, and {word} is a recording:")


def test_what_is_no_recording_is_asked_for_one_thing() -> None:
    assert "name one thing" in one_sentence(pagewalk_here("who", "1", "--file", "/bin/sh"))
