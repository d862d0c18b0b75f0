"""A screen that is redrawn in place, with what has changed in bold (--watch)."""

from __future__ import annotations

import io
import os
from typing import TextIO

HOME, CLEAR, REST, BELOW = "\x1b[H", "\x1b[2J", "\x1b[K", "\x1b[J"
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"


class Redrawn(io.TextIOBase):
    """A stream that keeps what is written until `redraw` puts it on ``out``, a screen at a time."""

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out, self._text = out, io.StringIO()
        self._before: list[str] | None = None

    def write(self, text: str) -> int:
        """Keep ``text`` for the next screen."""
        return self._text.write(text)

    @property
    def encoding(self) -> str | None:  # type: ignore[override]
        """Return the encoding of the stream behind it."""
        return getattr(self._out, "encoding", None)

    def isatty(self) -> bool:
        """Return whether it ends up on a terminal."""
        return self._out.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the stream behind it."""
        return self._out.fileno()

    def redraw(self) -> None:
        """Write what was kept: over the last screen on a terminal, elsewhere below a blank line."""
        lines = self._text.getvalue().removesuffix("\n").split("\n")
        self._text = io.StringIO()
        if self.isatty():
            lines = lines[: height(self._out)]
            shown = marked(lines, self._before) if bold_wanted() else lines
            start = CLEAR + HOME if self._before is None else HOME
            self._out.write(start + "".join(f"{line}{REST}\n" for line in shown) + BELOW)
        else:
            blank = [] if self._before is None else [""]
            self._out.write("".join(f"{line}\n" for line in [*blank, *lines]))
        self._out.flush()
        self._before = lines


def height(out: TextIO) -> int:
    # One line stays free for the cursor.
    try:
        return max(os.get_terminal_size(out.fileno()).lines - 1, 1)
    except (OSError, ValueError):
        return 1 << 16


def bold_wanted() -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def marked(lines: list[str], before: list[str] | None) -> list[str]:
    """Return ``lines``, in bold where they differ from those ``before``."""
    if before is None:
        return lines
    old = before + [""] * len(lines)
    return [line if line == was or not line else f"{BOLD}{line}{PLAIN}"
            for line, was in zip(lines, old, strict=False)]
