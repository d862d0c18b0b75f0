"""pagewalk ram: what all of RAM is used for, each frame once."""

from __future__ import annotations

from typing import Any

import click

from pagewalk import commands
from pagewalk.commands.options import (
    Request,
    format_option,
    of_machine,
    output_options,
    source_option,
    table_options,
    watch_option,
)
from pagewalk.model.errors import BadRequest


@click.command("ram", short_help="All of RAM: what it is used for, each frame once.")
@click.argument("file", required=False)
@source_option("ebpf, kcore, drgn or procfs")
@format_option("text", "json", "csv")
@click.option("--ledger", is_flag=True,
              help="Every line of /proc/meminfo beside ours, with causes.")
@click.option("--files", is_flag=True,
              help="The page cache by file: deleted files first, who keeps them, who is charged.")
@click.option("--slab", is_flag=True,
              help="The kernel's memory by name: objects and who is charged, vmalloc, BPF maps.")
@click.option("--map", "picture", is_flag=True,
              help="Physical memory as a picture: a letter for each stretch of addresses.")
@table_options
@watch_option
@output_options
def command(
    file: str | None, ledger: bool, files: bool, slab: bool, picture: bool, **options: Any
) -> int:
    """Show what all of RAM is used for: each frame once, up to MemTotal and to the firmware's RAM;
    or what it was used for, if FILE is a recording made by record --ram.

    Compared with /proc/meminfo line by line: each difference is a list of named causes, exact or
    bounded; if any of it is unexplained, the exit code is 4.

    \b
    pagewalk ram
    pagewalk ram --ledger
    pagewalk ram --files
    pagewalk ram --files --sort dirty --limit 3
    pagewalk ram --slab
    pagewalk ram --map
    pagewalk ram --format json
    """
    from pagewalk.commands.machine import looked_at
    from pagewalk.render import view

    request = of_machine(options)
    check_table(request, ledger, picture, files, slab)
    with looked_at(request, file, kernel=files or slab or picture) as machine:
        if files or slab or picture:
            from pagewalk.commands import ram_tables as more

            show = more.show_files if files else more.show_slabs if slab else more.show_map
            return show(request, machine)
        with commands.output(request.output) as out:
            shown = view(request.format, "ram", request.human, request.color)
            write = commands.writer(request, shown, out)
            for _ in commands.rounds(request, write):
                found = machine.ram()
                write(found, ledger=ledger)
        return commands.concluded(request, found.withheld, found.lines)


def check_table(request: Request, *screens: bool) -> None:
    """Raise BadRequest for two screens at once, and for options of a table that is not shown.

    ``screens`` are --ledger and --map, which have no table, and --files and --slab.
    """
    if sum(screens) > 1:
        raise BadRequest("--ledger, --files, --slab and --map are screens of their own: choose one")
    asked = (request.columns, request.sort, request.limit) != (None, None, None)
    if asked and not any(screens[-2:]):
        raise BadRequest("--columns, --sort and --limit are about the tables of --files and"
                         " --slab")
