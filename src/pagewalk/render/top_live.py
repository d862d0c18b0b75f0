"""`top` on a terminal: one screen that keys scroll, sort, group and look into."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from shlex import quote
from typing import Any, TextIO

from pagewalk.model.errors import SourceUnavailable
from pagewalk.proc.processes import command_of
from pagewalk.render import shown, top_table
from pagewalk.render.columns import Choice, choose
from pagewalk.render.keys import GONE, Keyboard
from pagewalk.render.redrawn import Drawing, Redrawn, height
from pagewalk.render.terminal import (
    InFront,
    Screen,
    bars,
    beginning,
    chart,
    paint,
    printable,
    say,
    say_grid,
    width,
)
from pagewalk.system.processes import LiveProcesses
from pagewalk.system.top import BY, MAPPING, UNTOLD, Line, Top, grouped

EVERY_BY = (*BY, MAPPING)
SORTS = ("uss", "pss", "rss", "swap", "grown")
# What shows more of a line, by what lines are of; {} is its key.
MORE = {
    "process": "pagewalk {}", "program": "pagewalk share {}",
    "user": "pagewalk top --user {}", "cgroup": "pagewalk explain {}",
    "mapping": "pagewalk who --file {}",
}
LONGEST = 3  # lines of a command
FAR = 10**9  # more lines than there can be


class Quit(Exception):
    """The user wants no more."""


class Again(Exception):
    """What is being walked is no longer wanted: the next round is to begin."""


@dataclass
class State:
    """What keys have chosen. ``at`` is the line that is pointed at, ``first`` the top one shown."""

    by: str
    choice: Choice
    human: bool | None
    at: int = 0
    first: int = 0
    more: bool = False
    row: int = 0  # where on the screen the line is that is pointed at

    def fit(self, count: int, room: int) -> None:
        """Point at one of ``count`` lines, and show it among ``room`` of them."""
        self.at = min(max(self.at, 0), max(count - 1, 0))
        self.first = min(max(self.first, self.at - room + 1, 0), self.at, max(count - room, 0))


class Live(Drawing):
    """Draws `top` and obeys keys, between rounds by `wait` and during one by `attend`."""

    def __init__(self, keyboard: Keyboard, out: TextIO, state: State, color: str) -> None:
        self.screen, self.state = Redrawn(out, keyboard), state
        self._keyboard, self._out, self._color = keyboard, out, color
        self._found: Top | None = None
        self._hurry = False

    def __call__(self, found: Top, *_: object, **__: object) -> None:
        """Draw ``found``."""
        self._found = found
        self._draw()

    def again(self) -> None:
        """Draw the last screen again."""
        self._draw(again=True)

    def wait(self, seconds: float) -> bool:
        """Wait for keys; return whether the next round is to begin now. Raises Quit."""
        if not self._hurry:
            resized = self._keyboard.wait(seconds)
            changed = self._obey(self._keyboard.pressed())
            if resized or changed:
                self.again()
        hurry, self._hurry = self._hurry, False
        return hurry

    def attend(self) -> bool:
        """Obey keys that were pressed during a round; raises Quit, and Again to begin anew.

        Returns False: see members.try_each.
        """
        if self._obey(self._keyboard.pressed()):
            self.again()
        if self._hurry:
            raise Again
        return False

    def _obey(self, keys: Sequence[str]) -> bool:
        # Whether anything is to be drawn again.
        for key in keys:
            if key in ("q", GONE):
                raise Quit
            if key in KEYS:
                KEYS[key](self)
        return any(key in KEYS for key in keys)

    def move(self, lines: int) -> None:
        """Point at another line."""
        self.state.at += lines

    def page(self, pages: int) -> None:
        """Point at a line a window further."""
        self.state.at += pages * max(height(self._out) // 2, 1)

    def sort(self) -> None:
        """Sort by the next column."""
        state, now = self.state, self.state.choice.sort
        known = [name for name in SORTS if name != "grown" or self._grown()]
        place = known.index(now.name) if now and now.name in known else -1
        chosen = choose("top", None, known[(place + 1) % len(known)])
        state.choice = state.choice._replace(sort=chosen.sort, reversed=False)
        state.at = 0

    def group(self) -> None:
        """Make lines of what is next in EVERY_BY; mappings are only known after another walk."""
        state = self.state
        state.by = EVERY_BY[(EVERY_BY.index(state.by) + 1) % len(EVERY_BY)]
        state.at, self._hurry = 0, state.by == MAPPING
        if self._found is not None and not self._hurry:
            try:
                self._found = grouped(self._found.looked, state.by, LiveProcesses())
            except SourceUnavailable:  # there are no memory cgroups
                self.group()

    def units(self, *, human: bool | None = None) -> None:
        """Show amounts in K, M and G, or in KiB; None: the other of both."""
        self.state.human = not self._human() if human is None else human

    def more(self) -> None:
        """Show more of the line that is pointed at, or no longer."""
        self.state.more = not self.state.more

    def _human(self) -> bool:
        if self.state.human is not None or self._found is None:
            return bool(self.state.human)
        from pagewalk.render import LONG
        from pagewalk.render.text import LARGEST

        return LARGEST["top"](self._found, ()) >= LONG

    def _grown(self) -> bool:
        return self._found is not None and any(
            line.grown is not None for line in self._found.lines)

    def _draw(self, *, again: bool = False) -> None:
        if self._found is None:
            return
        foot: list[str] = []
        write = shown(partial(draw, state=self.state, foot=foot), "text", self._human(), None,
                      self._color)
        write(self._found, self.screen)
        self.screen.redraw(again=again, foot=foot, pointer=self.state.row)


class Kept(InFront):
    """Lines for the terminal behind ``out`` that are not on it yet."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._text = io.StringIO()

    def write(self, text: str) -> int:
        """Keep ``text``."""
        return self._text.write(text)

    @property
    def lines(self) -> list[str]:
        """Return what was written."""
        return self._text.getvalue().split("\n")[:-1]


def kept(out: TextIO, write: Callable[[TextIO], None]) -> list[str]:
    """Return the lines that ``write`` puts on a stream like ``out``, harmless ones."""
    lines: Any = Kept(out)
    screen: Any = Screen(lines, colours=True)
    write(screen)
    found: list[str] = lines.lines
    return found


def draw(found: Top, out: TextIO, *, state: State, foot: list[str]) -> None:
    """Write the sums, and as many lines as fit; ``foot`` becomes what is below them."""
    lines = state.choice.rows(found.lines)
    head = kept(out, partial(say_head, found))
    state.at = min(max(state.at, 0), max(len(lines) - 1, 0))
    foot[:] = kept(out, partial(say_foot, found, lines, state))
    room = max(height(out) - len(head) - len(foot) - 3, 1)
    state.fit(len(lines), room)
    foot[:] = kept(out, partial(say_foot, found, lines, state, room=room))
    say_lines = partial(say_table, found, lines[state.first : state.first + room], state)
    grid = kept(out, say_lines)
    for line in (*head, "", *(f"  {line}" for line in grid)):
        print(line, file=out)
    state.row = len(head) + 2 + state.at - state.first


def say_head(found: Top, out: TextIO) -> None:
    for sentence in top_table.answers(found.looked):
        say(sentence, out)
    for row in found.looked.tried.withheld:
        if row.partial:
            told = printable(f"partial: {row.what}: {row.why}")
            print(paint(out, "bad", beginning(told, width(out) or 80)), file=out)


def say_table(found: Top, lines: Sequence[Line], state: State, out: TextIO) -> None:
    grid, words = top_table.table(found, lines, state.choice.columns)
    name = state.choice.sort.name if state.choice.sort else ""
    by = name if name in ("uss", "pss", "rss", "swap") else "uss"
    blocks, title = chart(out), by.upper()
    if blocks and title in grid[0]:
        at, whole = grid[0].index(title) + 1, sum(getattr(line, by) or 0 for line in found.lines)
        share = ["SHARE", *bars([getattr(line, by) for line in lines], whole, blocks)]
        grid = [(*row[:at], bar, *row[at:]) for row, bar in zip(grid, share, strict=True)]
        words = {at, *(word + (word >= at) for word in words)}
    say_grid(grid, words, out, room=(width(out) or 80) - 2, yields=len(grid[0]) - 1)


def say_foot(
    found: Top, lines: Sequence[Line], state: State, out: TextIO, *, room: int = 1
) -> None:
    wide = width(out) or 80
    if state.more and lines:
        for text in more_of(lines[state.at], found.by):
            for line in kept(out, partial(say, printable(text)))[:LONGEST]:
                print(line, file=out)
    order = state.choice.sort.name if state.choice.sort else "none"
    where = (f"arrows: {state.first + 1}-{min(state.first + room, len(lines))} of {len(lines)}"
             if found.by == state.by else "walking ...")
    keys = f"q quit  s sort: {order}  b by: {state.by}  h units  Enter more  {where}"
    print(paint(out, "aside", beginning(keys, wide)), file=out)


def more_of(line: Line, by: str) -> Iterator[str]:
    """Yield how a process was started, and the command that shows more of it, or of a group."""
    if by == "process":
        yield f"{line.key}: {command_of(int(line.key)) or 'its command line is empty'}"
    if says_more(by, str(line.key)):
        yield f"next: {MORE[by].format(quote(str(line.key)))}"


def says_more(by: str, key: str) -> bool:
    """Return whether a command can be given for a line: not every mapping is of a file."""
    if by == MAPPING:
        return key.startswith("/") and not key.endswith(" (deleted)")
    if by == "program":  # a number would be taken for a pid
        return key != "" and not key.isdigit()
    return key not in ("", UNTOLD)


KEYS: dict[str, Callable[[Live], None]] = {
    "s": Live.sort, "b": Live.group, "h": Live.units, "K": partial(Live.units, human=False),
    "enter": Live.more, "up": partial(Live.move, lines=-1), "down": partial(Live.move, lines=1),
    "k": partial(Live.move, lines=-1), "j": partial(Live.move, lines=1),
    "page up": partial(Live.page, pages=-1), "page down": partial(Live.page, pages=1),
    " ": partial(Live.page, pages=1),
    "home": partial(Live.move, lines=-FAR), "end": partial(Live.move, lines=FAR),
}
