"""pagewalk check: two sources walk the same process; every difference, page by page."""

from __future__ import annotations

import click

from pagewalk.commands import DIFFERENCE, Request, note, opened, output, target_options


@click.command("check")
@target_options("text", "json")
@click.option("--against", default="procfs", show_default=True, metavar="SOURCE",
              help="The second source.")
def command(against: str, **options: object) -> int:
    """Walk TARGET by two sources and show every page and every amount on which they differ.

    What differs is walked again a few times: on a running process a page may change between the
    two walks. Exit code 4 when a difference stays. --freeze makes every difference a real one.

    \b
    pagewalk check $$ --freeze
    pagewalk check $$ --source ebpf --against procfs
    pagewalk check $$ --format json
    """
    from pagewalk.check import check
    from pagewalk.render import view
    from pagewalk.sources import open_source

    request = Request(**options)  # type: ignore[arg-type]
    write = view(request.format, "check")
    with opened(request) as source, output(request.output) as out:
        second = open_source(against, source.target, source.stall.budget_ns)
        try:
            report = check(source, second)
        finally:
            second.close()
        write(report, out)
    if source.name == against:
        note(request, f"both walks were by {against}: give another source by --source")
    return DIFFERENCE if report.differences else 0
