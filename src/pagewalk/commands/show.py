"""pagewalk show: one screen for a process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from pagewalk.commands import finish, note_unsorted, opened, rounds
from pagewalk.commands.options import (
    Request,
    choice_of,
    counts_option,
    table_options,
    target_options,
    watch_option,
)
from pagewalk.model.errors import BadRequest

if TYPE_CHECKING:
    from pagewalk.account.table import Table
    from pagewalk.render.columns import Choice
    from pagewalk.sources import Source
    from pagewalk.sources.outcome import Outcome


@click.command("show", short_help="One screen: what TARGET's memory is, and where it is.")
@target_options("text", "json", "csv", "log")
@table_options
@watch_option
@counts_option
def command(counts: bool, **options: object) -> int:
    """Show where TARGET's memory lives on one screen: what it is, totals, short ledger.

    TARGET is a pid, or a name that only one process has. `pagewalk TARGET` does the same.
    --columns, --sort and --limit are about the table of what the memory is.

    \b
    pagewalk show $$
    pagewalk show $$ --sort size
    pagewalk show $$ --format json
    pagewalk show $$ --counts
    """
    request = Request(**options)  # type: ignore[arg-type]
    choice = choice_of(request, "show")
    if choice and request.format == "csv":
        raise BadRequest("show's csv has the totals only, not the table: leave out --columns,"
                         " --sort and --limit, or use maps --by kind")
    # The original module's log lists the pages themselves.
    log = request.format == "log"
    with opened(request, "pages" if log else "show") as (source, write):
        for _ in rounds(request, write):
            if log:
                outcome = pages(source, write)
                continue
            table = show(source, write, counts=counts, choice=choice)
            outcome = table.outcome
            note_unsorted(request, table, choice)
    return finish(request, outcome, told=request.format == "text")


def pages(source: Source, write: Callable[..., None]) -> Outcome:
    """Write every page of ``source``."""
    from pagewalk.walking.walk import walk

    walked = walk(source, holes=True)
    write(walked, walked)
    return walked.outcome


def show(
    source: Source, write: Callable[..., None], *, counts: bool, choice: Choice | None = None
) -> Table:
    """Walk ``source``, write its screen and return its Table."""
    from pagewalk.account.groups import by_kind
    from pagewalk.account.lazyfree import with_lazyfree
    from pagewalk.account.ledger import SHORT, ledger
    from pagewalk.account.table import table as walk_table
    from pagewalk.system.signs import signs

    before = source.theirs()
    table = with_lazyfree(walk_table(source, frames=not counts), source)
    theirs = source.theirs()
    lines = [line for line in ledger(table, theirs, before) if line.against in SHORT]
    if not counts and None in table.totals.values():
        from pagewalk.account.rollup import ask_rollup  # root's screen does not wait for its import

        table = ask_rollup(table, source)
    groups = by_kind(table, *signs(source, table.vmas))
    if choice is None:
        write(table, lines, groups)
    else:
        from pagewalk.account.groups import value

        write(table, lines, choice.rows(groups, value), columns=choice.columns)
    return table
