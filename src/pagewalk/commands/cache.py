"""More of pagewalk maps: what of each mapped file is in RAM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pagewalk import commands
from pagewalk.commands.options import Request, choice_of
from pagewalk.model.errors import BadRequest

if TYPE_CHECKING:
    from pagewalk.render.columns import Choice
    from pagewalk.system.file_cache import CacheLook, FileCache


def show_cache(request: Request, path: str | None, others: dict[str, Any]) -> int:
    """Show the files that the target maps, or the file at ``path`` and who maps it.

    ``others`` are the options of maps that do not go with --cache, and whether each was given.
    """
    from pagewalk.render.columns import WHOLE

    if given := [name for name, value in others.items() if value]:
        raise BadRequest(f"--cache shows files, and --{given[0]} mappings: use one or the other")
    if bool(request.target) == (path is not None):
        raise BadRequest("--cache is about TARGET, or about the file of --file: name one of them")
    choice = choice_of(request, "cache") or WHOLE
    return of_path(request, path, choice) if path is not None else of_target(request, choice)


def of_target(request: Request, choice: Choice) -> int:
    from pagewalk.history.process_documents import cache_of
    from pagewalk.system.file_cache import look_at_mapped

    with commands.opened(request, "cache") as (source, write):
        for _ in commands.rounds(request, write):
            found = look_at_mapped(source) if source.recorded is None else cache_of(source)
            write(found, ordered(found, request, choice), columns=choice.columns)
    return commands.concluded(request, found.withheld)


def of_path(request: Request, path: str, choice: Choice) -> int:
    from pagewalk.commands.options import check_watch
    from pagewalk.render import view
    from pagewalk.system.file_cache import look_at_file

    if request.freeze:
        raise BadRequest("--file is about every process that maps it: leave out --freeze")
    check_watch(request)
    with commands.output(request.output) as out:
        write = commands.writer(
            request, view(request.format, "cache", request.human, request.color), out)
        for _ in commands.rounds(request, write):
            found = look_at_file(path, request.source, request.budget_ns)
            write(found, ordered(found, request, choice), columns=choice.columns)
    return commands.concluded(request, found.withheld)


def ordered(found: CacheLook, request: Request, choice: Choice) -> list[FileCache]:
    """Return the files to show: those with most in RAM first, unless asked otherwise."""
    from pagewalk.render.cache_table import document
    from pagewalk.render.columns import SHOWN

    if choice.sort is not None:
        return choice.rows(found.files, lambda one, name: document(one)[name])
    rows = sorted(found.files, key=lambda one: -(one.mapped if one.cached is None else one.cached))
    limit = choice.limit or (SHOWN if request.format == "text" else None)
    return rows[:limit]
