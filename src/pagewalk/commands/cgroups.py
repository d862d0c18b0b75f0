"""pagewalk cgroups: every memory cgroup, what it is charged for, and what keeps removed ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pagewalk import commands
from pagewalk.commands.options import (
    format_option,
    of_machine,
    output_options,
    source_option,
    table_options,
    watch_option,
)

if TYPE_CHECKING:
    from pagewalk.render.columns import Choice
    from pagewalk.system.group_table import GroupTable


@click.command("cgroups", short_help="Every memory cgroup: what it is charged for.")
@click.argument("file", required=False)
@source_option("ebpf, kcore or drgn")
@format_option("text", "json", "csv")
@click.option("--dying", is_flag=True,
              help="Only those that were removed and live on, and what keeps them.")
@table_options
@watch_option
@output_options
def command(file: str | None, dying: bool, **options: Any) -> int:
    """Show every memory cgroup as a tree, the largest first: what it and those below it are charged
    for, from the frames of RAM, beside what the kernel says; or what they were charged for, if FILE
    is a recording made by record --ram.

    \b
    pagewalk cgroups
    pagewalk cgroups --sort kernel --limit 10
    pagewalk cgroups --dying
    pagewalk cgroups --format json
    """
    from pagewalk.commands.machine import looked_at
    from pagewalk.render import view
    from pagewalk.render.columns import choose
    from pagewalk.render.groups_table import nearest

    request = of_machine(options)
    choice = choose("cgroups", request.columns, request.sort, request.limit)
    with (looked_at(request, file, kernel=True) as machine,
          commands.output(request.output) as out):
        shown = view(request.format, "cgroups", request.human, request.color)
        write = commands.writer(request, shown, out)
        for _ in commands.rounds(request, write):
            table = machine.cgroups(dying=dying)
            rows, total = chosen(table, choice, dying, whole=request.format != "text")
            full = nearest(table)
            paths = {row: table.groups.path[row]
                     for row in [*(row for row, _ in rows), *([] if full is None else [full])]}
            named = machine.names(paths.values())
            names = {row: named[path] for row, path in paths.items()}
            write(table, rows, names, columns=choice.columns, total=total)
    return commands.concluded(request, table.withheld)


def chosen(
    table: GroupTable, choice: Choice, dying: bool, *, whole: bool
) -> tuple[list[tuple[int, int | None]], int]:
    # What is listed, (row, depth): a tree, or in the order asked for; and how many there are.
    from pagewalk.render.columns import SHOWN
    from pagewalk.render.groups_table import amount, found, tree

    every = tree(table.groups, table.amounts.usage, removed=dying)
    rows: list[tuple[int, int | None]] = [
        (row, None if choice.sort or dying else depth) for row, depth in every
        if not dying or table.groups.removed[row]]
    if dying:  # what a removed group was charged may have gone to its parent since
        held = found(table.amounts)
        rows.sort(key=lambda pair: -int(held[pair[0]]))
    if choice.sort is not None:
        def value(pair: tuple[int, int | None], column: str) -> Any:
            row = pair[0]
            return table.groups.path[row] if column == "path" else amount(table, row, column)

        rows = choice._replace(limit=None).rows(rows, value)
    most = choice.limit or (None if whole else SHOWN)
    return rows[:most], len(rows)
