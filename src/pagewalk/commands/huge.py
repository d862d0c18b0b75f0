"""More of pagewalk maps and top: huge pages and other large folios as they are mapped."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from pagewalk import commands
from pagewalk.commands import finish, opened, rounds
from pagewalk.commands.options import Request
from pagewalk.model.errors import BadRequest

if TYPE_CHECKING:
    from pagewalk.account.huge import Huge
    from pagewalk.commands.sets import Named
    from pagewalk.render.columns import Choice
    from pagewalk.sources import Source
    from pagewalk.system.processes import Processes


def show_huge(request: Request, *, zeros: bool) -> int:
    """Write how the large folios of the target are mapped; return the exit code.

    With ``zeros`` its memory is read too.
    """
    from pagewalk.render.columns import choose

    choice = choose("huge", request.columns, request.sort, request.limit)
    with opened(request, "huge") as (source, write):
        for _ in rounds(request, write):
            found = look(source, zeros=zeros)
            write(found, picked(found, choice, request), columns=choice.columns)
    return finish(request, found.table.outcome, told=request.format == "text")


def look(source: Source, *, zeros: bool) -> Huge:
    """Return how large folios are mapped, with ``zeros`` what of huge pages contains only zeros."""
    from pagewalk.account.huge import look_at_huge, with_eligible
    from pagewalk.system.huge import read_zeros

    if source.recorded is not None:
        from pagewalk.history.process_documents import huge_of, refused

        if zeros:
            raise refused(source, "the contents of memory", "--zeros reads them, and nothing of"
                          " them is recorded", "ask the process itself, or leave out --zeros")
        return with_eligible(huge_of(source), source)
    found = look_at_huge(source)
    return read_zeros(found, source) if zeros else found


def picked(found: Huge, choice: Choice, request: Request) -> list[int]:
    """Return the VMAs to show: all that may be huge or, on a screen, those with most that is."""
    from pagewalk.account.huge import large, may_be_huge, value
    from pagewalk.render.columns import SHOWN

    rows = may_be_huge(found).tolist()
    if request.format != "text" or choice.sort is not None:
        return choice.rows(rows, partial(value, found))
    amounts = large(found)
    most = sorted(rows, key=lambda row: -int(amounts[row]))
    return most[: choice.limit or SHOWN]


def show_huge_of_each(request: Request, where: Processes, named: Named, *, zeros: bool) -> int:
    """Write how each process of a set maps large folios; return the exit code."""
    from pagewalk.commands.sets import members
    from pagewalk.render import view
    from pagewalk.render.columns import SHOWN, choose
    from pagewalk.system.huge import Row, look_at_huge_of_each

    look = how_to_look(recorded=where.recorded, zeros=zeros)
    choice = choose("huge_of_each", request.columns, request.sort or "pmd", request.limit)
    if request.limit is None and request.format == "text":
        choice = choice._replace(limit=SHOWN)
    with commands.output(request.output) as out:
        write = commands.writer(
            request, view(request.format, "huge_of_each", request.human, request.color), out)
        for _ in rounds(request, write):
            found = look_at_huge_of_each(members(named, where), where, look)
            write(found, choice.rows(found.rows, Row.value), columns=choice.columns)
    return commands.concluded(request, found.looked.tried.withheld)


def how_to_look(*, recorded: bool, zeros: bool) -> Callable[[Source], Huge]:
    """Return what tells how one process of a set maps large folios; raises BadRequest."""
    if not recorded:
        from pagewalk.system.huge import read_huge

        return partial(read_huge, zeros=zeros)
    if zeros:
        raise BadRequest("--zeros reads the contents of memory, and nothing of them is recorded:"
                         " ask the processes themselves, or leave out --zeros")
    from pagewalk.history.process_documents import huge_of

    return huge_of
