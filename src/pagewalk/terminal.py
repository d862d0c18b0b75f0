"""Text for people: folded to the terminal, coloured on one only, safe to print on it."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from typing import TextIO

BOLD, DIM, RED, GREEN, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[0m"


def width(out: TextIO) -> int | None:
    """Return the columns of the terminal behind ``out``, or None where it is none."""
    if not out.isatty():
        wide = os.environ.get("COLUMNS", "")
        return int(wide) if wide.isdigit() and int(wide) >= 40 else None
    wide = os.environ.get("COLUMNS", "")
    if wide.isdigit() and int(wide):
        return int(wide)
    try:
        return os.get_terminal_size(out.fileno()).columns or 80
    except (OSError, ValueError):  # a terminal that is none, such as a test's
        return 80


def paint(out: TextIO, colour: str, text: str) -> str:
    """Return ``text`` in ``colour`` on a terminal that wants colours (https://no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not out.isatty()
    return text if plain else f"{colour}{text}{PLAIN}"


def printable(name: str) -> str:
    """Return ``name`` with control and undecodable characters as escapes: safe on a terminal."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in name
    )


def kib(amount: int | None) -> str:
    """Return bytes as KiB, thousands apart; ``n/a`` where withheld."""
    return "n/a" if amount is None else f"{amount / 1024:,.0f}".replace(",", " ")


def shorten(text: str, room: int) -> str:
    """Return ``text`` in ``room`` characters, its middle left out: both ends tell the most."""
    if len(text) <= room:
        return text
    tail = (room - 1) * 2 // 3
    return text[: room - 1 - tail] + "~" + text[len(text) - tail :]


def grid(rows: Sequence[Sequence[str]], left: frozenset[int]) -> list[str]:
    """Return ``rows`` as aligned lines; columns in ``left`` are left-aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(w) if i in left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def wrapped(text: str, out: TextIO, indent: str = "  ") -> str:
    """Return ``text`` folded to the terminal, later lines indented."""
    return textwrap.fill(text, width(out) or 100, subsequent_indent=indent, break_long_words=False,
                         break_on_hyphens=False)


def kib_exact(amount: int | None) -> str:
    """Return bytes as KiB to four decimals, so that a single byte is seen: 1536 is ``1.5``."""
    if amount is None:
        return "n/a"
    whole, rest = divmod(abs(amount), 1024)
    sign = "-" if amount < 0 else ""
    part = f"{rest / 1024:.4f}".rstrip("0").removeprefix("0") if rest else ""
    return f"{sign}{whole:,}{part}".replace(",", " ")
