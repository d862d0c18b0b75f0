"""The first screen: RAM in a line, the largest processes, and what they hold together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TextIO

from pagewalk.render.amounts import kib, many, size
from pagewalk.render.columns import fields, titles
from pagewalk.render.document import missing, write
from pagewalk.render.ram_words import by_group, could_be_reclaimed, odd
from pagewalk.render.share_table import left_out
from pagewalk.render.terminal import (
    bars,
    beginning,
    chart,
    following,
    paint,
    printable,
    say,
    say_grid,
    say_missing,
    width,
)
from pagewalk.system.look import Ram
from pagewalk.system.overview import FRAMES, Overview, Row
from pagewalk.system.ram import GROUPS

COLUMNS = ("uss", "pss", "rss", "swap", "command")
LISTED = ("rss", "command")  # where no process was walked
AMOUNTS = ("uss", "pss", "rss", "swap")
WORDS = ("name", "argv0", "script", "command")


def text(
    found: Overview, rows: Sequence[Row], out: TextIO, *, columns: Sequence[str] | None = None,
    **_: object,
) -> None:
    """Write RAM in a line, what stands out, the processes ``rows``, and what all hold together."""
    say(in_a_line(found.ram), out, look="main")
    for sentence in outstanding(found.ram):
        say(sentence, out)
    print(file=out)
    if found.rows:
        say_rows(found, rows, out, columns)
        print(file=out)
    for sentence in together(found):
        say(sentence, out)
    say_missing((row for row in found.withheld if row.partial or row.what == FRAMES), out)
    suggest(found, rows, out)


def in_a_line(ram: Ram) -> str:
    """Return what all of RAM is used for, in the six rows of `ram`."""
    if ram.parts is None:
        return "RAM: n/a" if ram.total is None else f"{size(ram.total)} of RAM"
    groups = by_group(ram.parts)
    return f"{size(ram.total)} of RAM: " + ", ".join(
        f"{title} {size(groups[name])}" for name, title in GROUPS.items())


def outstanding(ram: Ram) -> Iterator[str]:
    """Yield a sentence: what is odd; if nothing is, what could be reclaimed."""
    if ram.parts is not None:
        yield from (*odd(ram), *could_be_reclaimed(ram))[:1]


def say_rows(
    found: Overview, rows: Sequence[Row], out: TextIO, columns: Sequence[str] | None
) -> None:
    usual = LISTED if found.looked is None else COLUMNS
    shown, above = list(usual if columns is None else columns), titles("overview")
    heads = [above[name] for name in shown]
    cells = [[cell(row, name) for name in shown] for row in rows]
    by = "rss" if found.looked is None else "pss"
    if (blocks := chart(out)) and by in shown:
        at = shown.index(by) + 1
        whole = sum(getattr(row, by) or 0 for row in found.rows)
        for row, bar in zip(cells, bars([getattr(row, by) for row in rows], whole, blocks),
                            strict=True):
            row.insert(at, bar)
        heads.insert(at, "SHARE")
        shown.insert(at, "share")
    grid = [("PID", *heads)]
    grid += [(str(row.pid), *line) for row, line in zip(rows, cells, strict=True)]
    words = {at for at, name in enumerate(shown, 1) if name in (*WORDS, "share")}
    say_grid(grid, words, out, room=width(out) or 100, yields=max(words, default=len(shown)),
             shorter=beginning)


def cell(row: Row, name: str) -> str:
    value = getattr(row, name)
    if name in AMOUNTS:
        return kib(value)
    if name == "command":  # without the folder of the program; empty if the process cleared it
        value = re.sub(r"^\S*/", "", row.command) or row.name
    return printable(str(value))


def together(found: Overview) -> Iterator[str]:
    """Yield what all processes hold, each page counted once, and how many were not walked."""
    count, rss = len(found.rows), size(sum(row.rss or 0 for row in found.rows))
    held = found.ram.mapped
    if held is None:
        yield (f"{many(count, 'process', 'es')}; RSS counts a shared page in each of them, and adds"
               f" up to {rss}.")
    else:
        # What pagewalk holds itself is in RAM, but no row.
        this = "the one that recorded them too" if found.recorded else "this one too"
        yield (f"All processes together, {this}, hold {size(held)}, each page counted once;"
               f" the RSS of {count} of them adds up to {rss}.")
    if found.left:
        yield (f"{many(len(found.left), 'process', 'es')} with an RSS of"
               f" {size(sum(one.rss for one in found.left))} {are(len(found.left))} not walked, to"
               " be quick: pagewalk top --once walks all.")


def are(count: int) -> str:
    return "was" if count == 1 else "were"


def suggest(found: Overview, rows: Sequence[Row], out: TextIO) -> None:
    # On a terminal: each command with what it shows, where there is room for that.
    if not out.isatty():
        return
    # If a security module protects any process, it is PID 1.
    pid = next((row.pid for row in rows if row.pid != 1), 1)
    nexts = {str(pid): "what this process is made of", "ram": "all of RAM, to the last page",
             "top": "live"}
    if found.looked is None:
        nexts["doctor"] = "what is missing, and how to get it"
    if (width(out) or 80) < 72:
        following(out, *nexts)
        return
    print(file=out)
    for at, (command, what) in enumerate(nexts.items()):
        print(paint(out, "aside", f"{'' if at else 'next:':<6}{f'pagewalk {command}':<19} {what}"),
              file=out)


def json(
    found: Overview, rows: Sequence[Row], out: TextIO, *, columns: Sequence[str] | None = None,
    machine: str = "",
) -> None:
    """Write all of it, the processes ``rows`` in their order."""
    looked, ram = found.looked, found.ram
    parts = ram.parts
    write({
        "machine": machine,
        "source": {"name": ram.source},
        "total": ram.total,
        "rows": None if parts is None else by_group(parts),
        "held": ram.mapped,
        "rss_sum": sum(row.rss or 0 for row in found.rows),
        **{f"{name}_sum": None if looked is None else looked.sum_of(name)
           for name in ("pss", "uss")},
        "processes": [fields("overview", row._asdict(), columns) for row in rows],
        "not_walked": {"processes": len(found.left), "rss": sum(one.rss for one in found.left)},
        **({"not_looked": [], "gone": []} if looked is None else left_out(looked.tried)),
        **missing(found.withheld),
        "stall_ns": 0 if looked is None else looked.tried.stall_ns,
    }, out)
