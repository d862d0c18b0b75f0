"""pagewalk ram: what all of RAM is used for, each frame once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pagewalk import commands
from pagewalk.commands.options import (
    Request,
    check_watch,
    complete_source,
    format_option,
    output_options,
    units_option,
    watch_option,
)

if TYPE_CHECKING:
    from pagewalk.sources.ram import RamSource
    from pagewalk.system.look import Ram

LOOKS = 4  # at most, as long as anything is unexplained


@click.command("ram", short_help="All of RAM: what it is used for, each frame once.")
@click.option("--source", default="auto", metavar="SOURCE", show_default=True,
              shell_complete=complete_source,
              help="What to read from: auto (the best that works here), ebpf, kcore or drgn.")
@format_option("text", "json", "csv")
@click.option("--ledger", is_flag=True,
              help="Every line of /proc/meminfo beside ours, with causes.")
@units_option
@watch_option
@output_options
def command(ledger: bool, **options: Any) -> int:
    """Show what all of RAM is used for: each frame once, up to MemTotal and to the firmware's RAM.

    Compared with /proc/meminfo line by line: each difference is a list of named causes, exact or
    bounded; if any of it is unexplained, the exit code is 4.

    \b
    pagewalk ram
    pagewalk ram --ledger
    pagewalk ram --format json
    """
    from pagewalk.render import view
    from pagewalk.sources.ram import open_ram

    request = Request(target="", freeze=False, budget=0, **options)
    check_watch(request)
    source = open_ram(request.source)
    with commands.output(request.output) as out:
        shown = view(request.format, "ram", request.human, request.color)
        write = commands.writer(request, shown, out)
        for _ in commands.rounds(request, write):
            found = closest(source)
            write(found, ledger=ledger)
    return code(request, found)


def closest(source: RamSource) -> Ram:
    # A machine that is busy moves while it is read: the look with the least doubt counts.
    from pagewalk.system.look import look_at_ram

    best = look_at_ram(source)
    for _ in range(LOOKS - 1):
        if not doubt(best):
            break
        best = min(best, look_at_ram(source), key=doubt)
    return best


def doubt(found: Ram) -> int:
    """Return how many lines of the ledger are unexplained."""
    return sum(1 for line in found.lines if line.unexplained)


def code(request: Request, found: Ram) -> int:
    open_lines = [line.against for line in found.lines if line.unexplained]
    if open_lines:
        commands.note(request, f"unexplained: {', '.join(open_lines)}")
        return commands.DIFFERENCE
    for reason in () if request.format == "text" else found.partial:
        commands.note(request, f"partial: {reason}")
    return commands.PARTIAL if found.partial else 0
