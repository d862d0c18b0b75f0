"""More of pagewalk ram: the page cache by file, the kernel's memory by name, where uses lie."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pagewalk import commands
from pagewalk.commands.options import Request

if TYPE_CHECKING:
    from pagewalk.render.columns import Choice
    from pagewalk.render.file_table import Names
    from pagewalk.sources.ram import RamSource
    from pagewalk.system.files import FilesReport


def show_files(request: Request, source: RamSource) -> int:
    """Write the page cache by file; return the exit code."""
    from pagewalk.render import view
    from pagewalk.render.columns import choose
    from pagewalk.render.file_table import SHOWN, owners, pick

    choice = choose("files", request.columns, request.sort, request.limit)
    if request.limit is None and request.format == "text":
        choice = choice._replace(limit=SHOWN)
    with commands.output(request.output) as out:
        shown = view(request.format, "files", request.human, request.color)
        write = commands.writer(request, shown, out)
        for _ in commands.rounds(request, write):
            found, names = read_files(source, choice)
            found = pick(found, names, choice)
            write(found, names, columns=choice.columns, known=known(owners(found, names)))
    return commands.concluded(request, found.withheld)


def read_files(source: RamSource, choice: Choice) -> tuple[FilesReport, Names]:
    """Return the page cache by file, and the path of those who are charged for it."""
    from pagewalk.model.columns import Withheld
    from pagewalk.model.errors import SourceUnavailable
    from pagewalk.system.cached import add_up_files, without_owners
    from pagewalk.system.files import MOST, name_files, name_owners
    from pagewalk.system.survey import opened

    running = opened(source)
    cached = add_up_files(source.frames())
    kernel, withheld = running.kernel, source.notes
    try:
        names = name_owners(kernel, running.direct_map, cached).get
    except SourceUnavailable as error:
        cached, names = without_owners(cached), dict[int, str]().get
        withheld += (Withheld("who is charged", str(error)),)
    found = name_files(
        kernel, running.direct_map, cached, source.facts.page_size,
        max(MOST, choice.limit or 0),
    )
    return found._replace(withheld=withheld), names


def show_slabs(request: Request, source: RamSource) -> int:
    """Write the kernel's memory by name; return the exit code."""
    from pagewalk.render import view
    from pagewalk.render.columns import choose
    from pagewalk.render.slab_table import SHOWN, pick
    from pagewalk.system.kernel_memory import look_at_kernel

    choice = choose("slab", request.columns, request.sort, request.limit)
    with commands.output(request.output) as out:
        shown = view(request.format, "slab", request.human, request.color)
        write = commands.writer(request, shown, out)
        for _ in commands.rounds(request, write):
            found = look_at_kernel(source)
            caches = pick(found.slabs, choice, SHOWN if request.format == "text" else None)
            paths = {one.group for cache in caches for one in cache.charges or () if one.group}
            write(found, caches, columns=choice.columns, known=known(paths))
    return commands.concluded(request, found.withheld)


def show_map(request: Request, source: RamSource) -> int:
    """Write where in RAM its uses lie; return the exit code."""
    from pagewalk.render import view
    from pagewalk.system.ram_map import map_ram

    with commands.output(request.output) as out:
        shown = view(request.format, "map", request.human, request.color)
        write = commands.writer(request, shown, out)
        for _ in commands.rounds(request, write):
            found = map_ram(source.frames(), source.ranges or [])
            write(found, source.facts, withheld=source.notes)
    return commands.concluded(request, source.notes)


def known(paths: Iterable[str]) -> dict[str, str]:
    """Return what people call the groups at ``paths``, where the path does not say it."""
    from pagewalk.proc.containers import read_records
    from pagewalk.system.containers import known_names

    return known_names(paths, read_records())
