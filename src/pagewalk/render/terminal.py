"""Text for people: wrapped to the terminal, coloured only on one, and safe to print there.

Names are hostile: they may contain control, bidirectional and invisible characters, and bytes that
are not UTF-8. Each of these is printed as an escape.
"""

import codecs
import io
import os
import re
from collections.abc import Callable, Iterable, Sequence, Set
from typing import TYPE_CHECKING, NamedTuple, TextIO

from pagewalk.render.amounts import STYLE

if TYPE_CHECKING:
    from pagewalk.model.columns import Withheld


class Look(NamedTuple):
    """How something looks on a terminal, and what that says; never what no word says as well."""

    code: str
    looks: str
    means: str


# The one legend: docs/index.md and --help print it.
LEGEND = {
    "main": Look("\x1b[1m", "bold", "what the screen is about, or what matters in a line"),
    "new": Look("\x1b[1m", "bold", "changed since the last round (--watch)"),
    "aside": Look("\x1b[2m", "dim", "headings, causes and remarks"),
    "good": Look("\x1b[32m", "green", "works, or agrees"),
    "bad": Look("\x1b[31m", "red", "missing, partial or unexplained"),
}
PLAIN = "\x1b[0m"
CODES = {PLAIN, *(look.code for look in LEGEND.values())}
COLOURS = re.compile(f"({'|'.join(map(re.escape, sorted(CODES)))})")
# Invisible characters that Python considers printable (Unicode's Default_Ignorable_Code_Point), and
# the blank Braille pattern.
UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)


BLOCKS = "▏▎▍▌▋▊▉█"  # eighths
BAR, WIDE_ENOUGH = 10, 72  # columns of a bar; columns of a terminal from which on there are bars
NARROWEST = 8  # columns that a name keeps
FILLER = "\0"  # in no name
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


def coloured(out: TextIO) -> bool:
    """Return whether ``out`` is to have colours: --color, NO_COLOR, FORCE_COLOR, a terminal.

    See https://no-color.org and https://force-color.org.
    """
    asked = STYLE.get().color
    if asked != "auto":
        return asked == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return os.environ.get("TERM") != "dumb" and out.isatty()


def paint(out: TextIO, look: str, text: str) -> str:
    """Return ``text`` with a look of LEGEND ("" for none) where colours are wanted."""
    return f"{LEGEND[look].code}{text}{PLAIN}" if look and coloured(out) else text


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


class InFront(io.TextIOBase):
    """A stream to write to in front of ``out``, and a terminal if that is one."""

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out = out

    @property
    def encoding(self) -> str | None:  # type: ignore[override]
        """Return the encoding of the stream behind it."""
        return getattr(self._out, "encoding", None)

    def isatty(self) -> bool:
        """Return whether the stream behind it is a terminal."""
        return self._out.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the stream behind it."""
        return self._out.fileno()


class Screen(InFront):
    """A stream that lets no control sequence through to a terminal.

    With ``colours``, those of `paint` pass where they are wanted.
    """

    def __init__(self, out: TextIO, *, colours: bool) -> None:
        super().__init__(out)
        self._colours = colours and coloured(out)

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


def cells(text: str) -> int:
    """Return how many columns of a terminal ``text`` takes: a wide character (CJK) takes two."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def shorten(text: str, room: int) -> str:
    """Return ``text`` cut to ``room`` columns in the middle: the ends say the most."""
    if cells(text) <= room:
        return text
    tail = (room - 1) * 2 // 3
    return f"{cut(text, room - 1 - tail)}~{cut(text[::-1], tail)[::-1]}"


def beginning(text: str, room: int) -> str:
    """Return ``text`` cut to ``room`` columns at its end, as a command may be."""
    return text if cells(text) <= room else f"{cut(text, room - 1)}~"


def cut(text: str, room: int) -> str:
    # As much of the beginning as fits.
    if text.isascii():
        return text[: max(room, 0)]
    end = next((end for end in range(1, len(text) + 1) if cells(text[:end]) > room), len(text) + 1)
    return text[: end - 1]


def chart(out: TextIO) -> str:
    """Return what bars are drawn with; nothing off a terminal, or where one is too narrow."""
    wide = width(out) if out.isatty() else None
    if wide is None or wide < WIDE_ENOUGH:
        return ""
    return BLOCKS if (getattr(out, "encoding", None) or "").lower().startswith("utf") else "#"


def bars(parts: Sequence[int | None], whole: int | None, blocks: str) -> list[str]:
    """Return a bar for each of ``parts``, BAR columns long for ``whole``; of eighths of a block."""
    if not whole:
        return [""] * len(parts)
    steps = len(blocks)
    shares = [divmod(min(max(part or 0, 0), whole) * BAR * steps // whole, steps) for part in parts]
    return [blocks[-1] * full + (blocks[rest - 1] if rest else "") for full, rest in shares]


def say_grid(
    rows: Sequence[Sequence[str]], left: Set[int], out: TextIO, *,
    room: int | None = None, yields: int = 0, keeps: int = NARROWEST,
    least: Sequence[int] | None = None, looks: Sequence[str] | None = None,
    shorter: Callable[[str, int], str] = shorten,
) -> None:
    """Print ``rows`` as align() lays them out: a heading, then lines.

    To fit into ``room`` the cells of column ``yields`` are made ``shorter``, but before fewer than
    ``keeps`` columns of them are left others are hidden, ``least`` first (by default the last), and
    named below. ``looks`` has one of LEGEND for each line below the heading.
    """
    columns: list[Sequence[str]] = list(zip(*rows, strict=True))
    shown, hidden = list(range(len(columns))), []
    widths = [max(map(cells, column)) for column in columns]
    if room is not None:
        widths[yields] = min(widths[yields], keeps)
        for at in shown[::-1] if least is None else least:
            if sum(widths[one] + 2 for one in shown) - 2 <= room or len(shown) <= 2:
                break
            if at not in (0, yields):
                shown.remove(at)
                hidden.append(columns[at][0])
        rest = room - sum(widths[one] + 2 for one in shown if one != yields)
        columns[yields] = [shorter(cell, max(rest, NARROWEST)) for cell in columns[yields]]
    head, *lines = align([columns[at] for at in shown], {shown.index(at) for at in left & {*shown}})
    print(paint(out, "aside", head), file=out)
    for line, look in zip(lines, looks or [""] * len(lines), strict=True):
        print(paint(out, look, line), file=out)
    if any(hidden):
        say(f"hidden, terminal too narrow: {', '.join(filter(None, hidden[::-1]))}", out)


def align(columns: Sequence[Sequence[str]], left: Set[int]) -> list[str]:
    """Return the rows of ``columns`` as aligned lines; those in ``left`` are left-aligned."""
    padded = []
    for i, column in enumerate(columns):
        wide = {cell: cells(cell) for cell in set(column)}
        most = max(wide.values())
        shown = {cell: cell + " " * (most - taken) if i in left else " " * (most - taken) + cell
                 for cell, taken in wide.items()}
        padded.append([shown[cell] for cell in column])
    return ["  ".join(row).rstrip() for row in zip(*padded, strict=True)]


def say(text: str, out: TextIO, indent: str = "  ", look: str = "") -> None:
    """Print ``text`` wrapped to the terminal, with later lines indented."""
    import textwrap

    room = width(out) or 100
    whole = GROUPED.sub("\xa0", text)  # an amount is not broken between its digits
    if not text.isascii():  # each character is to be as long as it is wide
        whole = "".join(c + FILLER * (cells(c) - 1) for c in whole)
    lines = textwrap.fill(whole, room, subsequent_indent=indent[: room // 2],
                          break_long_words=False, break_on_hyphens=False)
    print(paint(out, look, lines.replace("\xa0", " ").replace(FILLER, "")), file=out)


def say_missing(withheld: "Iterable[Withheld]", out: TextIO) -> None:
    """Print what was withheld, and why: what rights or a race took away as "partial"."""
    for row in withheld:
        text = f"{'partial' if row.partial else 'n/a'}: {row.what}: {row.why}"
        say(text, out, look="bad" if row.partial else "aside")


def following(out: TextIO, *commands: str) -> None:
    """Write what to try next, on a terminal; a pipe gets results only.

    No command is broken between two lines, so that it can be copied.
    """
    if out.isatty():
        whole = (f"pagewalk {command}".strip().replace(" ", "\xa0") for command in commands)
        say(f"next: {'   '.join(whole)}", out, "      ", look="aside")
