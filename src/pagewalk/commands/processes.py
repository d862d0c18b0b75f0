"""pagewalk processes: the processes of this machine, the largest first."""

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

if TYPE_CHECKING:
    from pagewalk.proc.processes import Process

SHOWN = 12  # processes, without --limit and --sort


@click.command("processes", short_help="The processes of this machine, the largest first.")
@format_option("text", "json")
@table_options
@watch_option
@output_options
@click.argument("recording", metavar="[FILE]", required=False)
def command(recording: str | None, **options: Any) -> int:
    """Show the processes of this machine, the largest first, by the RSS that the kernel counts.
    With FILE, a recording, those in it.

    \b
    pagewalk processes
    pagewalk processes --sort name --limit 100
    pagewalk processes --format json
    """
    from pagewalk.proc.namespace import own_numbers
    from pagewalk.proc.processes import read_processes
    from pagewalk.sources.doctor import summary

    request = Request(target="", source="", freeze=False, budget=0, **options)
    if recording is not None:
        with in_recording(request, recording) as where:
            told = where.told
            return show(request, lambda: [one.process for one in told.processes], told.machine)
    check_watch(request)
    us = own_numbers()[0]
    return show(request, lambda: [one for one in read_processes() if one.pid != us], summary())


def show(request: Request, look: Callable[[], list[Process]], machine: str) -> int:
    """Write the processes that ``look`` returns; return the exit code."""
    from pagewalk.render import view
    from pagewalk.render.columns import choose

    choice = choose("processes", request.columns, request.sort or "rss", request.limit)
    if request.limit is None and request.sort is None and request.format == "text":
        choice = choice._replace(limit=SHOWN)
    with commands.output(request.output) as out:
        shown = view(request.format, "processes", request.human, request.color)
        write = commands.writer(request, shown, out)
        for _ in commands.rounds(request, write):
            found = look()
            write(choice.rows(found), machine, columns=choice.columns, count=len(found),
                  whole=sum(process.rss for process in found))
    return 0
