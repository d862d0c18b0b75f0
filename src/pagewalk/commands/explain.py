"""pagewalk explain: our numbers against the kernel's, every difference named."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import click

from pagewalk.commands import DIFFERENCE, finish, note, opened, rounds
from pagewalk.commands.options import (
    Request,
    choice_of,
    table_options,
    target_options,
    watch_option,
)

if TYPE_CHECKING:
    from pagewalk.account.ledger import Line
    from pagewalk.account.table import Table
    from pagewalk.proc.counters import Theirs
    from pagewalk.proc.smaps import LastSmaps
    from pagewalk.sources import Source

# How often to look again, and for how long: each look reads smaps once more. Movement that has a
# name is worth little time; what is unexplained is worth more, if the target is stopped and only
# other processes move.
LOOKS, BRIEFLY_S, PATIENTLY_S = 25, 0.3, 3.0
# Readings of the counters around each step. They take no lock and 0.1 ms each; the more there are,
# the better they show by how much a number moves.
READINGS = 3


@click.command("explain", short_help="Why top, status, smaps and pmap say something else.")
@target_options("text", "json", "csv")
@table_options
@watch_option
@click.option("--cgroup", is_flag=True,
              help="Explain a memory cgroup: TARGET's own, or the one that it names.")
@click.option("--no-smaps", is_flag=True,
              help="Do not read smaps, smaps_rollup and pmap, which hold the target's lock.")
def command(no_smaps: bool, cgroup: bool, **options: object) -> int:
    """Explain every difference between TARGET's pages and what status, statm, smaps and pmap say;
    or, if TARGET is a memory cgroup, a unit or a container, what is charged to it. Of a recording,
    FILE is its cgroup if it has one, and FILE:PID a process.

    Each difference, in KiB, is broken down into named causes, exact or bounded; the rest is
    'unexplained', and the exit code is then 4. Reading smaps holds the target's lock for a whole
    VMA; the longest time is printed.

    \b
    pagewalk explain $$
    pagewalk explain $$ --sort difference --limit 5
    pagewalk explain $$ --freeze
    pagewalk explain $$ --format json
    pagewalk explain --cgroup $$
    """
    from pagewalk.commands.armed import armed_recording, explain_armed
    from pagewalk.commands.groups import explain_group, explain_recorded, meant_group
    from pagewalk.model.errors import BadRequest
    from pagewalk.render.columns import WHOLE

    request = Request(**options)  # type: ignore[arg-type]
    choice = choice_of(request, "explain") or WHOLE
    if choice.columns is not None and request.format == "csv":
        raise BadRequest("explain's csv has a row for each cause, with other columns: leave out"
                         " --columns, or use --format json")
    armed = None if cgroup else armed_recording(request.target)
    if armed is not None:
        return explain_armed(request, armed)
    told = explain_recorded(request, choice, value, always=cgroup)
    if told is not None:
        return told
    meant = meant_group(request.target, always=cgroup)
    if meant is not None:
        return explain_group(request, choice, *meant, value)
    with opened(request, "explain") as (source, write):
        for _ in rounds(request, write):
            best = min(looks(source, smaps=not no_smaps), key=lambda look: doubt(look.lines))
            table, theirs, lines = best
            shown = {} if choice.columns is None else {"columns": choice.columns}
            write(table, choice.rows(lines, value), theirs, **shown)
    open_lines = [line.against for line in lines if line.unexplained]
    if open_lines:
        note(request, f"unexplained: {', '.join(open_lines)}"
                      + advice(request.freeze, recorded=source.recorded is not None))
    said = request.format == "text"
    return DIFFERENCE if open_lines else finish(request, table.outcome, told=said)


def advice(freeze: bool, *, recorded: bool) -> str:
    """Return what to do about lines that are unexplained."""
    if recorded:
        return "; record it with --freeze, which stops it meanwhile"
    return "" if freeze else "; try --freeze, which stops the target"


def value(line: Line, column: str) -> int | str | None:
    """Return what lines are sorted by: a difference counts as much below zero as above."""
    found: int | str | None = getattr(line, column)
    return abs(found) if column == "difference" and isinstance(found, int) else found


class Look(NamedTuple):
    # One walk, the kernel's numbers around it, and what stands between the two.
    table: Table
    theirs: Theirs
    lines: list[Line]


def looks(source: Source, *, smaps: bool) -> Iterator[Look]:
    # Other processes come and go, and with them mapcounts, also while the target is stopped: the
    # walk is repeated until nothing moved between the readings before and after it.
    from pagewalk.account.table import table
    from pagewalk.proc.smaps import LastSmaps

    live, tables = source.live, source.space.tells.tables
    began, stopped = time.monotonic(), live is not None and live.target.state() in "Tt"
    files = ("smaps", "smaps_rollup") if smaps else ()
    last = LastSmaps()
    # Whether a VMA moved is shown by two readings around the other's: two walks of ours where the
    # source reads page tables (quicker than smaps, and without a lock), else two readings of smaps.
    earlier = table(source) if tables else None
    first = files[1:] if tables else files
    theirs = source.theirs(*first, last=last)
    for _ in range(LOOKS):
        look = look_at(source, files, theirs, earlier, last)
        yield look
        theirs, earlier = look.theirs, look.table if tables else None
        unexplained, moved = doubt(look.lines)
        patience = PATIENTLY_S if unexplained and stopped else BRIEFLY_S
        if live is None or not (unexplained or moved) or time.monotonic() - began > patience:
            return


def look_at(
    source: Source, files: tuple[str, ...], before: Theirs, earlier: Table | None, last: LastSmaps
) -> Look:
    from pagewalk.account.lazyfree import with_lazyfree
    from pagewalk.account.ledger import ledger
    from pagewalk.account.table import table as walk_table
    from pagewalk.proc.counters import read_pmap

    between: list[Theirs] = []

    def read_counters() -> None:
        between.extend(source.theirs() for _ in range(READINGS))

    def ask() -> Theirs:
        theirs = source.theirs(*files, last=last)
        # pmap takes a pid; that the process is still there afterwards proves it was this one.
        if files and source.live is not None:
            theirs = theirs._replace(pmap=read_pmap(source.who.pid))
        read_counters()
        return theirs

    read_counters()
    theirs = ask() if source.space.tells.tables else None
    table = with_lazyfree(walk_table(source), source)
    read_counters()
    theirs = theirs or ask()
    return Look(table, theirs, ledger(table, theirs, before, tuple(between), earlier))


def doubt(lines: list[Line]) -> tuple[int, int]:
    # How many lines are unexplained, and how many causes say that something moved.
    from pagewalk.account.ledger import MOVED

    causes = [cause.cause for line in lines for cause in line.causes]
    return sum(1 for line in lines if line.unexplained), sum(cause in MOVED for cause in causes)
