"""The screen of `explain CGROUP`: sentences, what is charged line by line, and the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from pagewalk.render import group_words as words
from pagewalk.render.amounts import kib, many, size
from pagewalk.render.ledger_table import LEDGER_COLUMNS, print_lines
from pagewalk.render.ram_words import headroom_rows, verdict
from pagewalk.render.terminal import following, paint, printable, say, say_grid, say_missing, width
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
    rows = [("CHARGED", "MAPPED", "RECLAIM", "WHAT")]
    rows += [(kib(row.charged), told(row.mapped), told(row.reclaim), "  " * row.depth + row.what)
             for row in words.rows(found)]
    goes = None if found.headroom is None else found.headroom.at_once
    rows.append((kib(words.total(found)), "", told(goes), whole(found)))
    say_grid(rows, {3}, out, room=width(out), yields=3)
    besides(found, out)
    print(file=out)
    if found.charge is not None and found.headroom is not None:
        if any(found.headroom):
            room = headroom_rows(found.headroom, found.protected)
            say_grid(room, {1}, out, room=width(out), yields=1)
            print(file=out)
        say(verdict(found.lines, "the kernel's numbers"), out)
        print_lines(found.lines, LEDGER_COLUMNS if columns is None else columns, out)
    for cause in sorted({cause.cause for line in found.lines for cause in line.causes}):
        say(f"{cause}: {WHY[cause]}", out)
    if found.lines:
        for sentence in words.uncompared(found):
            say(sentence, out)
    say_missing(found.withheld, out)
    biggest = (str(found.processes[0].pid),) if found.processes else ()
    following(out, *biggest, "cgroups", "ram --files")


def told(amount: int | None) -> str:
    return "" if amount is None else kib(amount)


def heading(found: Group, name: Name) -> str:
    numbers = words.now(found)
    limit = numbers.limit
    of = "no limit" if limit is None else f"a limit of {size(limit)}"
    return f"{words.called(name)}: {size(words.total(found))} charged, {of}"


def largest(amounts: Mapping[str, int]) -> str:
    # The largest by name, and how many more there are.
    ordered = sorted(amounts.items(), key=lambda pair: -pair[1])
    named = [f"{printable(name) or 'anonymous'} {size(held)}" for name, held in ordered[:LISTED]]
    more = len(ordered) - LISTED
    return ", ".join([*named, many(more, "other")] if more > 0 else named)


def whole(found: Group) -> str:
    first = next(iter(found.lines), None)
    if words.now(found).current is None or first is None:
        return "total"
    return f"{first.against}: unexplained {kib(first.unexplained)}"


def besides(found: Group, out: TextIO) -> None:
    """Write what does not add up to the charge: pages of others, the working set, groups below."""
    for whom, amounts in (("others", found.elsewhere), ("nobody", found.uncharged)):
        if amounts:
            say(f"mapped by its processes and charged to {whom}: {size(sum(amounts.values()))}"
                f" ({largest(amounts)})", out)
    outside = sum((found.by_others or {}).values())
    if outside:
        say("charged to it and mapped, but not seen in a process of it: at most"
            f" {size(outside)}", out)
    for path, numbers in found.above:
        if numbers.limit is not None and numbers.current is not None:
            say(f"limited above it too: {printable(path)} is charged {size(numbers.current)} of"
                f" {size(numbers.limit)}", out)
    for sentence in words.so_far(found):
        say(sentence, out)
    swap, sockets = words.in_swap(found), words.sockets(found)
    if swap:
        say(f"in swap, beside what is charged: {size(swap)}", out)
    if sockets and found.version == 1:
        say(f"buffers of sockets, which version 1 counts apart: {size(sockets)}", out)
    told = words.working_set(found)
    if told is not None:
        say(f"working set, as Kubernetes counts it: {size(told[0])}; it leaves out"
            f" {size(told[1])} of inactive pages of files", out)
    if found.below:
        say(f"of it charged to groups below: {largest(dict(found.below))}", out)
    if found.dying and found.dying.groups:
        count, charged, left = found.dying
        say(f"removed groups below that live on: {count}, with {size(left)} found in RAM (their"
            f" counters, which may be out of date, say {size(charged)})", out)
