"""How far it is: after a second, on a terminal only, and gone when it is done."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import TextIO

import pytest

from pagewalk.cli import main
from pagewalk.proc.stall import HEAR
from pagewalk.render import progress
from pagewalk.render.progress import Progress, shown
from tests.targets import asleep

MIB = 1 << 20
needs_two_sources = pytest.mark.skipif(
    os.geteuid() != 0, reason="an ordinary user has one source to read from")


class Screen:
    """A terminal, as a stream to write to; ``said`` is what was written so far."""

    def __init__(self) -> None:
        self._ours, theirs = pty.openpty()
        self.stream: TextIO = open(theirs, "w")  # noqa: SIM115

    @property
    def said(self) -> str:
        """Return what was written since it was last asked."""
        # What is written to a terminal may be read in pieces, and a little later.
        end = "<end>"
        self.stream.write(end)
        self.stream.flush()
        text = ""
        while not text.endswith(end):
            text += os.read(self._ours, 1 << 16).decode()
        return text.removesuffix(end)

    def close(self) -> None:
        """Close both ends."""
        self.stream.close()
        os.close(self._ours)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    """Return a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    yield screen
    screen.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, which stands still until it is changed."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_the_first_second_is_silent_and_then_it_is_told_five_times_a_second(
    screen: Screen, clock: list[float]
) -> None:
    line = Progress(screen.stream)
    told = []
    for _ in range(40):
        line("walked", 5 * MIB, 20 * MIB)
        told.append(screen.said)
        clock[0] += 0.0625
    first = next(at for at, said in enumerate(told) if said)
    assert first == 16
    assert told[first] == "walked 5.0M of 20M, 1 s\x1b[K\r"
    assert sum(map(bool, told[first : first + 17])) == 5  # one of four, for a second


def test_it_is_erased_once(screen: Screen, clock: list[float]) -> None:
    with shown(screen.stream) as erase:
        erase()
        assert screen.said == ""
        clock[0] += 2
        hear = HEAR.get()
        assert hear is not None
        hear("reading smaps", 0, None)
        assert screen.said == "reading smaps, 2 s\x1b[K\r"
        erase()
        assert screen.said == "\r\x1b[K"
        clock[0] += 2
        hear("walked", 9 * MIB, MIB)  # more than there was when it began
        assert screen.said == "walked 9.0M, 4 s\x1b[K\r"
    assert screen.said == "\r\x1b[K"
    assert HEAR.get() is None


def test_it_is_shorter_than_any_message(screen: Screen, clock: list[float]) -> None:
    line = Progress(screen.stream)
    clock[0] += 5
    line("x" * 100, 5 << 40, 20 << 40)
    assert len(screen.said.removesuffix("\x1b[K\r")) == progress.WIDEST
    from pagewalk.interrupt import INTERRUPTED

    assert len(f"pagewalk: {INTERRUPTED}") > progress.WIDEST


def test_a_terminal_that_is_gone_ends_nothing(clock: list[float]) -> None:
    line = Progress(io.StringIO())
    clock[0] += 5
    line("walked", MIB, None)
    line.erase()


@pytest.fixture(scope="module")
def sleeper() -> Iterator[str]:
    """Return the pid of a process that does nothing."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        asleep(process.pid, "sleep")
        yield str(process.pid)
        process.kill()


def stderr_of(screen: Screen, monkeypatch: pytest.MonkeyPatch, *args: str) -> str:
    """Return what a command writes to a terminal as its stderr, as if each walk took long."""
    monkeypatch.setattr(progress, "AFTER_S", 0.0)
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    monkeypatch.setattr(sys, "stderr", screen.stream)
    assert main([*args]) in (0, 3)
    return screen.said


@pytest.mark.parametrize("words", [
    ["show"], ["maps"], ["pages"], pytest.param(["check"], marks=needs_two_sources),
], ids=" ".join)
def test_a_long_walk_is_told_in_bytes(
    words: list[str], sleeper: str, screen: Screen, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = stderr_of(screen, monkeypatch, *words, sleeper)
    assert re.search(r"walked [0-9.]+[KM] of [0-9.]+[KM], [0-9]+ s\x1b\[K\r", said)
    rest = said[said.rindex("\r\x1b[K") + 4 :]
    assert "walked" not in rest and "walked" not in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--quiet"], ["--freeze"]], ids=" ".join)
def test_where_nobody_wants_to_hear_it_or_the_target_is_stopped_nothing_is_told(
    words: list[str], sleeper: str, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "walked" not in stderr_of(screen, monkeypatch, "show", sleeper, *words)


def test_on_a_terminal_that_knows_no_sequences_nothing_is_told(
    sleeper: str, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert "walked" not in stderr_of(screen, monkeypatch, "show", sleeper)


def test_in_a_pipe_nobody_listens(sleeper: str, capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[object] = []

    class Loud:
        def __init__(self, *_: object) -> None:
            heard.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "Progress", Loud)
        assert main(["show", sleeper]) in (0, 3)
    assert heard == [] and "walked" not in capsys.readouterr().err
