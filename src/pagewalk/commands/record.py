"""pagewalk record: what processes hold, in a file that answers as they did."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from pagewalk import commands
from pagewalk.commands import armed
from pagewalk.commands.armed import Arming, arming_options
from pagewalk.commands.options import Duration, Request, budget_option, source_option
from pagewalk.commands.sets import Named, members, naming_options
from pagewalk.model.errors import BadRequest, BadTarget

if TYPE_CHECKING:
    from pagewalk.history.record import Made
    from pagewalk.proc.chosen import Chosen


@click.command("record", short_help="Record into a file that answers as processes and RAM did.")
@naming_options
@click.option("--ram", is_flag=True,
              help="All of RAM and of all cgroups: for ram FILE and cgroups FILE.")
@click.option("--machine", is_flag=True, help="The same as --ram --all.")
@arming_options
@source_option("ebpf, kcore, drgn or procfs")
@budget_option
@click.option("--output", "-o", metavar="FILE", required=True,
              help="Record into FILE (mode 0600, replaced only when complete); with --every into"
              " the directory FILE. It may be in an object store: s3://BUCKET/PATH. With --armed"
              " into the directory FILE on a disk.")
@click.option("--every", metavar="TIME", type=Duration(),
              help="Record again and again, such as every 10s, each time into a file of its own.")
@click.option("--for", "lasting", metavar="TIME", type=Duration(),
              help="With --every: for so long, such as 1h; without it, until Ctrl-C.")
@click.option("--physical", is_flag=True,
              help="Keep physical addresses; without it, frames are numbered anew.")
@click.option("--scrub", is_flag=True,
              help="Leave out paths, command lines, and names of files, cgroups, containers and"
                   " users. The host, comm, pids and uids stay.")
@click.option("--smaps", is_flag=True,
              help="The kernel's smaps too, for explain; reading it holds the lock of TARGETS.")
@click.option("--heap", is_flag=True,
              help="What their allocators hold too, for heap; their memory is read for that.")
@click.option("--cache", is_flag=True,
              help="What is in RAM of the files that they map too, for maps --cache.")
@click.option("--swap-users", is_flag=True,
              help="Who uses their swap slots too, for maps --all; every process that uses swap is"
              " walked.")
@click.option("--freeze", is_flag=True,
              help="Stop each of TARGETS (SIGSTOP) while it is recorded, then resume it.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing.")
def command(
    source: str, budget: float, output: str, every: float | None, lasting: float | None,
    quiet: bool, ram: bool, machine: bool, **options: Any,
) -> int:
    """Record TARGETS into FILE. Every command that takes a process takes FILE in its place, on any
    machine and without root; of several processes, FILE:PID or FILE:NAME. So do share, top,
    processes and overview.

    With --cgroup also what the cgroup is charged for: explain FILE. With --ram all of RAM and all
    cgroups: ram FILE, cgroups FILE. FILE is Parquet, with a documented schema; only its owner can
    read it.

    \b
    pagewalk record $$ -o shell.pagewalk
    pagewalk record --tree $$ -o tree.pagewalk
    pagewalk record $$ --every 100ms --for 200ms -o series
    pagewalk record --ram -o ram.pagewalk
    """
    from pagewalk.history.record import Extras, record
    from pagewalk.history.record_space import How
    from pagewalk.proc.freeze import terminating

    asked = Arming(*(options.pop(name) for name in Arming._fields))
    named = Named(*(options.pop(name) for name in Named._fields))
    if machine:
        named, ram = named._replace(everyone=True), True
    if options["scrub"] and options["cache"]:
        raise BadRequest("--cache is about files, whose paths --scrub leaves out: use one or the"
                         " other")
    if not output:
        raise BadRequest("cannot record into '': the name is empty; name a file with -o FILE")
    request = Request(source=source, format="text", output=output, quiet=quiet, budget=budget)
    how = How(source, request.budget_ns, **options)
    if asked.armed is not None:
        check_alone(named, every, lasting, ram=ram, freeze=how.freeze)
        return armed.run(request, asked, how)
    armed.check_unarmed(asked)
    check_times(every, lasting)
    if every is not None:
        check_directory(output)

    def make(path: str) -> Made:
        groups = tuple(path_of(word) for word in named.cgroup)
        said = words_of(named, ram=ram, scrub=how.scrub)
        return record(path, chosen(named, ram=ram), said, how, extras=Extras(groups, ram))

    with commands.put_back(), terminating():
        if every is not None:
            return series(request, every, lasting, make)
        return told(request, make(output))


def check_times(every: float | None, lasting: float | None) -> None:
    """Raise BadRequest for --for without --every."""
    if lasting is not None and every is None:
        raise BadRequest("--for is how long --every goes on: add --every, such as --every 10s")


def check_directory(path: str) -> None:
    """Raise BadRequest where no directory of a series can be."""
    from pagewalk.model.errors import in_a_line
    from pagewalk.snapshot.places import is_url

    if path == "-":
        raise BadRequest("--every writes several recordings: -o must be a directory, not standard"
                         " output")
    if not is_url(path) and os.path.exists(path) and not os.path.isdir(path):
        raise BadRequest("--every writes several recordings: -o must be a directory, and"
                         f" {in_a_line(path)} is a file")


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


def check_alone(
    named: Named, every: float | None, lasting: float | None, *, ram: bool, freeze: bool
) -> None:
    """Raise BadRequest for what --armed does in its own way."""
    if any(named):
        raise BadRequest("--armed records the processes of its CGROUP: leave out all others")
    if every is not None:
        raise BadRequest("--armed records when something happens: leave out --every")
    if lasting is not None:
        raise BadRequest("--armed waits until its cgroup is removed: leave out --for, and end it"
                         " with SIGTERM, as timeout(1) does")
    if ram:
        raise BadRequest("--armed has no time to look at all of RAM: leave out --ram and --machine,"
                         " and record them with --every")
    if freeze:
        raise BadRequest("--armed stops no process: leave out --freeze; on cgroup v1 --hold keeps"
                         " them waiting at the limit")


def told(request: Request, made: Made) -> int:
    """Print what was recorded; return the exit code."""
    from pagewalk.model.columns import partial
    from pagewalk.render.amounts import human
    from pagewalk.render.terminal import harmless
    from pagewalk.snapshot.places import shown

    what, held = [*made.extras], ""
    if made.processes or not what:
        many = f"{made.processes} processes" if made.processes != 1 else "1 process"
        what.append(f"{many} with {human(made.present)} in RAM")
        held = f"; no lock was held{longest(made.stall_ns)}"
        if made.stopped_ns is not None:
            held += f", no process was stopped{longest(made.stopped_ns)}"
    if not request.quiet:
        click.echo(harmless(f"{shown(made.path)}: {', '.join(what)}, recorded in"
                            f" {made.took_ns / 1e9:.2f} s into {human(made.size)}{held}"))
    reasons = [*grouped(made.not_looked), *partial(made.withheld)]
    return commands.incomplete(request, reasons, told=False)


def grouped(not_looked: Iterable[tuple[int, str]]) -> list[str]:
    """Return which processes were not recorded; reasons that differ in their pid only are one."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for pid, why in not_looked:
        groups.setdefault(re.sub(rf"\b{pid}\b", "", why), []).append((pid, why))
    return [f"process {rows[0][0]} was not recorded: {rows[0][1]}" if len(rows) == 1 else
            f"{len(rows)} processes were not recorded, such as process {rows[0][0]}: {rows[0][1]}"
            for rows in groups.values()]


def longest(nanoseconds: int) -> str:
    """Return for how long something was at most, as the end of a sentence; nothing of none."""
    from pagewalk.render.amounts import brief

    return f" for longer than {brief(nanoseconds)}" if nanoseconds else ""


def path_of(word: str) -> str:
    """Return the path of the cgroup called ``word``; raises BadTarget."""
    from pagewalk.commands.groups import meant_group

    found = meant_group(word, always=True)
    assert found is not None
    return found[0]


def chosen(named: Named, *, ram: bool) -> list[Chosen]:
    """Return the processes to be recorded: none for --ram alone, or for a cgroup without any."""
    if ram and not any(named):
        return []
    try:
        return members(named)
    except BadTarget:
        if named.cgroup and not any(named._replace(cgroup=())):
            return []
        raise


def words_of(named: Named, *, ram: bool, scrub: bool) -> str:
    """Return what was asked for, in words; without names to ``scrub``."""
    def word(one: str) -> str:
        return "..." if scrub and not one.isdecimal() else one

    said = [*map(word, named.targets), *(f"--tree {word(one)}" for one in named.tree),
            *(f"--cgroup {word(one)}" for one in named.cgroup),
            *(f"--user {word(one)}" for one in named.user),
            *(["--all"] if named.everyone else []),
            *(["--ram"] if ram else [])]
    return " ".join(said)
