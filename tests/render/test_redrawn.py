"""A screen that is redrawn: in place on a terminal, below the last one elsewhere."""

from __future__ import annotations

import io

import pytest

from pagewalk.render.redrawn import Redrawn, marked
from tests.render.written import Terminal


def drawn(out: io.StringIO, *screens: str) -> list[str]:
    """Return what each of ``screens`` puts on ``out``."""
    stream, found = Redrawn(out), []
    for screen in screens:
        at = len(out.getvalue())
        stream.write(screen)
        assert len(out.getvalue()) == at  # nothing before it is whole
        stream.redraw()
        found.append(out.getvalue()[at:])
    return found


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.usefixtures("colours")
def test_on_a_terminal_it_is_drawn_over_the_last_one() -> None:
    assert drawn(Terminal(), "a 1\nb 2\n", "a 1\nb 3\nc\n", "a 1\n") == [
        "\x1b[2J\x1b[Ha 1\x1b[K\nb 2\x1b[K\n\x1b[J",
        "\x1b[Ha 1\x1b[K\n\x1b[1mb 3\x1b[0m\x1b[K\n\x1b[1mc\x1b[0m\x1b[K\n\x1b[J",
        "\x1b[Ha 1\x1b[K\n\x1b[J",
    ]


@pytest.mark.usefixtures("colours")
def test_without_colours_nothing_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert drawn(Terminal(), "a\n", "b\n")[1] == "\x1b[Hb\x1b[K\n\x1b[J"


def test_in_a_pipe_screens_follow_one_another() -> None:
    assert drawn(io.StringIO(), "a\nb\n", "a\nc\n") == ["a\nb\n", "\na\nc\n"]


def test_what_has_changed_is_marked() -> None:
    assert marked(["same", "new", "", "more"], ["same", "old", "x"]) == [
        "same", "\x1b[1mnew\x1b[0m", "", "\x1b[1mmore\x1b[0m"]
    assert marked(["first"], None) == ["first"]
