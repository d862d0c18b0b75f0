"""pagewalk record: what processes hold, in a file that answers like they did."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from pagewalk import commands
from pagewalk.commands.options import Duration, Request, budget_option, source_option
from pagewalk.commands.sets import Named, members, naming_options
from pagewalk.model.errors import BadRequest

if TYPE_CHECKING:
    from pagewalk.history.record import Made


@click.command("record", short_help="Record processes into a file that answers like they did.")
@naming_options
@source_option("ebpf, kcore, drgn or procfs")
@budget_option
@click.option("--output", "-o", metavar="FILE", required=True,
              help="Record into FILE (mode 0600, replaced only when complete); with --every into"
              " the directory FILE. It may be in an object store: s3://BUCKET/PATH.")
@click.option("--every", metavar="TIME", type=Duration(),
              help="Record again and again, such as every 10s, each time into a file of its own.")
@click.option("--for", "lasting", metavar="TIME", type=Duration(),
              help="With --every: for so long, such as 1h; without it, until Ctrl-C.")
@click.option("--physical", is_flag=True,
              help="Keep physical addresses; without it, frames are numbered anew.")
@click.option("--scrub", is_flag=True, help="Leave out paths, command lines and cgroups.")
@click.option("--smaps", is_flag=True,
              help="The kernel's smaps too, for explain; reading it holds the lock of TARGETS.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing.")
def command(
    source: str, budget: float, output: str, every: float | None, lasting: float | None,
    physical: bool, scrub: bool, smaps: bool, quiet: bool, **options: Any,
) -> int:
    """Record TARGETS into FILE. Every command that takes a process takes FILE in its place, on any
    machine and without root; of several processes, FILE:PID or FILE:NAME.

    FILE is Parquet, with a documented schema; only its owner can read it.

    \b
    pagewalk record $$ -o shell.pagewalk
    pagewalk record --tree $$ -o tree.pagewalk
    pagewalk record $$ --every 100ms --for 200ms -o series
    """
    from pagewalk.history.record import How, record
    from pagewalk.proc.freeze import terminating

    named = Named(*(options.pop(name) for name in Named._fields))
    request = Request(source=source, format="text", output=output, quiet=quiet, budget=budget)
    how = How(source, request.budget_ns, physical, scrub, smaps)
    check_times(every, lasting)

    def make(path: str) -> Made:
        return record(path, members(named), words_of(named), how)

    with commands.put_back(), terminating():
        if every is not None:
            return series(request, every, lasting, make)
        return told(request, make(output))


def check_times(every: float | None, lasting: float | None) -> None:
    """Raise BadRequest for --for without --every."""
    if lasting is not None and every is None:
        raise BadRequest("--for is how long --every goes on: add --every, such as --every 10s")


def series(
    request: Request, every: float, lasting: float | None, make: Callable[[str], Made]
) -> int:
    """Record again and again, print each and what became of all; return the exit code."""
    from pagewalk.history.series import record_series
    from pagewalk.render.amounts import human
    from pagewalk.render.terminal import harmless
    from pagewalk.snapshot.places import shown

    codes: set[int] = set()
    assert request.output is not None
    found = record_series(request.output, every, lasting, make,
                          lambda made: codes.add(told(request, made)))
    if not request.quiet:
        many = f"{found.made} recordings" if found.made != 1 else "1 recording"
        missed = f"; {found.missed} were due while another was being made" * bool(found.missed)
        click.echo(harmless(f"{shown(found.root)}: {many}, {human(found.size)}{missed};"
                            f" {found.why}"))
    return max(codes)


def told(request: Request, made: Made) -> int:
    """Print what was recorded; return the exit code."""
    from pagewalk.model.columns import partial
    from pagewalk.render.amounts import human
    from pagewalk.render.terminal import harmless
    from pagewalk.snapshot.places import shown

    many = f"{made.processes} processes" if made.processes != 1 else "1 process"
    if not request.quiet:
        click.echo(harmless(f"{shown(made.path)}: {many}, {human(made.present)} in RAM, recorded in"
                            f" {made.took_ns / 1e9:.2f} s into {human(made.size)}; no lock was held"
                            f" for longer than {made.stall_ns / 1e6:.1f} ms"))
    reasons = [f"process {pid} was not recorded: {why}" for pid, why in made.not_looked]
    return commands.incomplete(request, reasons + partial(made.withheld), told=False)


def words_of(named: Named) -> str:
    """Return what was asked for, in words."""
    said = [*named.targets, *(f"--tree {one}" for one in named.tree),
            *(f"--cgroup {one}" for one in named.cgroup), *(f"--user {one}" for one in named.user),
            *(["--all"] if named.everyone else [])]
    return " ".join(said)
