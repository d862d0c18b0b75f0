"""Who has the memory: the screen, the document and the rows of `top`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from pagewalk.render.amounts import kib, size
from pagewalk.render.columns import fields, titles
from pagewalk.render.document import missing, write
from pagewalk.render.share_table import left_out
from pagewalk.render.terminal import (
    bars,
    chart,
    following,
    printable,
    say,
    say_grid,
    say_missing,
    width,
)
from pagewalk.system.members import Looked
from pagewalk.system.top import Line, Top

COLUMNS = ("uss", "pss", "rss", "swap", "grown")
EVERY = ("uss", "pss", "rss", "swap", "grown", "processes", "name")
# What the first column is called, by what the lines are of.
HEADS = {"process": "PID", "program": "PROGRAM", "user": "USER", "cgroup": "CGROUP",
         "mapping": "MAPPING"}


def text(
    found: Top, lines: Sequence[Line], out: TextIO, *, columns: Sequence[str] | None = None
) -> None:
    """Write what they hold together, and ``lines``."""
    for sentence in answers(found.looked):
        say(sentence, out)
    print(file=out)
    grid, words = table(found, lines, columns)
    blocks = chart(out)
    shown = grid[0]
    if blocks and "PSS" in shown:
        at = shown.index("PSS") + 1
        share = ["SHARE", *bars([line.pss for line in lines], found.looked.sum_of("pss"), blocks)]
        grid = [(*row[:at], bar, *row[at:]) for row, bar in zip(grid, share, strict=True)]
        words = {at, *(word + (word >= at) for word in words)}
    say_grid(grid, words, out, room=width(out), yields=len(grid[0]) - 1)
    if len(lines) < len(found.lines):
        rest = len(found.lines) - len(lines)
        say(f"{rest} more: --limit {len(found.lines)} shows all", out)
    say_missing((row for row in found.looked.tried.withheld if row.partial), out)
    largest = next((str(line.key) for line in lines if found.by == "process"), "")
    following(out, *((largest,) if largest else ()), "share --all", "ram")


def table(
    found: Top, lines: Sequence[Line], columns: Sequence[str] | None
) -> tuple[list[tuple[str, ...]], set[int]]:
    """Return the heading and a row for each line, and which columns are words."""
    above, own = titles("top"), found.by == "process"
    shown = [*(COLUMNS if columns is None else columns)]
    if columns is None:
        shown = [name for name in shown if name != "grown" or any(
            line.grown is not None for line in found.lines)]
        shown += ["name"] if own else ["processes"]
    # What names a line is a number and first, or words and last.
    head = [HEADS[found.by]]
    titled = [above[name] for name in shown]
    grid = [(*head, *titled) if own else (*titled, *head)]
    for line in lines:
        cells = [cell(line, name) for name in shown]
        key = printable(str(line.key)) or "anonymous"
        grid.append((key, *cells) if own else (*cells, key))
    words = {at for at, title in enumerate(grid[0]) if title in (above["name"], *head)}
    return grid, words - ({0} if own else set())


def cell(line: Line, name: str) -> str:
    value = getattr(line, name)
    if name == "processes":
        return str(value)
    if name == "name":
        return printable(value)
    if name == "grown" and value is None:
        return "-"
    sign = "+" if name == "grown" and value > 0 else ""
    return sign + kib(value)


def answers(looked: Looked) -> Iterator[str]:
    """Yield a sentence: what they hold, each page counted once, and what RSS makes of it."""
    many = len(looked.members)
    who = "1 process" if many == 1 else f"{many} processes"
    rss, pss, uss = (size(looked.sum_of(name)) for name in ("rss", "pss", "uss"))
    yield (f"{who}: USS adds up to {uss}, PSS (each page divided by its mappers) to {pss}, "
           f"RSS to {rss}.")


def json(
    found: Top, lines: Sequence[Line], out: TextIO, *, columns: Sequence[str] | None = None
) -> None:
    """Write all of it, and ``lines`` in their order."""
    looked = found.looked
    write({
        "source": {"name": looked.tried.source},
        "by": found.by,
        **{f"{name}_sum": looked.sum_of(name) for name in ("rss", "pss", "uss")},
        "lines": [fields("top", line._asdict(), columns) for line in lines],
        **left_out(looked.tried), **missing(looked.tried.withheld),
        "stall_ns": looked.tried.stall_ns,
    }, out)


def records(
    found: Top, lines: Sequence[Line], columns: Sequence[str] | None = None
) -> Iterator[list[Any]]:
    """Yield the heading and a record for each of ``lines``."""
    del found
    names = ["key", *(EVERY if columns is None else columns)]
    yield names
    yield from ([getattr(line, name) for name in names] for line in lines)
