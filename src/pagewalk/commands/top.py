"""pagewalk top: who has the memory, process by process or by what they have in common."""

from __future__ import annotations

import os
import sys
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import click

from pagewalk import commands
from pagewalk.commands.options import Request, format_option
from pagewalk.commands.sets import Named, divided, members, processes_of, set_options

if TYPE_CHECKING:
    from pagewalk.render.columns import Choice
    from pagewalk.system.processes import Processes

EVERY = 2.0  # seconds between screens, without --watch


@click.command("top", short_help="Who has the memory: processes by USS, PSS, RSS and swap, live.")
@set_options
@click.option("--by", default="process", show_default=True,
              type=click.Choice(["process", "program", "user", "cgroup", "mapping"]),
              help="A line for each process, or for all that have this in common.")
@click.option("--once", is_flag=True, help="One screen, as in a pipe; not again and again.")
@click.option("--huge", is_flag=True,
              help="How each process maps huge pages and other large folios (see maps).")
@click.option("--zeros", is_flag=True,
              help="With --huge: read the anonymous huge pages, and count what of them is zero.")
@format_option("text", "json", "csv")
def command(by: str, once: bool, huge: bool, zeros: bool, **options: Any) -> int:
    """Show who has the memory, the largest USS first: all processes, or TARGETS.

    On a terminal it is shown again every 2 seconds, with how much each has grown, and keys scroll,
    sort and group; q ends it.

    \b
    pagewalk top
    pagewalk top --once --sort rss
    pagewalk top --once --by program
    pagewalk top --once --by user --format json
    pagewalk top --tree $$ --once
    pagewalk top --huge --limit 5
    """
    from pagewalk.render.columns import choose

    request, named = divided(options)
    if not any(named):
        named = named._replace(everyone=True)
    if huge or zeros:
        refuse_beside_huge(by, huge=huge)
    with processes_of(request, named) as (where, named):
        if huge:
            from pagewalk.commands.huge import show_huge_of_each

            return show_huge_of_each(request, where, named, zeros=zeros)
        if not where.recorded and live(request, once=once):
            request = request._replace(watch=EVERY)
        choice = choose("top", request.columns, request.sort or "uss", request.limit)
        if has_keys(request):
            return with_keys(request, where, named, by, choice)
        return show(request, where, named, by, choice)


def show(request: Request, where: Processes, named: Named, by: str, choice: Choice) -> int:
    """Write what each holds, again and again if that is asked for; return the exit code."""
    from pagewalk.render import view
    from pagewalk.render.columns import SHOWN
    from pagewalk.system.top import look_at_top, since

    if request.limit is None and request.format == "text":
        choice = choice._replace(limit=SHOWN)
    before = None
    with commands.output(request.output) as out:
        write = commands.writer(
            request, view(request.format, "top", request.human, request.color), out)
        for _ in commands.rounds(request, write):
            found = look_at_top(members(named, where), by, where)
            before, found = found, since(found, before)
            write(found, choice.rows(found.lines), columns=choice.columns)
    return commands.concluded(request, found.looked.tried.withheld)


def has_keys(request: Request) -> bool:
    """Return whether somebody looks at the screen and can press keys."""
    return (request.watch is not None and request.format == "text" and sys.stdout.isatty()
            and sys.stdin is not None and sys.stdin.isatty() and os.environ.get("TERM") != "dumb")


def with_keys(
    request: Request, where: Processes, named: Named, by: str, choice: Choice
) -> int:
    """Show it again and again, as keys want it, until one ends it."""
    from pagewalk.render.keys import Keyboard
    from pagewalk.render.top_live import Again, Live, Quit, State
    from pagewalk.system.top import look_at_top, since

    screen = Live(Keyboard(sys.stdin.fileno()), sys.stdout, State(by, choice, request.human),
                  request.color)
    before = None
    with suppress(Quit), closing(commands.rounds(request, screen)) as rounds:
        for _ in rounds:
            with suppress(Again):
                found = look_at_top(members(named, where), screen.state.by, where,
                                    screen.attend)
                before, found = found, since(found, before)
                screen(found)
    return 0


def refuse_beside_huge(by: str, *, huge: bool) -> None:
    """Raise BadRequest for what cannot be asked together with --huge, and for --zeros without."""
    from pagewalk.model.errors import BadRequest

    if not huge:
        raise BadRequest("--zeros is about huge pages: add --huge")
    if by != "process":
        raise BadRequest("--huge is about processes: leave out --by")


def live(request: Request, *, once: bool) -> bool:
    """Return whether the screen is to be shown again and again though nobody said so."""
    asked = once or request.watch is not None or request.output is not None
    return not asked and request.format == "text" and sys.stdout.isatty()
