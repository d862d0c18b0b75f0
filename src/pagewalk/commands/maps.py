"""pagewalk maps: every VMA of a process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    from pagewalk.account.groups import Group
    from pagewalk.account.smaps import SwapUsers
    from pagewalk.account.table import Table
    from pagewalk.model.columns import Withheld
    from pagewalk.render.columns import Choice
    from pagewalk.sources import Source


@click.command("maps", short_help="Every VMA, or their sums by what they are.")
@target_options("text", "json", "csv", "log", required=False)
@table_options
@watch_option
@counts_option
@click.option("--all", "everything", is_flag=True,
              help="Every field of smaps, computed from the page tables, and VmFlags.")
@click.option("--huge", is_flag=True,
              help="Huge pages and other large folios: how they are mapped, what is broken up.")
@click.option("--zeros", is_flag=True,
              help="With --huge: read the anonymous huge pages, and count what of them is zero.")
@click.option("--by", type=click.Choice(["kind", "file", "perms"]),
              help="Sum the VMAs by what they are, what they map, or their access rights.")
@click.option("--cache", is_flag=True,
              help="What of each mapped file is in RAM, and what is only on disk.")
@click.option("--file", "path", metavar="PATH",
              help="With --cache and without TARGET: of this file, whoever maps it.")
def command(
    counts: bool, everything: bool, huge: bool, zeros: bool, by: str | None, cache: bool,
    path: str | None, **options: Any,
) -> int:
    """Show every VMA of TARGET: size, present, RSS, not present, swap, PSS, USS.

    --all adds the other fields of smaps: clean and dirty, referenced, lazyfree, SwapPss (for which
    every process that uses swap is walked), page sizes, THPeligible and VmFlags. They require a
    source that reads page tables. --columns accepts the amounts among them by name.

    --huge shows what is mapped by a PMD, by entries of single pages of a large folio, and what of
    those folios is not mapped; below, folios by size. --zeros reads the anonymous huge pages.

    \b
    pagewalk maps $$
    pagewalk maps $$ --columns size,rss,anon,lazyfree,file,shmem,ksm
    pagewalk maps $$ --all --format json
    pagewalk maps $$ --format csv
    pagewalk maps $$ --sort rss --limit 10
    pagewalk maps $$ --by kind
    pagewalk maps $$ --huge
    pagewalk maps $$ --huge --zeros --format json
    pagewalk maps $$ --cache
    pagewalk maps --cache --file /bin/sh
    """
    from pagewalk.account.table import SMAPS_FIELDS
    from pagewalk.render.columns import WHOLE

    target = options.pop("target")
    request = Request(target=target or "", **options)
    if cache:
        from pagewalk.commands.cache import show_cache

        return show_cache(request, path, {"counts": counts, "all": everything, "by": by,
                                          "huge": huge, "zeros": zeros})
    if target is None:
        raise click.UsageError("Missing argument 'TARGET'.")
    if path is not None:
        raise BadRequest("--file goes with --cache, which tells what of a file is in RAM")
    if huge or zeros:
        refuse_beside_huge(request, counts, everything, by, huge=huge)
        from pagewalk.commands.huge import show_huge

        return show_huge(request, zeros=zeros)
    view = "groups" if by else "maps"
    choice = choice_of(request, view) or WHOLE
    detailed = details(choice)
    refuse_frames(counts, everything, detailed)
    # Only a screen leaves the other columns out.
    columns = list(SMAPS_FIELDS.values()) if everything and request.format == "text" else None
    columns = columns if choice.columns is None else list(choice.columns)
    with opened(request, view) as (source, write):
        for _ in rounds(request, write):
            table = tabulate(source, detailed, counts=counts, everything=everything)
            note_unsorted(request, table, choice)
            if by:
                write(table, grouped(table, by, source, choice), columns=columns)
            else:
                write(table, ordered(table, choice), columns=columns, everything=everything)
    return finish(request, table.outcome)


def refuse_beside_huge(
    request: Request, counts: bool, everything: bool, by: str | None, *, huge: bool
) -> None:
    """Raise BadRequest for what cannot be asked together with --huge, and for --zeros without."""
    if not huge:
        raise BadRequest("--zeros is about huge pages: add --huge")
    if counts or everything or by:
        raise BadRequest("--huge is a table of its own: leave out --counts, --all and --by")
    if request.format == "log":
        raise BadRequest("--format log prints every page: leave out --huge")


def details(choice: Choice) -> list[str]:
    """Return the columns of ``choice`` that only smaps' other fields have."""
    from pagewalk.account.smaps import DETAILS

    asked = {*(choice.columns or ()), *([choice.sort.name] if choice.sort else ())}
    return sorted(asked & {column.name for column in DETAILS})


def refuse_frames(counts: bool, everything: bool, detailed: list[str]) -> None:
    if counts and (everything or detailed):
        option = "--all" if everything else f"column {detailed[0]}"
        raise BadRequest(f"{option} looks at every page frame and --counts at none: use one or the"
                         " other")


def grouped(table: Table, by: str, source: Source, choice: Choice) -> list[Group]:
    """Return the groups of ``table`` in the order asked for."""
    from pagewalk.account.groups import BY, value
    from pagewalk.system.signs import signs

    return choice.rows(BY[by](table, *signs(source, table.vmas)), value)


def ordered(table: Table, choice: Choice) -> list[int]:
    """Return the VMAs to show, by their position."""
    from pagewalk.account.smaps import column

    values = column(table, choice.sort.name) if choice.sort else None
    if values is None:
        return list(range(len(table.vmas)))[: choice.limit]
    return choice.rows(range(len(table.vmas)), lambda row, _: values[row])


def tabulate(source: Source, detailed: list[str], *, counts: bool, everything: bool) -> Table:
    """Walk ``source`` and return its Table, with smaps' other columns if any is ``detailed``."""
    from pagewalk.account.smaps import NOT_COUNTED, by_field, with_particulars
    from pagewalk.account.table import table as walk_table
    from pagewalk.walking.walk import walk

    if everything or detailed:
        counted = everything or "swap_pss" in detailed
        table = by_field(walk(source), swap_users(source) if counted else NOT_COUNTED)
    else:
        table = walk_table(source, frames=not counts)
    if everything:
        table = with_particulars(table, source)
    if not counts and None in table.totals.values():
        from pagewalk.account.rollup import ask_rollup  # as in show

        table = ask_rollup(table, source)
    return table


def swap_users(source: Source) -> SwapUsers | Withheld:
    """Return who uses the swap slots of the machine, or what is recorded of that."""
    if source.recorded is not None:
        from pagewalk.history.process_documents import swap_users_of

        return swap_users_of(source)
    from pagewalk.account.swap_users import count_swap_users

    return count_swap_users(source.name)
