"""pagewalk maps: every VMA of a process."""

from __future__ import annotations

import click

from pagewalk.commands import Request, finish, opened, output, target_options


@click.command("maps")
@target_options("text", "json", "csv", "log")
@click.option("--counts", is_flag=True,
              help="Count only: no frames, so no PSS, USS or kinds; a third of the time.")
@click.option("--columns", metavar="LIST", help="The columns of the text table, by comma.")
def command(counts: bool, columns: str | None, **options: object) -> int:
    """Show every VMA of TARGET: size, present, RSS, not present, not mapped, swap, PSS, USS.

    \b
    pagewalk maps $$
    pagewalk maps $$ --columns size,rss,anon,file,shmem,ksm
    pagewalk maps $$ --format csv
    """
    from pagewalk.account import COLUMNS, by_vma
    from pagewalk.errors import BadRequest
    from pagewalk.render import view
    from pagewalk.walk import walk

    request = Request(**options)  # type: ignore[arg-type]
    chosen = [] if columns is None else [name.strip() for name in columns.split(",")]
    unknown = set(chosen) - {column.name for column in COLUMNS}
    if unknown:
        known = ", ".join(column.name for column in COLUMNS)
        raise BadRequest(f"no column is called '{sorted(unknown)[0]}'; there are: {known}")
    with opened(request) as source, output(request.output) as out:
        table = by_vma(walk(source, frames=not counts))
        extra = {"columns": chosen} if chosen else {}
        view(request.format, "maps")(table, out, **extra)
    return finish(request, table.outcome)
