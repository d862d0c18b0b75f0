"""A screen that is drawn again and again, with what has changed in bold (--watch).

On a terminal it is drawn in place, on the terminal's other screen, so that what was on it before
comes back; whatever ends the program, the last screen stays below it.
"""

import io
import os
import re
import signal
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from pagewalk.render.terminal import COLOURS, LEGEND, PLAIN, InFront, coloured

if TYPE_CHECKING:
    from pagewalk.render.keys import Keyboard

HOME, REST, BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
# The other screen, no cursor, no wrapping: a line that is too long is cut by the terminal.
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"


class Redrawn(InFront):
    """A stream that keeps what is written until `redraw` puts it on ``out``, a screen at a time."""

    def __init__(self, out: TextIO, keyboard: "Keyboard | None" = None) -> None:
        super().__init__(out)
        self._keyboard = keyboard
        self._text = io.StringIO()
        self._before: list[str] | None = None
        self._in_place = out.isatty() and os.environ.get("TERM") != "dumb"
        self._entered = False

    def write(self, text: str) -> int:
        """Keep ``text`` for the next screen."""
        return self._text.write(text)

    def redraw(
        self, *, again: bool = False, foot: Sequence[str] = (), pointer: int | None = None
    ) -> None:
        """Write what was kept: over the last screen on a terminal, elsewhere below a blank line.

        ``again``: it is the same as before in another shape, so that nothing is marked. ``foot``
        are lines at the bottom of the window that do not stay when it is left; line ``pointer``,
        which begins with a blank, gets a ">" there.
        """
        lines = self._text.getvalue().removesuffix("\n").split("\n")
        # Before anything is written: a signal that calls leave() may come as soon as it is.
        before, self._before, self._text = self._before, lines, io.StringIO()
        if self._in_place:
            shown = marked(lines, before) if coloured(self._out) and not again else lines
            if pointer is not None and pointer < len(shown):
                shown = [*shown[:pointer], ">" + shown[pointer][1:], *shown[pointer + 1 :]]
            room = height(self._out)
            if foot:
                shown = shown[: max(room - len(foot), 0)]
                shown = [*shown, *[""] * (room - len(foot) - len(shown)), *foot]
            screen = "".join(f"{line}{REST}\n" for line in fitted(shown, room))
            start = "" if self._entered else ENTER
            self._entered = True
            self._out.write(start + HOME + screen + BELOW)
        else:
            blank = [] if before is None else [""]
            self._out.write("".join(f"{line}\n" for line in [*blank, *lines]))
        self._out.flush()

    def listen(self) -> None:
        """Take the keyboard, if there is one."""
        if self._keyboard is not None:
            self._keyboard.take()

    def enter(self) -> None:
        """Take the other screen and the keyboard, after `leave`."""
        self.listen()
        if self._in_place:
            put(self._out, ENTER)
            self._entered = True

    def leave(self) -> None:
        """Give the terminal back as it was, with the last screen below what was on it."""
        if self._keyboard is not None:
            self._keyboard.give_back()
        if self._entered:
            self._entered = False
            put(self._out, LEAVE + "".join(f"{line}\n" for line in self._before or ()))


class Drawing:
    """What writes a view on a Redrawn, and can do so again with the same results."""

    def __init__(self, write: Callable[..., None], out: TextIO) -> None:
        self._write, self.screen = write, Redrawn(out)
        self._last: tuple[tuple[Any, ...], dict[str, Any]] = (), {}

    def __call__(self, *results: Any, **options: Any) -> None:
        """Draw the screen of ``results``."""
        self._last = results, options
        self._write(*results, self.screen, **options)
        self.screen.redraw()

    def again(self) -> None:
        """Draw the last screen again, for a terminal that has another size or was cleared."""
        results, options = self._last
        self._write(*results, self.screen, **options)
        self.screen.redraw(again=True)

    def wait(self, seconds: float) -> bool:
        """Wait, following the size of the window; return whether the next round is to begin now."""
        if signal.sigtimedwait([signal.SIGWINCH], seconds) is not None:
            self.again()
        return False


def rounds(seconds: float, drawing: Drawing) -> Generator[None, None, None]:
    """Yield again and again, ``seconds`` apart, until a signal or an exception ends the program.

    In between the screen follows the size of its window. Ctrl-C is the usual end: exit code 0.
    """
    screen = drawing.screen
    # Blocked, not handled: it would interrupt a walk, and is only wanted in between.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])
    handled = {number: signal.signal(number, handler) for number, handler in (
        (signal.SIGINT, ender(screen)), (signal.SIGTERM, ender(screen)),
        (signal.SIGHUP, ender(screen)), (signal.SIGTSTP, pauser(screen)),
        (signal.SIGWINCH, lambda *_: None),
    ) if signal.getsignal(number) != signal.SIG_IGN}
    try:
        screen.listen()
        while True:
            end = time.monotonic() + seconds
            yield
            while (left := end - time.monotonic()) > 0 and not drawing.wait(left):
                pass
    finally:
        screen.leave()
        for number, handler in handled.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ender(screen: Redrawn) -> Callable[..., None]:
    # Nothing else has to be put back: no target is stopped, and no file is being written.
    def end(number: int, _: object) -> None:
        screen.leave()
        if number == signal.SIGINT:
            os._exit(0)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    return end


def pauser(screen: Redrawn) -> Callable[..., None]:
    # Ctrl-Z: the shell gets its terminal back, and `fg` the screen.
    def pause(number: int, _: object) -> None:
        screen.leave()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, pause)
        screen.enter()
        os.kill(os.getpid(), signal.SIGWINCH)

    return pause


def put(out: TextIO, text: str) -> None:
    # A signal may have come in the middle of a write, which must not be entered twice: so this does
    # without the buffers of `out`.
    with suppress(OSError):
        try:
            os.write(out.fileno(), text.encode(errors="replace"))
        except io.UnsupportedOperation:  # no file, as in tests
            out.write(text)


def height(out: TextIO) -> int:
    # One line stays free for the cursor.
    try:
        return max(os.get_terminal_size(out.fileno()).lines - 1, 2)
    except (OSError, ValueError):
        return 1 << 16


def fitted(lines: list[str], room: int) -> list[str]:
    """Return the first of ``lines`` that fit into ``room``, and how many there are besides."""
    if len(lines) <= room:
        return lines
    return [*lines[: room - 1], f"... {len(lines) - room + 1} more lines; --limit shows fewer rows"]


def marked(lines: list[str], before: list[str] | None) -> list[str]:
    """Return ``lines`` with the words in bold that differ from those ``before``.

    A row of a table that has moved is compared with itself.
    """
    if before is None:
        return lines
    new, old = ([COLOURS.sub("", line) for line in screen] for screen in (lines, before))
    rows = [only(old, edge) for edge in EDGES]
    shown = []
    for at, (line, plain) in enumerate(zip(lines, new, strict=True)):
        was = counterpart(plain, old[at] if at < len(old) else "", rows)
        shown.append(line if plain == was else mark(plain, was))
    return shown


# What tells rows apart: their first word, such as a pid, or their last, a name.
EDGES = (0, -1)


def only(lines: list[str], edge: int) -> dict[str, str]:
    # The lines by their first or last word, without those that have no word of their own.
    found: dict[str, list[str]] = {}
    for line in lines:
        for word in line.split()[edge:][:1]:
            found.setdefault(word, []).append(line)
    return {word: same[0] for word, same in found.items() if len(same) == 1}


def counterpart(line: str, was: str, rows: list[dict[str, str]]) -> str:
    # The line before that `line` is to be compared with: `was`, at its place, unless that is
    # another row and its own is elsewhere.
    words, others = line.split(), was.split()
    if not words or (others and any(words[edge] == others[edge] for edge in EDGES)):
        return was
    found = (known.get(words[edge]) for edge, known in zip(EDGES, rows, strict=True))
    return next((row for row in found if row is not None), was)


def mark(line: str, was: str) -> str:
    new, old = (re.split("( +)", text) for text in (line, was))
    if len(new) != len(old):  # words came or went: no word has a counterpart
        old = [""] * len(new)
    return "".join(word if word == other or not word.strip() else
                   f"{LEGEND['new'].code}{word}{PLAIN}"
                   for word, other in zip(new, old, strict=True))
