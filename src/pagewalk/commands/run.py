"""pagewalk run: a command with budgets for the memory of its whole tree of processes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from pagewalk import commands
from pagewalk.commands.options import Duration, Request, format_option, output_options, units_option
from pagewalk.model.errors import BadRequest

if TYPE_CHECKING:
    from pagewalk.history.child import Report

BUDGETS = {
    "uss": "what only the tree has in RAM", "pss": "the PSS of its processes, added up",
    "rss": "what it has in RAM, each page once", "swap": "what it has in swap",
}
BY_SIGNAL = 128  # a shell adds the number of a signal to this


def size(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """Return a budget as people write it, 200M, in bytes."""
    from pagewalk.model.sizes import parse_budget

    try:
        return None if value is None else parse_budget(value)
    except BadRequest as error:
        raise click.BadParameter(str(error)) from None


def budget_options(command: Any) -> Any:
    for measure, what in reversed(BUDGETS.items()):
        command = click.option(f"--max-{measure}", metavar="SIZE", callback=size,
                               help=f"A budget for {what}: 200M, 1.5G, 0.")(command)
    return command


@click.command("run", short_help="Run a command with budgets for its memory; for CI.",
               context_settings={"allow_interspersed_args": False})
@click.argument("words", metavar="CMD [ARG]...", nargs=-1, required=True, type=click.UNPROCESSED)
@budget_options
@click.option("--every", default="100ms", metavar="TIME", show_default=True,
              type=Duration(least=0.001, most=3600), help="How often to look at the tree: 2s.")
@click.option("--wait", is_flag=True,
              help="Also wait for processes that CMD leaves running.")
@click.option("--junit", metavar="FILE", help="Also write JUnit XML to FILE.")
@format_option("text", "json")
@units_option
@partial(output_options, quietly="Print no report on stderr if all budgets were kept.")
def command(words: tuple[str, ...], every: float, wait: bool, junit: str | None,
            **options: Any) -> int:
    """Run CMD, and tell what its tree of processes held: exit code 4 if a budget was exceeded.

    The tree is CMD and all that descends from it. It is looked at again and again, so a peak is 'at
    least' what was seen. The report goes to stderr. Otherwise the exit code is that of CMD, 128 and
    the number of the signal that ended it, or 3 if a budget may have been exceeded.

    \b
    pagewalk run -o - -- ls /
    pagewalk run -o - --max-uss 200M --max-swap 0 -- sleep 0.2
    pagewalk run -o - --max-pss 1.5G --format json -- sleep 0.2
    """
    from pagewalk.history.child import run_with_budgets

    budgets = {name: limit for name in BUDGETS
               if (limit := options.pop(f"max_{name}")) is not None}
    request = Request(source="procfs", **options)
    commands.look_for_garbage()
    with ExitStack() as files:  # opened first: a report must not be lost for a wrong path
        out = None if request.output is None else files.enter_context(
            commands.output(request.output))
        xml = None if junit is None else files.enter_context(commands.output(junit))
        report = run_with_budgets(words, budgets, every, wait=wait)
        if out is not None or not request.quiet or report.exceeded or report.unknown:
            to = sys.stderr if out is None else out
            with commands.read_or_not(to):
                writer(request)(report, to)
        if xml is not None:
            from pagewalk.render.junit import junit as write_junit

            write_junit(report, xml)
    return exit_code(report)


def writer(request: Request) -> Callable[..., None]:
    """Return what writes a report. It goes to stderr by default: standard output is the command's.

    Other screens need numpy, which would take longer to import than many a command takes.
    """
    from pagewalk.render import shown, view
    from pagewalk.render.run_table import text

    if request.format == "text":
        return shown(text, "text", request.human, color=request.color)
    return view(request.format, "run", request.human, request.color)


def exit_code(report: Report) -> int:
    """Return 4 for a budget that was exceeded, else the command's own exit code, else 3 or 0."""
    if report.exceeded:
        return commands.DIFFERENCE
    own = report.code if report.signal is None else BY_SIGNAL + report.signal
    return own or (commands.PARTIAL if report.unknown else 0)
