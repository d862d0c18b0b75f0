"""Amounts as text: rounded to KiB, in K, M and G, and in KiB to the byte."""

from __future__ import annotations

import pytest

from pagewalk.render.amounts import STYLE, Style, brief, human, kib, kib_exact


@pytest.mark.parametrize(
    ("amount", "rounded", "exact"),
    [
        (None, "n/a", "n/a"),
        (0, "0", "0"),
        (1024, "1", "1"),
        (1536, "2", "1.5"),
        (-1024, "-1", "-1"),
        (-1536, "-2", "-1.5"),
        (1, "0", ".001"),
        (1 << 44, "17 179 869 184", "17 179 869 184"),
    ],
)
def test_amounts_are_kib(amount: int | None, rounded: str, exact: str) -> None:
    # In a pipe a blank would end a field.
    assert kib(amount) == rounded.replace(" ", "")
    assert kib_exact(amount).replace("0.", ".") == exact.replace(" ", "")
    style = STYLE.set(Style(grouped=True))
    try:
        assert kib(amount) == rounded
        assert kib_exact(amount).replace("0.", ".") == exact
    finally:
        STYLE.reset(style)


@pytest.mark.parametrize(("amount", "text"), [
    (0, "0"), (1, "0.0K"), (1536, "1.5K"), (4096, "4K"), (999 << 10, "999K"), (1000 << 10, "1.0M"),
    (10 << 20, "10M"), (1700 << 20, "1.7G"), (35 << 30, "35G"), (16 << 40, "16T"),
    (3000 << 50, "3000P"), (-1536, "-1.5K"), (-(5 << 30), "-5.0G"),
])
def test_amounts_for_people(amount: int, text: str) -> None:
    assert human(amount) == text


@pytest.mark.parametrize(("nanoseconds", "words"), [
    (1, "1 µs"), (40_000, "40 µs"), (99_999, "100 µs"), (100_000, "0.1 ms"),
    (12_500_000, "12.5 ms"),
])
def test_a_short_time_is_never_none(nanoseconds: int, words: str) -> None:
    assert brief(nanoseconds) == words
