"""How far a long piece of work is: one line on a terminal, which goes when it is done."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from pagewalk.proc.stall import HEAR
from pagewalk.render.amounts import human
from pagewalk.render.terminal import shorten, width

AFTER_S, EVERY_S = 1.0, 0.2
# Shorter than any message, which then covers it: Ctrl-C ends the program at once, without erasing.
WIDEST = 40


class Progress:
    """A line on ``out``, a terminal, about work that begins now."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._began, self._drawn = out, time.monotonic(), False
        self._next = self._began + AFTER_S

    def __call__(self, what: str, done: int, whole: int | None) -> None:
        """Tell how far it has got: ``what`` was done to ``done`` bytes of ``whole``."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY_S
        of = f" of {human(whole)}" if whole and done <= whole else ""
        amount = f" {human(done)}{of}" if done else ""
        text = f"{what}{amount}, {now - self._began:.0f} s"
        # The cursor stays at the start: whatever is written next begins there.
        self._write(shorten(text, min(WIDEST, (width(self._out) or WIDEST) - 1)) + "\x1b[K\r")
        self._drawn = True

    def erase(self) -> None:
        """Leave no trace of it."""
        if self._drawn:
            self._write("\r\x1b[K")
            self._drawn = False
            self._next = time.monotonic() + EVERY_S

    def _write(self, text: str) -> None:
        try:
            os.write(self._out.fileno(), text.encode(errors="replace"))
        except (OSError, ValueError):
            self._next = float("inf")  # nobody reads it any more


@contextmanager
def shown(out: TextIO) -> Iterator[Callable[[], None]]:
    """Show on ``out`` how far the work inside the block is; yield what erases that."""
    line = Progress(out)
    token = HEAR.set(line)
    try:
        yield line.erase
    finally:
        HEAR.reset(token)
        line.erase()
