"""More of pagewalk maps: huge pages and other large folios as they are mapped."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pagewalk.commands import finish, opened, rounds
from pagewalk.commands.options import Request

if TYPE_CHECKING:
    from pagewalk.account.huge import Huge
    from pagewalk.render.columns import Choice
    from pagewalk.sources import Source


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
    from pagewalk.account.huge import look_at_huge

    found = look_at_huge(source)
    return read_zeros(found, source) if zeros else found


def read_zeros(found: Huge, source: Source) -> Huge:
    """Read the anonymous huge pages of ``found``; what is withheld says so if that is refused."""
    from pagewalk.account.zeros import with_zeros
    from pagewalk.heap.locate import memory_file
    from pagewalk.heap.memory import live
    from pagewalk.model.columns import Withheld
    from pagewalk.model.errors import NotPermitted

    try:
        with memory_file(source) as fd:
            return with_zeros(found, source, live(fd))
    except NotPermitted as error:
        found.table.outcome.withheld.append(Withheld("zeros", str(error), partial=True))
        return found


def picked(found: Huge, choice: Choice, request: Request) -> list[int]:
    """Return the VMAs to show: all that may be huge or, on a screen, those with most that is."""
    from pagewalk.account.huge import large, may_be_huge, value
    from pagewalk.render.huge_table import SHOWN

    rows = may_be_huge(found).tolist()
    if request.format != "text" or choice.sort is not None:
        return choice.rows(rows, partial(value, found))
    amounts = large(found)
    most = sorted(rows, key=lambda row: -int(amounts[row]))
    return most[: choice.limit or SHOWN]
