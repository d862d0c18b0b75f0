"""pagewalk processes: the processes of this machine, the largest first."""

from __future__ import annotations

from typing import Any

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

SHOWN = 12  # processes, without --limit and --sort


@click.command("processes", short_help="The processes of this machine, the largest first.")
@format_option("text", "json")
@table_options
@watch_option
@output_options
def command(**options: Any) -> int:
    """Show the processes of this machine, the largest first, by the RSS that the kernel counts.

    \b
    pagewalk processes
    pagewalk processes --sort name --limit 100
    pagewalk processes --format json
    """
    from pagewalk.proc.namespace import own_numbers
    from pagewalk.proc.processes import read_processes
    from pagewalk.render import view
    from pagewalk.render.columns import choose
    from pagewalk.sources.doctor import summary

    request = Request(target="", source="", freeze=False, budget=0, **options)
    choice = choose("processes", request.columns, request.sort or "rss", request.limit)
    if request.limit is None and request.sort is None and request.format == "text":
        choice = choice._replace(limit=SHOWN)
    check_watch(request)
    us, told = own_numbers()[0], summary()
    with commands.output(request.output) as out:
        shown = view(request.format, "processes", request.human, request.color)
        write = commands.writer(request, shown, out)
        for _ in commands.rounds(request, write):
            found = [process for process in read_processes() if process.pid != us]
            write(choice.rows(found), told, columns=choice.columns, count=len(found),
                  whole=sum(process.rss for process in found))
    return 0
