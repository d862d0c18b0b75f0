"""Text for people: wrapped to the terminal, coloured only on one, and safe to print there.

Names are hostile: they may contain control, bidirectional and invisible characters, and bytes that
are not UTF-8. Each of these is printed as an escape.
"""

import codecs
import io
import os
import re
from collections.abc import Sequence, Set
from contextvars import ContextVar
from typing import NamedTuple, TextIO

CODES = {"": "", "bold": "\x1b[1m", "dim": "\x1b[2m", "red": "\x1b[31m", "green": "\x1b[32m"}
PLAIN = "\x1b[0m"
COLOURS = re.compile(r"(\x1b\[(?:[012]|3[12])m)")
# Invisible characters that Python considers printable (Unicode's Default_Ignorable_Code_Point), and
# the blank Braille pattern.
UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)

class Style(NamedTuple):
    """How amounts are written: ``human`` in K, M, G, else in KiB; ``grouped`` by thousands."""

    human: bool = False
    grouped: bool = False


PLAIN_STYLE = Style()
STYLE: ContextVar[Style] = ContextVar("STYLE", default=PLAIN_STYLE)
GROUPED = re.compile(r"(?<=\d) (?=\d{3}\b)| (?=KiB\b)")


def width(out: TextIO) -> int | None:
    """Return COLUMNS or the width of the terminal behind ``out``; None if it is not a terminal."""
    columns = os.environ.get("COLUMNS", "")
    wide = int(columns) if re.fullmatch("[0-9]{1,9}", columns) else 0
    if not out.isatty():
        return wide if wide >= 40 else None
    if wide:
        return wide
    try:
        return os.get_terminal_size(out.fileno()).columns or 80
    except (OSError, ValueError):  # a stream that only claims to be a terminal, as in tests
        return 80


def paint(out: TextIO, colour: str, text: str) -> str:
    """Return ``text`` in a colour of CODES on a terminal that wants any (https://no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not out.isatty()
    return text if plain or not colour else f"{CODES[colour]}{text}{PLAIN}"


def printable(name: str) -> str:
    """Return ``name`` with control, invisible and undecodable characters escaped."""
    if name.isprintable() and (name.isascii() or not UNSEEN.search(name)):
        return name
    return "".join(
        c if c.isprintable() and not UNSEEN.match(c) else c.encode("unicode_escape").decode()
        for c in name
    )


def harmless(text: str) -> str:
    """Return ``text`` with each line made `printable`."""
    return "\n".join(map(printable, text.split("\n")))


class Screen(io.TextIOBase):
    """A stream that lets no control sequence through to a terminal.

    With ``colours``, those of `paint` pass if the stream is a terminal.
    """

    def __init__(self, out: TextIO, *, colours: bool) -> None:
        super().__init__()
        self._out = out
        self._colours = colours and out.isatty()

    def write(self, text: str) -> int:
        """Write ``text``, made `harmless`."""
        if text.replace("\n", " ").isprintable() and text.isascii():
            return self._out.write(text)
        # Every second piece is a colour sequence.
        pieces = COLOURS.split(text) if self._colours else [text]
        pieces[::2] = map(harmless, pieces[::2])
        return self._out.write("".join(pieces))

    def flush(self) -> None:
        """Flush the underlying stream."""
        self._out.flush()

    def close(self) -> None:
        """Leave the underlying stream open.

        Python closes a stream that is no longer referenced and ignores an error from flushing it,
        such as a full disk: the owner of the underlying stream would never learn of it.
        """

    def isatty(self) -> bool:
        """Return whether the underlying stream is a terminal."""
        return self._out.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the underlying stream."""
        return self._out.fileno()


def name_bytes(error: UnicodeError) -> tuple[bytes, int]:
    """Return bytes for what a stream's encoding cannot write (codecs.register_error).

    A byte that was not valid UTF-8 becomes that byte again; other characters become escapes.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end]
    written = (
        bytes([ord(c) - 0xDC00]) if "\udc80" <= c <= "\udcff" else c.encode("unicode_escape")
        for c in part
    )
    return b"".join(written), error.end


def keep_names(out: TextIO) -> None:
    """Make ``out`` able to write any name, whatever its encoding: see `name_bytes`."""
    codecs.register_error("pagewalk.names", name_bytes)
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(errors="pagewalk.names")


def kib(amount: int | None) -> str:
    """Return bytes as KiB, or in the unit that STYLE asks for; ``n/a`` if withheld."""
    style = STYLE.get()
    if amount is None:
        return "n/a"
    return human(amount) if style.human else grouped(f"{amount / 1024:,.0f}", style)


def size(amount: int | None) -> str:
    """Return bytes with their unit, for a sentence."""
    return kib(amount) if STYLE.get().human or amount is None else f"{kib(amount)} KiB"


def human(amount: int) -> str:
    """Return bytes in the largest binary unit that leaves a digit before the point: ``1.6G``."""
    value, unit = amount / 1024, "K"
    for unit in "KMGTP":
        if abs(value) < 999.5 or unit == "P":
            break
        value /= 1024
    if not amount:
        return "0"
    short = abs(value) < 9.95 and not (unit == "K" and amount % 1024 == 0)
    return f"{value:.1f}{unit}" if short else f"{value:.0f}{unit}"


def grouped(number: str, style: Style) -> str:
    # In a pipe a blank would end a field.
    return number.replace(",", " " if style.grouped else "")


def shorten(text: str, room: int) -> str:
    """Return ``text`` cut to ``room`` characters in the middle: the ends say the most."""
    if len(text) <= room:
        return text
    tail = (room - 1) * 2 // 3
    return text[: room - 1 - tail] + "~" + text[len(text) - tail :]


def say_grid(
    rows: Sequence[Sequence[str]], left: Set[int], out: TextIO, room: int | None = None,
    colours: Sequence[str] | None = None,
) -> None:
    """Print ``rows`` as align() lays them out: a heading, then lines that are cut to ``room``.

    ``colours`` has one name of CODES for each line below the heading; by default all are plain.
    """
    head, *lines = align(list(zip(*rows, strict=True)), left)
    print(paint(out, "dim", head), file=out)
    for line, colour in zip(lines, colours or [""] * len(lines), strict=True):
        print(paint(out, colour, line if room is None else shorten(line, room)), file=out)


def align(columns: Sequence[Sequence[str]], left: Set[int]) -> list[str]:
    """Return the rows of ``columns`` as aligned lines; those in ``left`` are left-aligned."""
    padded = []
    for i, column in enumerate(columns):
        wide, pad = max(map(len, column)), str.ljust if i in left else str.rjust
        cells = {cell: pad(cell, wide) for cell in set(column)}
        padded.append([cells[cell] for cell in column])
    return ["  ".join(row).rstrip() for row in zip(*padded, strict=True)]


def say(text: str, out: TextIO, indent: str = "  ", colour: str = "") -> None:
    """Print ``text`` wrapped to the terminal, with later lines indented."""
    import textwrap

    whole = GROUPED.sub("\xa0", text)  # an amount is not broken between its digits
    lines = textwrap.fill(whole, width(out) or 100, subsequent_indent=indent,
                          break_long_words=False, break_on_hyphens=False)
    print(paint(out, colour, lines.replace("\xa0", " ")), file=out)


def kib_exact(amount: int | None) -> str:
    """Return bytes as KiB to four decimals, enough to show a single byte: 1536 is ``1.5``."""
    if amount is None:
        return "n/a"
    whole, rest = divmod(abs(amount), 1024)
    sign = "-" if amount < 0 else ""
    part = f"{rest / 1024:.4f}".rstrip("0").removeprefix("0") if rest else ""
    return grouped(f"{sign}{whole:,}{part}", STYLE.get())
