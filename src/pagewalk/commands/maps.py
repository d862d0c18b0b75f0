"""pagewalk maps: every VMA of a process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pagewalk.commands import Request, counts_option, finish, opened, target_options

if TYPE_CHECKING:
    from pagewalk.account.table import Table
    from pagewalk.sources import Source


@click.command("maps")
@target_options("text", "json", "csv", "log")
@counts_option
@click.option("--all", "everything", is_flag=True,
              help="Every field of smaps, computed from the page tables, and VmFlags.")
@click.option("--columns", metavar="LIST", help="Comma-separated columns of the text table.")
def command(counts: bool, everything: bool, columns: str | None, **options: object) -> int:
    """Show every VMA of TARGET: size, present, RSS, not present, not mapped, swap, PSS, USS.

    --all adds the other fields of smaps: clean and dirty, referenced, lazyfree, SwapPss (for which
    every process that uses swap is walked), page sizes, THPeligible and VmFlags. They require a
    source that reads page tables. --columns accepts the amounts among them by name.

    \b
    pagewalk maps $$
    pagewalk maps $$ --columns size,rss,anon,lazyfree,file,shmem,ksm
    pagewalk maps $$ --all --format json
    pagewalk maps $$ --format csv
    """
    from pagewalk.account.smaps import DETAILS
    from pagewalk.account.table import COLUMNS, SMAPS_FIELDS
    from pagewalk.model.errors import BadRequest

    request = Request(**options)  # type: ignore[arg-type]
    known = [column.name for column in (*COLUMNS, *DETAILS)]
    chosen = list(SMAPS_FIELDS.values()) if everything else []
    if columns is not None:
        chosen = [name.strip() for name in columns.split(",")]
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise BadRequest(f"no column is called '{unknown[0]}'; choose from: {', '.join(known)}")
    detailed = sorted(set(chosen) & {column.name for column in DETAILS})
    if counts and (everything or detailed):
        option = "--all" if everything else f"--columns {detailed[0]}"
        raise BadRequest(f"{option} looks at every page frame and --counts at none: use one or the"
                         " other")
    with opened(request, "maps") as (source, write):
        table = tabulate(source, detailed, counts=counts, everything=everything)
        write(table, columns=chosen, everything=everything)
    return finish(request, table.outcome)


def tabulate(source: Source, detailed: list[str], *, counts: bool, everything: bool) -> Table:
    """Walk ``source`` and return its Table, with smaps' other columns if any is ``detailed``."""
    from pagewalk.account.smaps import by_field, with_particulars
    from pagewalk.account.swap_users import count_swap_users
    from pagewalk.account.table import table as walk_table
    from pagewalk.walking.walk import walk

    if everything or detailed:
        counted = source.live is not None and (everything or "swap_pss" in detailed)
        table = by_field(walk(source), count_swap_users(source.name) if counted else None)
    else:
        table = walk_table(source, frames=not counts)
    if everything:
        table = with_particulars(table, source)
    if not counts and None in table.totals.values():
        from pagewalk.account.rollup import ask_rollup  # as in show

        table = ask_rollup(table, source)
    return table
