"""The screens about this machine as text: what it allows, and its processes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TextIO

from pagewalk.proc.processes import Process
from pagewalk.render.amounts import STYLE, kib
from pagewalk.render.columns import titles
from pagewalk.render.terminal import bars, chart, following, paint, printable, say, say_grid, width
from pagewalk.sources.doctor import Check


def doctor(
    checks: Sequence[Check], machine: str, out: TextIO, columns: Sequence[str] | None = None
) -> None:
    """Write one line per facility; for a missing one also how to get it."""
    shown = ("ok", "finding", "remedy") if columns is None else columns
    say(machine, out, look="main")
    wide = max(map(len, (check.name for check in checks)), default=0)
    short = " " * 5 * ("ok" in shown)
    edge = short + " " * (wide + 2)
    beside = (width(out) or 80) >= 2 * len(edge + "-> ")  # else below the name
    edge = edge if beside else short + "  "
    for check in checks:
        mark = paint(out, "good", "yes  ") if check.ok else paint(out, "bad", "no   ")
        told = [check.finding] if "finding" in shown else []
        first = check.name.ljust(wide + 2) + told.pop() if beside and told else check.name
        say((mark if "ok" in shown else "") + first, out, edge)
        for finding in told:
            say(edge + finding, out, edge)
        if check.remedy and "remedy" in shown:
            say(f"{edge}-> {check.remedy}", out, edge + "   ")
    following(out, "")


def processes(
    rows: Sequence[Process], summary: str, out: TextIO, columns: Sequence[str] | None = None, *,
    count: int | None = None, whole: int | None = None,
) -> None:
    """Write the first screen: this machine, ``rows`` of its ``count`` processes, what to try.

    ``whole`` is the RSS of all of them, for bars.
    """
    room = width(out) or 80
    say("pagewalk: where a process's memory lives, page by page", out, look="main")
    say(summary, out)
    print(file=out)
    shown, told = ("rss", "name") if columns is None else columns, titles("processes")
    unit = "" if STYLE.get().human else " KiB"
    table = [("PID", *(told[name] + (unit if name == "rss" else "") for name in shown))]
    table += [(str(p.pid), *(process_cell(p, name) for name in shown)) for p in rows]
    words = {at for at, name in enumerate(shown, 1) if name in ("name", "argv0", "script")}
    if (blocks := chart(out)) and "rss" in shown:
        at = shown.index("rss") + 2
        share = ["SHARE", *bars([p.rss for p in rows], whole, blocks)]
        table = [(*row[:at], bar, *row[at:]) for row, bar in zip(table, share, strict=True)]
        words = {at, *(word + (word >= at) for word in words)}
    say_grid(table, words, out, room=room, yields=len(table[0]) - 1)
    if count is not None and len(rows) < count:
        say(f"{count - len(rows)} more: --limit {count} shows all", out)
    print(file=out)
    try_it = " Try:" if out.isatty() else ""
    say(f"{len(rows) if count is None else count} processes; RSS counts a shared page in each of"
        f" them.{try_it}", out)
    if try_it:
        suggest(rows, room, out)


def suggest(rows: Sequence[Process], room: int, out: TextIO) -> None:
    """Write what to try next, on the largest process that the user may read."""
    # If a security module protects any process, it is PID 1; a user may read only their own.
    us = os.geteuid()
    pid = next((p.pid for p in rows if p.pid != 1 and us in (0, p.uid)), os.getppid())
    for command, what in (
        (f"pagewalk {pid}", "one screen: RSS, PSS, USS, freed, swap, what it is"),
        (f"pagewalk heap {pid}", "how much of it malloc holds unused"),
        (f"pagewalk explain {pid}", "why top, status and smaps disagree"),
    ):
        print(f"  {command.ljust(24)}  {what}" if room >= 80 else f"  {command}", file=out)


def process_cell(process: Process, name: str) -> str:
    if name == "rss":
        return kib(process.rss)
    return program_of(process) if name == "name" else printable(str(getattr(process, name)))


def program_of(process: Process) -> str:
    program, script = os.path.basename(process.argv0), os.path.basename(process.script)
    beside = program if not program.startswith(process.name) else script
    return printable(f"{process.name} ({beside})" if beside else process.name)
