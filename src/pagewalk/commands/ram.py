"""pagewalk ram: what all of RAM is used for, each frame once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pagewalk import commands
from pagewalk.commands.options import (
    Request,
    check_watch,
    complete_source,
    format_option,
    output_options,
    table_options,
    watch_option,
)
from pagewalk.model.errors import BadRequest

if TYPE_CHECKING:
    from pagewalk.render.columns import Choice
    from pagewalk.render.file_table import Names
    from pagewalk.sources.ram import RamSource
    from pagewalk.system.files import FilesReport
    from pagewalk.system.look import Ram

LOOKS = 4  # at most, as long as anything is unexplained


@click.command("ram", short_help="All of RAM: what it is used for, each frame once.")
@click.option("--source", default="auto", metavar="SOURCE", show_default=True,
              shell_complete=complete_source,
              help="What to read from: auto (the best that works here), ebpf, kcore or drgn.")
@format_option("text", "json", "csv")
@click.option("--ledger", is_flag=True,
              help="Every line of /proc/meminfo beside ours, with causes.")
@click.option("--files", is_flag=True,
              help="The page cache by file: deleted files first, who keeps them, who is charged.")
@table_options
@watch_option
@output_options
def command(ledger: bool, files: bool, **options: Any) -> int:
    """Show what all of RAM is used for: each frame once, up to MemTotal and to the firmware's RAM.

    Compared with /proc/meminfo line by line: each difference is a list of named causes, exact or
    bounded; if any of it is unexplained, the exit code is 4.

    \b
    pagewalk ram
    pagewalk ram --ledger
    pagewalk ram --files
    pagewalk ram --files --sort dirty --limit 3
    pagewalk ram --format json
    """
    from pagewalk.render import view
    from pagewalk.sources.ram import open_ram

    request = Request(target="", freeze=False, budget=0, **options)
    check_watch(request)
    check_table(request, ledger=ledger, files=files)
    source = open_ram(request.source)
    if files:
        return show_files(request, source)
    with commands.output(request.output) as out:
        shown = view(request.format, "ram", request.human, request.color)
        write = commands.writer(request, shown, out)
        for _ in commands.rounds(request, write):
            found = closest(source)
            write(found, ledger=ledger)
    return code(request, found)


def closest(source: RamSource) -> Ram:
    # A machine that is busy moves while it is read: the look with the least doubt counts.
    from pagewalk.system.look import look_at_ram

    best = look_at_ram(source)
    for _ in range(LOOKS - 1):
        if not doubt(best):
            break
        best = min(best, look_at_ram(source), key=doubt)
    return best


def doubt(found: Ram) -> int:
    """Return how many lines of the ledger are unexplained."""
    return sum(1 for line in found.lines if line.unexplained)


def code(request: Request, found: Ram) -> int:
    open_lines = [line.against for line in found.lines if line.unexplained]
    if open_lines:
        commands.note(request, f"unexplained: {', '.join(open_lines)}")
        return commands.DIFFERENCE
    for reason in () if request.format == "text" else found.partial:
        commands.note(request, f"partial: {reason}")
    return commands.PARTIAL if found.partial else 0


# ---- --files


def check_table(request: Request, *, ledger: bool, files: bool) -> None:
    """Raise BadRequest for options of a table that is not shown."""
    if files and ledger:
        raise BadRequest("--files and --ledger are two screens: choose one")
    if not files and (request.columns, request.sort, request.limit) != (None, None, None):
        raise BadRequest("--columns, --sort and --limit are about the table of --files")


def show_files(request: Request, source: RamSource) -> int:
    """Write the page cache by file; return the exit code."""
    from pagewalk.render import view
    from pagewalk.render.columns import choose
    from pagewalk.render.file_table import SHOWN, pick

    choice = choose("files", request.columns, request.sort, request.limit)
    if request.limit is None and request.format == "text":
        choice = choice._replace(limit=SHOWN)
    with commands.output(request.output) as out:
        shown = view(request.format, "files", request.human, request.color)
        write = commands.writer(request, shown, out)
        for _ in commands.rounds(request, write):
            found, names = read_files(source, choice)
            write(pick(found, names, choice), names, columns=choice.columns)
    partial = [f"{row.what}: {row.why}" for row in found.withheld if row.partial]
    for reason in () if request.format == "text" else partial:
        commands.note(request, f"partial: {reason}")
    return commands.PARTIAL if partial else 0


def read_files(source: RamSource, choice: Choice) -> tuple[FilesReport, Names]:
    """Return the page cache by file, and what those are called who are charged for it."""
    from pagewalk.model.columns import Withheld
    from pagewalk.model.errors import SourceUnavailable
    from pagewalk.system.cached import add_up_files, without_owners
    from pagewalk.system.files import MOST, name_files, name_owners

    cached = add_up_files(source.frames())
    assert source.running is not None
    kernel, withheld = source.running.kernel, source.notes
    try:
        names = name_owners(kernel, source.running.direct_map, cached).get
    except SourceUnavailable as error:
        cached, names = without_owners(cached), dict[int, str]().get
        withheld += (Withheld("who is charged", str(error)),)
    found = name_files(
        kernel, cached, source.facts.page_size, max(MOST, choice.limit or 0)
    )
    return found._replace(withheld=withheld), names
