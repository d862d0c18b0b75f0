"""More of pagewalk ram: the page cache by file, the kernel's memory by name, where uses lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pagewalk import commands
from pagewalk.commands.options import Request

if TYPE_CHECKING:
    from pagewalk.system.machine import Machine


def show_files(request: Request, machine: Machine) -> int:
    """Write the page cache by file; return the exit code."""
    from pagewalk.render import view
    from pagewalk.render.columns import choose
    from pagewalk.render.file_table import SHOWN, owners, pick
    from pagewalk.system.containers import known_names
    from pagewalk.system.files import MOST

    choice = choose("files", request.columns, request.sort, request.limit)
    if request.limit is None and request.format == "text":
        choice = choice._replace(limit=SHOWN)
    with commands.output(request.output) as out:
        shown = view(request.format, "files", request.human, request.color)
        write = commands.writer(request, shown, out)
        for _ in commands.rounds(request, write):
            look = machine.files(max(MOST, choice.limit or 0))
            names = look.owners.get
            found = pick(look.report, names, choice)
            called = known_names(machine.names(owners(found, names)))
            write(found, names, columns=choice.columns, known=called)
    return commands.concluded(request, found.withheld)


def show_slabs(request: Request, machine: Machine) -> int:
    """Write the kernel's memory by name; return the exit code."""
    from pagewalk.render import view
    from pagewalk.render.columns import SHOWN, choose
    from pagewalk.render.slab_table import pick
    from pagewalk.system.containers import known_names

    choice = choose("slab", request.columns, request.sort, request.limit)
    with commands.output(request.output) as out:
        shown = view(request.format, "slab", request.human, request.color)
        write = commands.writer(request, shown, out)
        for _ in commands.rounds(request, write):
            found = machine.slab()
            caches = pick(found.slabs, choice, SHOWN if request.format == "text" else None)
            paths = {one.group for cache in caches for one in cache.charges or () if one.group}
            called = known_names(machine.names(paths))
            write(found, caches, columns=choice.columns, known=called)
    return commands.concluded(request, found.withheld)


def show_map(request: Request, machine: Machine) -> int:
    """Write where in RAM its uses lie; return the exit code."""
    from pagewalk.render import view

    with commands.output(request.output) as out:
        shown = view(request.format, "map", request.human, request.color)
        write = commands.writer(request, shown, out)
        for _ in commands.rounds(request, write):
            look = machine.map()
            write(look.found, machine.facts, withheld=look.withheld)
    return commands.concluded(request, look.withheld)
