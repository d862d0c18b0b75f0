"""pagewalk check: compare two sources on the same process, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pagewalk.commands import DIFFERENCE, opened
from pagewalk.commands.options import Request, choice_of, table_options, target_options

if TYPE_CHECKING:
    from pagewalk.sources import Source


@click.command("check", short_help="Two sources on the same process, compared page by page.")
@target_options("text", "json")
@table_options
@click.option("--against", default="procfs", show_default=True, metavar="SOURCE",
              help="The source to compare with.")
def command(against: str, **options: object) -> int:
    """Walk TARGET with two sources and show every page and every amount on which they differ.

    Whatever differs is checked again, up to 20 times, with the first source read before and after
    the second. A difference is reported only if it appears every time while the first source is
    stable; anything that changed in the meantime is only counted. Exit code 4 if a difference
    remains. With --freeze the target cannot change between the two walks, so any difference that
    remains is real.

    \b
    pagewalk check $$ --freeze
    pagewalk check $$ --source ebpf --against procfs
    pagewalk check $$ --format json
    """
    from dataclasses import replace

    from pagewalk.account.check import check
    from pagewalk.model.errors import BadRequest
    from pagewalk.render.columns import WHOLE

    request = Request(**options)  # type: ignore[arg-type]
    choice = choice_of(request, "check") or WHOLE
    if request.source == against:
        raise BadRequest(
            f"--source and --against are both {against}, and a source always agrees with itself;"
            " name two different sources"
        )
    with opened(request, "check") as (source, write):
        if source.recorded is not None:
            from pagewalk.history.process_documents import refused

            raise refused(source, "a second walk", "check walks a process with two sources, and a"
                          " recording is of one walk", "check the process itself")
        other = open_other(source, against)
        first, second = (source, other) if other.name == against else (other, source)
        try:
            report = check(first, second)
        finally:
            other.close()
        rows = choice.rows(report.differences)
        more = report.more + len(report.differences) - len(rows)
        write(replace(report, differences=rows, more=more), columns=choice.columns,
              pid=source.who.pid)
    return DIFFERENCE if report.differences else 0


def open_other(source: Source, against: str) -> Source:
    """Return source ``against``, or the next best one if auto chose that as ``source``."""
    from pagewalk.model.errors import BadRequest, NotPermitted, SourceUnavailable, Unsupported
    from pagewalk.sources import open_best, open_source

    assert source.live is not None
    target, budget_ns = source.live.target, source.live.stall.budget_ns
    if source.name != against:
        return open_source(against, target, budget_ns)
    try:
        return open_best(target, budget_ns, besides=against)
    except (NotPermitted, SourceUnavailable, Unsupported) as refusal:
        raise BadRequest(
            f"check compares two sources, and only {against} can read this process: {refusal}"
        ) from None
