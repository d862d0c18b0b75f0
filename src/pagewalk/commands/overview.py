"""pagewalk overview: all of RAM in a line, and the largest processes; `pagewalk` alone."""

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
from pagewalk.model.errors import BadTarget

SHOWN = 10  # processes, without --limit and --sort


@click.command("overview", short_help="RAM and the largest processes, on the first screen.")
@format_option("text", "json")
@table_options
@watch_option
@output_options
def command(**options: Any) -> int:
    """Show what RAM is used for, in a line, and the largest processes. `pagewalk` alone does so.

    Processes are walked for a second or so, those with the largest RSS first. Where kernel memory
    cannot be read, they are listed by RSS, and RAM is what the kernel counts.

    \b
    pagewalk overview
    pagewalk overview --sort swap --limit 20
    pagewalk overview --format json
    """
    from pagewalk.proc.chosen import Wanted, choose
    from pagewalk.proc.stall import BUDGET_NS
    from pagewalk.render import columns, view
    from pagewalk.sources.doctor import summary
    from pagewalk.system.overview import look_at_overview, open_overview

    request = Request(target="", source="", freeze=False, budget=0, **options)
    source = open_overview()
    order = request.sort or ("rss" if source.running is None else "uss")
    choice = columns.choose("overview", request.columns, order, request.limit)
    if request.limit is None and request.sort is None and request.format == "text":
        choice = choice._replace(limit=SHOWN)
    check_watch(request)
    told = {"machine": summary()} if request.format == "json" else {}
    with commands.output(request.output) as out:
        shown = view(request.format, "overview", request.human, request.color)
        write = commands.writer(request, shown, out)
        for _ in commands.rounds(request, write):
            try:
                chosen = choose(Wanted(everyone=True))
            except BadTarget:  # we are alone in this PID namespace
                chosen = []
            found = look_at_overview(source, chosen, BUDGET_NS)
            write(found, choice.rows(found.rows), columns=choice.columns, **told)
    return commands.concluded(request, found.withheld)
