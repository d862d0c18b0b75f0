"""Every command says whether it takes a recording in place of a process: none can forget to."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pagewalk.cli import COMMANDS
from tests.live.command import one_sentence, pagewalk_here

# What follows the file. live/test_record.py and others compare the answers with those of live.
ANSWER = {
    "show": (), "maps": (), "pages": ("--limit", "3"), "explain": (), "heap": (),
    "who": ("stack-8",), "share": (), "top": ("--once",), "processes": (), "overview": (),
    "diff": (), "query": ("select count(*) as n from processes",),
}
# Of one process a recording does not have what these show, and they say so.
REFUSE = {"vtop": ("stack-8",), "check": ()}
# They take no process: recordings of RAM and cgroups (live/test_record_machine.py), many
# recordings, or none at all.
TAKE_NONE = {"ram", "cgroups", "record", "export", "fleet", "run", "doctor"}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recording of a process that holds still, by whatever rights the tests have."""
    path = tmp_path_factory.mktemp("recorded") / "a.pagewalk"
    pipe = subprocess.PIPE
    with subprocess.Popen(["cat"], stdin=pipe, stdout=pipe, bufsize=0) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"\n")
        process.stdout.read(1)  # it has been loaded
        ran = pagewalk_here("record", process.pid, "-o", path, "--heap", "--physical")
    assert ran.code in (0, 3), ran.err
    return path


def test_every_command_is_listed_once() -> None:
    assert sorted([*ANSWER, *REFUSE, *TAKE_NONE]) == sorted(COMMANDS)


@pytest.mark.parametrize("command", ANSWER)
def test_it_answers(command: str, recording: Path) -> None:
    files = (recording, recording) if command == "diff" else (recording,)
    ran = pagewalk_here(command, *files, *ANSWER[command])
    if command == "who" and os.geteuid():
        assert "record it as root" in one_sentence(ran)
        return
    assert ran.code in (0, 3), ran.err
    assert ran.out


@pytest.mark.parametrize("command", REFUSE)
def test_it_refuses(command: str, recording: Path) -> None:
    ran = pagewalk_here(command, recording, *REFUSE[command])
    assert ran.code == 1 and f"{recording} does not have" in one_sentence(ran)
