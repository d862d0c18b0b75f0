"""Names on a terminal, in a file and in an encoding that lacks their characters."""

from __future__ import annotations

import errno
import io
import resource
from pathlib import Path

import pytest
from hypothesis import strategies as st

from pagewalk.render.terminal import CODES, PLAIN, Screen, harmless, keep_names, printable, width
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
    Screen(out, colours=True).write(f"{CODES['bold']}a\x1b[2J{PLAIN}\n")
    assert out.getvalue() == f"{CODES['bold']}a\\x1b[2J{PLAIN}\n"


@pytest.mark.parametrize(("out", "colours"), [(Terminal(), False), (io.StringIO(), True)])
def test_a_screen_passes_no_colours_elsewhere(out: io.StringIO, colours: bool) -> None:
    Screen(out, colours=colours).write(f"{CODES['bold']}a\n")
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
