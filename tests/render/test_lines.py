"""Lines from columns must be what str.format returns row by row."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from pagewalk.render import lines
from tests.properties import always

WORDS = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20)
# No NUL: the kernel never writes one, and here it is padding.
NAMES = st.lists(st.text(st.characters(exclude_characters="\0\n", codec="utf-8")), min_size=1)


def rows(*pieces: np.ndarray) -> list[str]:
    # Not splitlines, which would split at other characters too.
    text = lines.lines(*pieces).decode()
    assert text.endswith("\n")
    return text[:-1].split("\n")


@always(WORDS)
def test_hexadecimal_is_016x(words: list[int]) -> None:
    piece = lines.hexadecimal(np.array(words, np.uint64))
    assert rows(piece) == [f"{word:016x}" for word in words]


@always(WORDS)
def test_decimal_is_d(words: list[int]) -> None:
    assert rows(lines.decimal(np.array(words, np.uint64))) == [f"{word:d}" for word in words]


@always(WORDS, st.integers(1, 30))
def test_rjust_is_str_rjust(words: list[int], width: int) -> None:
    # `decimal` leaves no padding to the left of its widest number, so that is never cut off.
    widest = max(width, *(len(str(word)) for word in words))
    piece = lines.rjust(lines.decimal(np.array(words, np.uint64)), width)
    assert rows(piece) == [str(word).rjust(widest) for word in words]


@always(st.lists(st.sampled_from(["", "a", "anon", "swapped"]), min_size=1), st.integers(8, 12))
def test_ljust_is_str_ljust(words: list[str], width: int) -> None:
    piece = lines.ljust(lines.labels(words, np.arange(len(words))), width)
    assert rows(piece) == [word.ljust(width) for word in words]


@always(NAMES, st.data())
def test_labels_picks_the_name_of_each_row(names: list[str], data: st.DataObject) -> None:
    index = data.draw(st.lists(st.integers(0, len(names) - 1), min_size=1))
    assert rows(lines.labels(names, np.array(index))) == [names[i] for i in index]


@always(WORDS, st.data())
def test_where_takes_one_piece_or_the_other(words: list[int], data: st.DataObject) -> None:
    mask = data.draw(st.lists(st.booleans(), min_size=len(words), max_size=len(words)))
    piece = lines.where(
        np.array(mask), lines.decimal(np.array(words, np.uint64)), lines.text("-", len(words))
    )
    expected = [str(w) if m else "-" for w, m in zip(words, mask, strict=True)]
    assert rows(piece) == expected


def test_pieces_are_joined_side_by_side() -> None:
    number = np.array([7, 1234], np.uint64)
    pieces = (lines.text("VA:", 2), lines.hexadecimal(number, 4), lines.text(" ", 2),
              lines.decimal(number), lines.text("", 2))
    assert lines.lines(*pieces) == b"VA:0007 7\nVA:04d2 1234\n"


def test_bytes_that_are_not_utf8_are_kept() -> None:
    name = b"caf\xe9".decode(errors="surrogateescape")
    assert lines.lines(lines.labels([name], np.array([0]))) == b"caf\xe9\n"


def test_no_rows_are_no_lines() -> None:
    none = np.zeros(0, np.uint64)
    assert lines.lines(lines.hexadecimal(none), lines.decimal(none), lines.text("x", 0)) == b""
