"""The screen of `explain CGROUP`: sentences, what is charged line by line, and the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from pagewalk.render import group_words as words
from pagewalk.render.amounts import kib, size
from pagewalk.render.ledger_table import LEDGER_COLUMNS, print_lines
from pagewalk.render.ram_words import verdict
from pagewalk.render.terminal import following, paint, printable, say, say_grid, width
from pagewalk.system.group_ledger import WHY

if TYPE_CHECKING:
    from pagewalk.system.containers import Name
    from pagewalk.system.group import Group

LISTED = 5  # mappings, or groups below


def group(
    found: Group, name: Name, out: TextIO, *, columns: Sequence[str] | None = None
) -> None:
    """Write what a cgroup is charged for, on one screen."""
    print(paint(out, "main", heading(found, name)), file=out)
    say(f"cgroup v{found.version}, {printable(found.path)}", out)
    print(file=out)
    for sentence in words.answers(found):
        say(sentence, out)
    print(file=out)
    rows = [("CHARGED", "MAPPED", "WHAT")]
    rows += [(kib(row.charged), "" if row.mapped is None else kib(row.mapped),
              "  " * row.depth + row.what) for row in words.rows(found)]
    rows.append((kib(words.total(found)), "", whole(found)))
    say_grid(rows, {2}, out, room=width(out), yields=2)
    besides(found, out)
    print(file=out)
    say(verdict(found.lines, "the kernel's numbers"), out)
    print_lines(found.lines, LEDGER_COLUMNS if columns is None else columns, out)
    for cause in sorted({cause.cause for line in found.lines for cause in line.causes}):
        say(f"{cause}: {WHY[cause]}", out)
    for row in found.withheld:
        text = f"{'partial' if row.partial else 'n/a'}: {row.what}: {row.why}"
        say(text, out, look="bad" if row.partial else "aside")
    biggest = (str(found.processes[0].pid),) if found.processes else ()
    following(out, *biggest, "cgroups", "ram --files")


def heading(found: Group, name: Name) -> str:
    numbers = words.now(found)
    limit = numbers.limit
    of = "no limit" if limit is None else f"a limit of {size(limit)}"
    title = printable(name.name or found.path)
    kind = f"{name.kind} " if name.kind else "cgroup "
    return f"{kind}{title}: {size(words.total(found))} charged, {of}"


def whole(found: Group) -> str:
    first = next(iter(found.lines), None)
    if words.now(found).current is None or first is None:
        return "total"
    return f"{first.against}: unexplained {kib(first.unexplained)}"


def besides(found: Group, out: TextIO) -> None:
    """Write what does not add up to the charge: pages of others, the working set, groups below."""
    away = sorted(found.elsewhere.items(), key=lambda pair: -pair[1])
    if away:
        named = ", ".join(f"{printable(name) or 'anonymous'} {size(held)}"
                          for name, held in away[:LISTED])
        more = f", {len(away) - LISTED} others" if len(away) > LISTED else ""
        say(f"mapped by its processes and charged to others: {size(sum(found.elsewhere.values()))}"
            f" ({named}{more})", out)
    told = words.working_set(found)
    if told is not None:
        say(f"working set, as Kubernetes counts it: {size(told[0])}; it leaves out"
            f" {size(told[1])} of inactive pages of files", out)
    if found.below:
        ordered = sorted(found.below, key=lambda pair: -pair[1])
        named = ", ".join(f"{printable(path)} {size(held)}" for path, held in ordered[:LISTED])
        more = f", {len(ordered) - LISTED} others" if len(ordered) > LISTED else ""
        say(f"of it charged to groups below: {named}{more}", out)
    count, left = found.dying
    if count:
        say(f"removed groups below that live on: {count}, charged {size(left)}", out)
