"""pagewalk explain: our numbers against the kernel's, every difference named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from pagewalk.commands import DIFFERENCE, Request, finish, note, opened, output, target_options

if TYPE_CHECKING:
    from pagewalk.account import Table
    from pagewalk.ledger import Line
    from pagewalk.proc.counters import Theirs
    from pagewalk.sources import Source

# How often to look again while something moves: each time smaps holds the target's lock, which
# does not matter to a stopped one.
ROUNDS, ROUNDS_STOPPED = 5, 25


@click.command("explain")
@target_options("text", "json", "csv")
@click.option("--no-smaps", is_flag=True,
              help="Leave out smaps, smaps_rollup and pmap: they hold the target's lock.")
def command(no_smaps: bool, **options: object) -> int:
    """Explain every difference between TARGET's pages and what status, statm, smaps, pmap say.

    Each difference is a list of named causes, in KiB, exact or bounded, and what is left is
    'unexplained'. Exit code 4 when something is. Reading smaps holds the target's lock for a whole
    VMA; how long is printed.

    \b
    pagewalk explain $$
    pagewalk explain $$ --freeze
    pagewalk explain $$ --format json
    """
    from pagewalk.render import view

    request = Request(**options)  # type: ignore[arg-type]
    write = view(request.format, "explain")
    with opened(request) as source, output(request.output) as out:
        table, theirs, lines = min(rounds(source, smaps=not no_smaps), key=lambda r: doubt(r[2]))
        write(table, lines, theirs, out)
    open_lines = [line.against for line in lines if line.unexplained]
    if open_lines:
        note(request, f"unexplained: {', '.join(open_lines)}"
                      + ("" if request.freeze else "; try --freeze, which stops the target"))
    return DIFFERENCE if open_lines else finish(request, table.outcome)


def rounds(source: Source, *, smaps: bool) -> Iterator[tuple[Table, Theirs, list[Line]]]:
    # Other processes come and go, and with them mapcounts, also while the target is stopped: the
    # walk is repeated until nothing moved between the readings before and after it.
    from pagewalk.account import by_vma
    from pagewalk.lazyfree import with_lazyfree
    from pagewalk.ledger import ledger
    from pagewalk.proc.counters import read_theirs
    from pagewalk.walking import walk

    theirs = read_theirs(source.target, source.stall, smaps=smaps)
    for _ in range(ROUNDS_STOPPED if source.target.state() in "Tt" else ROUNDS):
        before = theirs
        table = with_lazyfree(by_vma(walk(source)), source)
        theirs = read_theirs(source.target, source.stall, smaps=smaps)
        lines = ledger(table, theirs, before, source.page_tables())
        yield table, theirs, lines
        if doubt(lines) == (0, 0):
            return


def doubt(lines: list[Line]) -> tuple[int, int]:
    # How many lines are unexplained, and how many causes say that something moved.
    from pagewalk.ledger import MOVED

    causes = [cause.cause for line in lines for cause in line.causes]
    return sum(1 for line in lines if line.unexplained), sum(cause in MOVED for cause in causes)
