"""pagewalk maps: every VMA of a process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import click

from pagewalk.commands import (
    Request,
    counts_option,
    finish,
    note,
    opened,
    rounds,
    stack_pointers,
    target_options,
    units_option,
    watch_option,
)

if TYPE_CHECKING:
    from pagewalk.account.groups import Group
    from pagewalk.account.table import Table
    from pagewalk.sources import Source


@click.command("maps")
@target_options("text", "json", "csv", "log")
@units_option
@watch_option
@counts_option
@click.option("--all", "everything", is_flag=True,
              help="Every field of smaps, computed from the page tables, and VmFlags.")
@click.option("--columns", metavar="LIST", help="Comma-separated columns of the text table.")
@click.option("--sort", metavar="COLUMN",
              help="Largest first by that column; -COLUMN: smallest first (default: by address).")
@click.option("--limit", type=click.IntRange(1), metavar="N",
              help="Only the first N; the totals are still those of all.")
@click.option("--by", type=click.Choice(["kind", "file", "perms"]),
              help="Sum the VMAs by what they are, what they map, or their access rights.")
def command(
    counts: bool,
    everything: bool,
    columns: str | None,
    by: str | None,
    sort: str | None,
    limit: int | None,
    **options: object,
) -> int:
    """Show every VMA of TARGET: size, present, RSS, not present, not mapped, swap, PSS, USS.

    --all adds the other fields of smaps: clean and dirty, referenced, lazyfree, SwapPss (for which
    every process that uses swap is walked), page sizes, THPeligible and VmFlags. They require a
    source that reads page tables. --columns accepts the amounts among them by name.

    \b
    pagewalk maps $$
    pagewalk maps $$ --columns size,rss,anon,lazyfree,file,shmem,ksm
    pagewalk maps $$ --all --format json
    pagewalk maps $$ --format csv
    pagewalk maps $$ --sort rss --limit 10
    pagewalk maps $$ --by kind
    """
    from pagewalk.account.smaps import DETAILS
    from pagewalk.account.table import COLUMNS, SMAPS_FIELDS
    from pagewalk.model.errors import BadRequest

    request = Request(**options)  # type: ignore[arg-type]
    known = {name: column.name for column in (*COLUMNS, *DETAILS)
             for name in (column.name, spelled(column.title))}
    chosen = list(SMAPS_FIELDS.values()) if everything else []
    if columns is not None:
        chosen = [named(name, known) for name in columns.split(",")]
    order = None if sort is None else Order(named(sort.lstrip("-+"), known), sort[:1] == "-")
    asked = {*chosen, *([order.column] if order else ())}
    detailed = sorted(asked & {column.name for column in DETAILS})
    if counts and (everything or detailed):
        option = "--all" if everything else f"--columns {detailed[0]}"
        raise BadRequest(f"{option} looks at every page frame and --counts at none: use one or the"
                         " other")
    with opened(request, "groups" if by else "maps") as (source, write):
        for _ in rounds(request.watch):
            table = tabulate(source, detailed, counts=counts, everything=everything)
            if order and table.columns[order.column] is None:
                note(request, f"not sorted: {order.column} is withheld")
            if by:
                groups = grouped(table, by, source, order, limit)
                write(table, groups, columns=chosen)
            else:
                column = table.columns[order.column] if order else None
                sizes = [] if column is None else column.tolist()
                rows = ordered(len(table.vmas), sizes, order, limit)
                write(table, rows, columns=chosen, everything=everything)
    return finish(request, table.outcome)


def grouped(
    table: Table, by: str, source: Source, order: Order | None, limit: int | None
) -> list[Group]:
    """Return the groups of ``table`` in the order asked for."""
    from pagewalk.account.groups import BY

    groups = BY[by](table, stack_pointers(source))
    sizes = [group.amounts[order.column] or 0 for group in groups] if order else []
    return [groups[row] for row in ordered(len(groups), sizes, order, limit)]


class Order(NamedTuple):
    """By which column rows are sorted, and whether the smallest come first."""

    column: str
    smallest: bool


def spelled(title: str) -> str:
    """Return a name as it is typed: ``NOT PRES`` is ``not_pres``."""
    return title.strip().lower().replace(" ", "_").replace("-", "_")


def named(word: str, known: Mapping[str, str]) -> str:
    """Return the column called ``word``, by its key or as it is printed; raises BadRequest."""
    from difflib import get_close_matches

    from pagewalk.model.errors import BadRequest

    if spelled(word) in known:
        return known[spelled(word)]
    near = get_close_matches(spelled(word), known, 1)
    meant = f"; did you mean '{known[near[0]]}'?" if near else ""
    raise BadRequest(f"no column is called '{word}'{meant or '; choose from: '}"
                     f"{'' if near else ', '.join(dict.fromkeys(known.values()))}")


def ordered(count: int, sizes: list[int], order: Order | None, limit: int | None) -> list[int]:
    """Return the positions of the rows to show; where ``sizes`` are unknown, as they are."""
    rows = list(range(count))
    if order and sizes:
        rows.sort(key=lambda row: sizes[row], reverse=not order.smallest)
    return rows[:limit]


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
