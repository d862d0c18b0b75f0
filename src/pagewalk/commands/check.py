"""pagewalk check: two sources walk the same process; every difference, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pagewalk.commands import DIFFERENCE, Request, opened, output, target_options

if TYPE_CHECKING:
    from pagewalk.sources import Source


@click.command("check")
@target_options("text", "json")
@click.option("--against", default="procfs", show_default=True, metavar="SOURCE",
              help="The second source.")
def command(against: str, **options: object) -> int:
    """Walk TARGET by two sources and show every page and every amount on which they differ.

    Whatever differs is checked again, up to 20 times: the first source before the second and after
    it. A difference is shown if it was there each time and the first source held still; what moved
    in the meantime is only counted. Exit code 4 when a difference stays. With --freeze the target
    cannot change between the two walks, so a difference that stays is a real one.

    \b
    pagewalk check $$ --freeze
    pagewalk check $$ --source ebpf --against procfs
    pagewalk check $$ --format json
    """
    from pagewalk.check import check
    from pagewalk.errors import BadRequest
    from pagewalk.render import view

    request = Request(**options)  # type: ignore[arg-type]
    write = view(request.format, "check")
    if request.source == against:
        raise BadRequest(
            f"--source and --against are both {against}, and a source always agrees with itself;"
            " give two different ones"
        )
    with opened(request) as source, output(request.output) as out:
        other = open_other(source, against)
        first, second = (source, other) if other.name == against else (other, source)
        try:
            report = check(first, second)
        finally:
            other.close()
        write(report, out)
    return DIFFERENCE if report.differences else 0


def open_other(source: Source, against: str) -> Source:
    """Return source ``against``, or the next best one if auto chose ``against`` for ``source``."""
    from pagewalk.errors import BadRequest, NotPermitted, SourceUnavailable, Unsupported
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
