"""pagewalk share: what several processes hold together, and what ending them would free."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from pagewalk import commands
from pagewalk.commands.options import format_option
from pagewalk.commands.sets import divided, members, processes_of, set_options


@click.command("share", short_help="Several processes together: who shares what, what is freed.")
@set_options
@format_option("text", "json", "csv")
def command(**options: Any) -> int:
    """Show what TARGETS hold together, each page counted once, and what ending them would free.

    TARGETS are pids and names; a name means every process that has it, and may be a pattern. Also
    shown: what each still shares with the process that it was forked from, and what one more costs.

    \b
    pagewalk share $$
    pagewalk share --tree $$
    pagewalk share --tree $$ --format json
    pagewalk share --tree $$ --sort uss --limit 10
    """
    from pagewalk.render import view
    from pagewalk.render.columns import SHOWN, choose
    from pagewalk.render.share_table import amount
    from pagewalk.system.share import look_at_set

    request, named = divided(options)
    choice = choose("share", request.columns, request.sort or "rss", request.limit)
    if request.limit is None and request.sort is None and request.format == "text":
        choice = choice._replace(limit=SHOWN)
    with processes_of(request, named) as (where, named), commands.output(request.output) as out:
        write = commands.writer(
            request, view(request.format, "share", request.human, request.color), out)
        before = None
        for _ in commands.rounds(request, write):
            found = look_at_set(members(named, where), where)
            before = found.peak.since(before)
            found = found._replace(peak=before)
            rows = choice.rows(range(len(found.looked.members)), partial(amount, found))
            write(found, rows, columns=choice.columns)
    return commands.concluded(request, found.withheld)
