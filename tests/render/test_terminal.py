"""Names on a terminal, in a file and in an encoding that lacks their characters."""

from __future__ import annotations

import errno
import io
import re
import resource
from pathlib import Path

import pytest
from hypothesis import strategies as st

from pagewalk.cli import EPILOG
from pagewalk.render.amounts import STYLE, Style
from pagewalk.render.terminal import (
    BLOCKS,
    LEGEND,
    PLAIN,
    Screen,
    align,
    bars,
    cells,
    chart,
    coloured,
    harmless,
    keep_names,
    paint,
    printable,
    say,
    say_grid,
    width,
)
from tests.documents import ROOT
from tests.properties import always
from tests.render.written import HOSTILE, Terminal, seen

# Any str that a name may be: characters, and bytes that were not UTF-8.
NAMES = st.binary().map(lambda raw: raw.decode(errors="surrogateescape"))


@always(st.one_of(st.text(), NAMES))
def test_printable_characters_are_shown_as_they_are_and_the_rest_as_escapes(name: str) -> None:
    shown = printable(name)
    assert seen(shown) and "\n" not in shown
    assert (shown == name) == (seen(name) and "\n" not in name)


@always(st.one_of(st.text(), NAMES))
def test_lines_stay_lines(text: str) -> None:
    assert harmless(text).count("\n") == text.count("\n")
    assert seen(harmless(text))


@pytest.mark.parametrize("character", sorted(set(HOSTILE)))
def test_each_character_is_distinguishable_from_the_others(character: str) -> None:
    shown = printable(character)
    assert shown == character or shown.startswith("\\")
    assert [c for c in set(HOSTILE) if printable(c) == shown] == [character]


def test_a_screen_passes_our_colours_where_they_are_wanted() -> None:
    out = Terminal()
    Screen(out, colours=True).write(f"{LEGEND['main'].code}a\x1b[2J{PLAIN}\n")
    assert out.getvalue() == f"{LEGEND['main'].code}a\\x1b[2J{PLAIN}\n"


@pytest.mark.parametrize(("out", "colours"), [(Terminal(), False), (io.StringIO(), True)])
def test_a_screen_passes_no_colours_elsewhere(out: io.StringIO, colours: bool) -> None:
    Screen(out, colours=colours).write(f"{LEGEND['main'].code}a\n")
    assert out.getvalue() == "\\x1b[1ma\n"


def encoded(name: str, encoding: str) -> bytes:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding, newline="")
    keep_names(out)
    out.write(name)
    out.flush()
    return raw.getvalue()


@always(st.binary())
def test_in_utf_8_a_name_is_written_as_the_bytes_it_was_read_as(raw: bytes) -> None:
    assert encoded(raw.decode(errors="surrogateescape"), "utf-8") == raw


@pytest.mark.parametrize(
    ("name", "encoding", "expected"),
    [
        ("日本", "ascii", rb"\u65e5\u672c"),
        ("é", "ascii", rb"\xe9"),
        ("é日", "latin-1", b"\xe9\\u65e5"),
        ("a\udcff", "ascii", b"a\xff"),
    ],
)
def test_a_character_that_an_encoding_lacks_is_written_as_an_escape(
    name: str, encoding: str, expected: bytes
) -> None:
    assert encoded(name, encoding) == expected


def test_a_full_disk_is_noticed_behind_a_screen(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OSError) as caught, open(tmp_path / "out", "w") as out:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
            # Text that fits in the first buffer (8 KiB) but not in the second (4 KiB).
            Screen(out, colours=False).write("x" * 8000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG


@pytest.mark.parametrize("says", ["", "0", "-80", "\u00b2", "8\u0663", "9" * 5000, "80 "])
def test_a_columns_variable_that_is_not_a_width_is_ignored(
    says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", says)
    assert width(io.StringIO()) is None and width(Terminal()) == 80


# ---- colours, widths and bars


@pytest.mark.parametrize(("environ", "asked", "terminal", "wanted"), [
    ({}, "auto", True, True), ({}, "auto", False, False),
    ({"NO_COLOR": "1"}, "auto", True, False), ({"NO_COLOR": ""}, "auto", True, True),
    ({"TERM": "dumb"}, "auto", True, False), ({"FORCE_COLOR": "1"}, "auto", False, True),
    ({"FORCE_COLOR": "0"}, "auto", False, False), ({"FORCE_COLOR": ""}, "auto", False, False),
    ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, "auto", True, False),
    ({"NO_COLOR": "1"}, "always", False, True), ({"FORCE_COLOR": "1"}, "never", True, False),
])
def test_who_decides_about_colours(
    environ: dict[str, str], asked: str, terminal: bool, wanted: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    out = Terminal() if terminal else io.StringIO()
    style = STYLE.set(Style(color=asked))
    try:
        assert coloured(out) is wanted
        assert ("\x1b" in paint(out, "bad", "x")) is wanted
        Screen(out, colours=True).write(paint(out, "good", "x"))
        assert ("\x1b[32m" in out.getvalue()) is wanted
    finally:
        STYLE.reset(style)


def test_the_legend_is_the_one_that_people_are_told() -> None:
    page = (ROOT / "docs/index.md").read_text()
    for look in LEGEND.values():
        means = look.means.removesuffix(" (--watch)")
        assert re.search(rf"^\| {look.looks}(, with `--watch`)? \| {re.escape(means)} \|$", page,
                         re.MULTILINE)
    told = " ".join(EPILOG.split())
    assert all(look.looks in told for look in LEGEND.values())


@pytest.mark.parametrize(("text", "wide"), [
    ("abc", 3), ("日本", 4), ("e\u0301", 1), ("é", 1), ("ｱ", 1), ("", 0), ("a日b", 4),
])
def test_wide_characters_take_two_columns(text: str, wide: int) -> None:
    assert cells(text) == wide


def test_a_grid_is_aligned_whatever_the_width_of_its_characters() -> None:
    lines = align([["NAME", "日本", "ab"], ["N", "1", "22"]], {0})
    assert lines == ["NAME   N", "日本   1", "ab    22"]


def test_wide_text_is_wrapped_by_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    out = Terminal()
    say("日本語 " * 9, out)
    lines = out.getvalue().splitlines()
    assert len(lines) > 2 and all(cells(line) <= 20 for line in lines)
    assert "\0" not in out.getvalue()


ROWS = [("NAME", "ONE", "TWO"), ("a long name of a row", "1 000", "2 000"), ("b", "3", "40 000")]


@pytest.mark.parametrize("room", range(10, 40))
def test_a_grid_hides_columns_rather_than_cut_a_number(
    room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(room))
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    say_grid(ROWS, {0}, Screen(out, colours=False), room=room)
    text = out.getvalue()
    grid = text.splitlines()[:3]
    for title, cell in (("ONE", "1 000"), ("TWO", "2 000")):
        assert (title in grid[0]) == (cell in grid[1])
        assert (title in grid[0]) or re.search(rf"hidden,[\s\S]*{title}", text)
    assert "ONE" in grid[0] or room < 15
    assert room < 15 or max(map(len, grid)) <= room


@pytest.mark.parametrize(("columns", "encoding", "blocks"), [
    ("80", "utf-8", BLOCKS), ("72", "utf-8", BLOCKS), ("71", "utf-8", ""), ("40", "utf-8", ""),
    ("80", "ascii", "#"), ("80", "latin-1", "#"),
])
def test_bars_need_a_wide_terminal(
    columns: str, encoding: str, blocks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(Terminal, "encoding", encoding)
    assert chart(Screen(Terminal(), colours=True)) == blocks
    assert chart(io.StringIO()) == ""


def test_a_bar_is_as_long_as_the_share() -> None:
    assert bars([0, 1, 25, 50, 100, None], 100, "#") == ["", "", "##", "#####", "#" * 10, ""]
    assert bars([50, 51, 100, 1], 100, BLOCKS) == ["█████", "█████", "█" * 10, ""]
    assert bars([1], 80, BLOCKS) == ["▏"] and bars([79], 80, BLOCKS) == ["█" * 9 + "▉"]
    assert bars([5, None], 0, BLOCKS) == bars([5, None], None, BLOCKS) == ["", ""]
    assert bars([500], 100, "#") == ["#" * 10]  # what is not part of the whole
