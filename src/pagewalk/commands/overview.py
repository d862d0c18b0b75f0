"""pagewalk overview: all of RAM in a line, and the largest processes; `pagewalk` alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from pagewalk import commands
from pagewalk.commands.options import (
    Request,
    check_watch,
    format_option,
    output_options,
    table_options,
    watch_option,
)
from pagewalk.commands.sets import in_recording
from pagewalk.model.errors import BadTarget

if TYPE_CHECKING:
    from pagewalk.sources.ram import RamSource
    from pagewalk.system.overview import Overview

SHOWN = 10  # processes, without --limit and --sort


@click.command("overview", short_help="RAM and the largest processes, on the first screen.")
@format_option("text", "json")
@table_options
@watch_option
@output_options
@click.argument("recording", metavar="[FILE]", required=False)
def command(recording: str | None, **options: Any) -> int:
    """Show what RAM is used for, in a line, and the largest processes. `pagewalk` alone does so.
    With FILE, a recording, what it has of both.

    Processes are walked for a second or so, those with the largest RSS first. Where kernel memory
    cannot be read, they are listed by RSS, and RAM is what the kernel counts.

    \b
    pagewalk overview
    pagewalk overview --sort swap --limit 20
    pagewalk overview --format json
    """
    from pagewalk.sources.doctor import summary
    from pagewalk.system.overview import look_at_recorded, open_overview

    request = Request(target="", source="", freeze=False, budget=0, **options)
    if recording is not None:
        from pagewalk.history.recorded_machine import RecordedMachine

        with in_recording(request, recording) as where:
            ram = RecordedMachine(where.recording)
            found = look_at_recorded(ram.ram() if ram.has_ram else None, where)
            return show(request, "uss", lambda: found, where.machine)
    check_watch(request)
    source = open_overview()
    return show(request, "rss" if source.running is None else "uss", lambda: look(source),
                summary() if request.format == "json" else "")


def look(source: RamSource) -> Overview:
    """Look at this machine."""
    from pagewalk.proc.chosen import Wanted, choose
    from pagewalk.proc.stall import BUDGET_NS
    from pagewalk.system.overview import look_at_overview

    try:
        chosen = choose(Wanted(everyone=True))
    except BadTarget:  # we are alone in this PID namespace
        chosen = []
    return look_at_overview(source, chosen, BUDGET_NS)


def show(request: Request, order: str, look: Callable[[], Overview], machine: str) -> int:
    """Write what ``look`` returns, sorted by ``order`` unless something else is asked for.

    Returns the exit code.
    """
    from pagewalk.render import columns, view

    choice = columns.choose("overview", request.columns, request.sort or order, request.limit)
    if request.limit is None and request.sort is None and request.format == "text":
        choice = choice._replace(limit=SHOWN)
    told = {"machine": machine} if request.format == "json" else {}
    with commands.output(request.output) as out:
        shown = view(request.format, "overview", request.human, request.color)
        write = commands.writer(request, shown, out)
        for _ in commands.rounds(request, write):
            found = look()
            write(found, choice.rows(found.rows), columns=choice.columns, **told)
    return commands.concluded(request, found.withheld)
