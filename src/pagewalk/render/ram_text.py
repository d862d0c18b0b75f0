"""The screen of `ram`: sentences, what RAM is used for, what could be reclaimed, the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from pagewalk.render import ram_words as words
from pagewalk.render.amounts import size
from pagewalk.render.ledger_table import LEDGER_COLUMNS, print_lines
from pagewalk.render.terminal import chart, following, paint, say, say_grid, say_missing, width
from pagewalk.system.ram_causes import WHY
from pagewalk.system.ram_ledger import not_compared

if TYPE_CHECKING:
    from pagewalk.account.ledger import Line
    from pagewalk.system.look import Ram


def ram(
    found: Ram, out: TextIO, *, ledger: bool = False
) -> None:
    """Write what all of RAM is used for, on one screen; with ``ledger`` every line of it."""
    print(paint(out, "main", heading(found)), file=out)
    print(file=out)
    for sentence in words.answers(found):
        say(sentence, out)
    print(file=out)
    blocks = chart(out)
    if found.parts is not None:
        say_grid(words.rows(found, blocks), {1, 2} if blocks else {1}, out, room=width(out),
                 yields=2 if blocks else 1)
    if found.headroom is not None:
        print(file=out)
        say_grid(words.room_rows(found), {1}, out, room=width(out), yields=1)
    if found.lines:
        print(file=out)
        say(words.verdict(found.lines), out)
    lines = [line for line in found.lines if ledger or line.unexplained]
    if lines:
        print_lines([line for line in lines if line.ours is not None],
                    LEDGER_COLUMNS, out)
    if ledger:
        why(found, out)
    say_missing(found.withheld, out)
    frames = ("ram --files", "ram --slab") if found.file_systems else ()
    more = ("ram --ledger",) if found.lines and not ledger else ()
    following(out, *frames, *more, "cgroups")


def heading(found: Ram) -> str:
    total = (found.totals.meminfo or {}).get("MemTotal")
    whole = "n/a" if found.total is None else size(found.total)
    rest = ("" if found.total is None or total is None
            else f" + {size(found.total - total)} kept at boot")
    return f"{whole} of RAM: MemTotal {size(total)}{rest}"


def why(found: Ram, out: TextIO) -> None:
    """Write what each cause means, and which lines of meminfo were not compared."""
    used = {cause.cause for line in found.lines for cause in line.causes}
    for cause in sorted(used):
        say(f"{cause}: {WHY[cause]}", out)
    reasons: dict[str, list[str]] = {}
    for name, reason in not_compared(found.totals).items():
        reasons.setdefault(reason, []).append(name)
    for line in found.lines:
        if line.ours is None:
            reasons.setdefault(why_withheld(line), []).append(
                line.against.removeprefix("meminfo "))
    for reason, names in reasons.items():
        say(f"not compared: {', '.join(names)}: {reason}", out)


def why_withheld(line: Line) -> str:
    """Return why our number of ``line`` is withheld."""
    if line.ours_is.startswith("not told"):
        return line.ours_is
    if line.against == "meminfo MemAvailable":
        return "/proc/zoneinfo was not read"
    return "what kernel memory is mapped for was not read"
