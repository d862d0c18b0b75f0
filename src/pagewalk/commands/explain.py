"""pagewalk explain: our numbers against the kernel's, every difference named."""

from __future__ import annotations

import click

from pagewalk.commands import DIFFERENCE, Request, finish, note, opened, output, target_options

ROUNDS = 5


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
    from pagewalk.account import by_vma
    from pagewalk.ledger import ledger
    from pagewalk.proc.counters import read_theirs
    from pagewalk.render import view
    from pagewalk.walk import walk

    request = Request(**options)  # type: ignore[arg-type]
    with opened(request) as source, output(request.output) as out:
        theirs = read_theirs(source.target, source.stall, smaps=not no_smaps)
        # Other processes come and go, and with them mapcounts: a round in which nothing moved
        # between the readings before and after the walk needs no bound.
        for _ in range(ROUNDS):
            before = theirs
            table = by_vma(walk(source))
            theirs = read_theirs(source.target, source.stall, smaps=not no_smaps)
            lines = ledger(table, theirs, before)
            if all(cause.exact for line in lines for cause in line.causes) and not any(
                line.unexplained for line in lines
            ):
                break
        view(request.format, "explain")(table, lines, theirs, out)
    open_lines = [line.against for line in lines if line.unexplained]
    if open_lines:
        note(request, f"unexplained: {', '.join(open_lines)}"
                      + ("" if request.freeze else "; try --freeze, which stops the target"))
    return DIFFERENCE if open_lines else finish(request, table.outcome)
