"""pagewalk record: what processes hold, in a file that answers like they did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pagewalk import commands
from pagewalk.commands.options import Request, budget_option, source_option
from pagewalk.commands.sets import Named, members, naming_options

if TYPE_CHECKING:
    from pagewalk.history.record import Made


@click.command("record", short_help="Record processes into a file that answers like they did.")
@naming_options
@source_option("ebpf, kcore, drgn or procfs")
@budget_option
@click.option("--output", "-o", metavar="FILE", required=True,
              help="Record into FILE (mode 0600, replaced only when complete).")
@click.option("--physical", is_flag=True,
              help="Keep physical addresses; without it, frames are numbered anew.")
@click.option("--scrub", is_flag=True, help="Leave out paths, command lines and cgroups.")
@click.option("--smaps", is_flag=True,
              help="The kernel's smaps too, for explain; reading it holds the lock of TARGETS.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing.")
def command(
    source: str, budget: float, output: str, physical: bool, scrub: bool, smaps: bool, quiet: bool,
    **options: Any,
) -> int:
    """Record TARGETS into FILE. Every command that takes a process takes FILE in its place, on any
    machine and without root; of several processes, FILE:PID or FILE:NAME.

    FILE is Parquet, with a documented schema; only its owner can read it.

    \b
    pagewalk record $$ -o shell.pagewalk
    pagewalk record --tree $$ -o tree.pagewalk
    """
    from pagewalk.history.record import How, record

    named = Named(*(options.pop(name) for name in Named._fields))
    request = Request(source=source, format="text", output=output, quiet=quiet, budget=budget)
    how = How(source, request.budget_ns, physical, scrub, smaps)
    with commands.put_back():
        made = record(output, members(named), words_of(named), how)
    return told(request, made)


def told(request: Request, made: Made) -> int:
    """Print what was recorded; return the exit code."""
    from pagewalk.model.columns import partial
    from pagewalk.render.amounts import human
    from pagewalk.render.terminal import harmless

    many = f"{made.processes} processes" if made.processes != 1 else "1 process"
    if not request.quiet:
        click.echo(harmless(f"{made.path}: {many}, {human(made.present)} in RAM, recorded in"
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
