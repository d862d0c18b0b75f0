"""A screen that is redrawn: in place on a terminal, below the last one elsewhere."""

from __future__ import annotations

import io

import pytest

from pagewalk.render.redrawn import ENTER, LEAVE, Drawing, Redrawn, fitted, marked
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
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.usefixtures("colours")
def test_on_a_terminal_it_is_drawn_over_the_last_one() -> None:
    assert drawn(Terminal(), "a 1\nb 2\n", "a 1\nb 3\nc\n", "a 1\n") == [
        f"{ENTER}\x1b[Ha 1\x1b[K\nb 2\x1b[K\n\x1b[J",
        "\x1b[Ha 1\x1b[K\nb \x1b[1m3\x1b[0m\x1b[K\n\x1b[1mc\x1b[0m\x1b[K\n\x1b[J",
        "\x1b[Ha 1\x1b[K\n\x1b[J",
    ]


@pytest.mark.usefixtures("colours")
def test_the_terminal_is_given_back_with_the_last_screen_on_it() -> None:
    out = Terminal()
    stream = Redrawn(out)
    stream.leave()  # nothing was taken
    assert out.getvalue() == ""
    for screen in ("a 1\n", "a 2\n"):
        stream.write(screen)
        stream.redraw()
    at = len(out.getvalue())
    stream.leave()
    stream.leave()
    assert out.getvalue()[at:] == f"{LEAVE}a 2\n"


@pytest.mark.usefixtures("colours")
def test_a_screen_in_another_shape_has_no_marks() -> None:
    out = Terminal()
    drawing = Drawing(lambda text, to: to.write(f"{text} {out.columns}\n"), out)
    out.columns = 80
    drawing("a")
    out.columns = 40
    drawing.again()
    assert out.getvalue().endswith("\x1b[Ha 40\x1b[K\n\x1b[J")


def test_a_terminal_that_knows_no_sequences_gets_one_screen_below_the_other(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert drawn(Terminal(), "a\nb\n", "a\nc\n") == ["a\nb\n", "\na\nc\n"]


def test_what_does_not_fit_is_counted() -> None:
    lines = [str(n) for n in range(10)]
    assert fitted(lines, 10) == lines
    assert fitted(lines, 4) == ["0", "1", "2", "... 7 more lines; --limit shows fewer rows"]


@pytest.mark.usefixtures("colours")
def test_without_colours_nothing_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert drawn(Terminal(), "a\n", "b\n")[1] == "\x1b[Hb\x1b[K\n\x1b[J"


def test_in_a_pipe_screens_follow_one_another() -> None:
    assert drawn(io.StringIO(), "a\nb\n", "a\nc\n") == ["a\nb\n", "\na\nc\n"]


@pytest.mark.parametrize(("line", "was", "shown"), [
    ("same", "same", "same"), ("new", "old", "<new>"), ("", "old", ""), ("new", "", "<new>"),
    ("1  22  x", "1  21  x", "1  <22>  x"), ("a b", "a", "<a> <b>"),
    ("\x1b[2ma 1\x1b[0m", "\x1b[2ma 1\x1b[0m", "\x1b[2ma 1\x1b[0m"),
    ("\x1b[31ma 2\x1b[0m", "\x1b[2ma 1\x1b[0m", "a <2>"), ("  9", " 10", "  <9>"),
])
def test_the_words_that_have_changed_are_marked(line: str, was: str, shown: str) -> None:
    told = shown.replace("<", "\x1b[1m").replace(">", "\x1b[0m")
    assert marked([line], [was]) == [told]
    assert marked([line], None) == [line]


def test_a_row_that_has_moved_is_compared_with_itself() -> None:
    before = ["PID  RSS  NAME", "  7   90  bash", "  8   80  sleep", "  9   70  bash"]
    lines = ["PID  RSS  NAME", "  8   95  sleep", "  7   90  bash", " 12   75  bash"]
    assert marked(lines, before) == [
        "PID  RSS  NAME", "  8   \x1b[1m95\x1b[0m  sleep", "  7   90  bash",
        " \x1b[1m12\x1b[0m   \x1b[1m75\x1b[0m  bash",  # a new one, at the place of another
    ]
    groups = [["5M  heap", "4M  stack"], ["6M  stack", "5M  heap"]]
    assert marked(groups[1], groups[0]) == ["\x1b[1m6M\x1b[0m  stack", "5M  heap"]
