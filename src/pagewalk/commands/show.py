"""pagewalk show: one screen for a process."""

from __future__ import annotations

import click

from pagewalk.commands import Request, finish, opened, output, target_options


@click.command("show")
@target_options("text", "json", "csv", "log")
@click.option("--counts", is_flag=True,
              help="Count only: no frames, so no PSS, USS or kinds; a third of the time.")
def command(counts: bool, **options: object) -> int:
    """Show where TARGET's memory lives, on one screen: totals, biggest VMAs, short ledger.

    TARGET is a pid or a name that one process has. This is what `pagewalk TARGET` does.

    \b
    pagewalk show $$
    pagewalk show $$ --format json
    pagewalk show $$ --counts
    """
    from pagewalk.account import by_vma
    from pagewalk.lazyfree import with_lazyfree
    from pagewalk.ledger import SHORT, ledger
    from pagewalk.proc.counters import read_theirs
    from pagewalk.render import view
    from pagewalk.walking import walk

    request = Request(**options)  # type: ignore[arg-type]
    # The module's log is made of the pages themselves.
    write = view(request.format, "pages" if request.format == "log" else "show")
    with opened(request) as source, output(request.output) as out:
        if request.format == "log":
            walked = walk(source, holes=True)
            write(walked.batches, walked.vmas, out)
            return finish(request, walked.outcome)
        before = read_theirs(source.target, source.stall)
        table = with_lazyfree(by_vma(walk(source, frames=not counts)), source)
        theirs = read_theirs(source.target, source.stall)
        lines = [line for line in ledger(table, theirs, before) if line.against in SHORT]
        if not counts and None in table.totals.values():
            from pagewalk.rollup import ask_rollup  # root's screen does not wait for its import

            table = ask_rollup(table, source)
        write(table, lines, out)
    return finish(request, table.outcome, told=request.format == "text")
