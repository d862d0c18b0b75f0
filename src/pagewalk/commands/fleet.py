"""pagewalk fleet: reports on the recordings of many hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pagewalk import commands
from pagewalk.commands.options import Request, format_option, memory_option, output_options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pagewalk.history.fleet import Fleet
    from pagewalk.history.sql import Answer
    from pagewalk.history.statements import Statement

NAMES = ("programs", "mappings", "libraries", "limits", "growth", "outliers", "hosts")
LISTED = 3  # recordings that cannot be read, or hosts
# What a report does not tell of processes whose frames were hidden.
WITHOUT = {
    "programs": "what their programs use, share and have alone",
    "mappings": "what is used and shared of what they map",
    "libraries": "copies of libraries in RAM on these hosts",
    "outliers": "what their programs have alone",
}


@click.command("fleet", short_help="Many hosts: programs, libraries, limits, growth, outliers.")
@click.argument("report", type=click.Choice(NAMES), metavar="REPORT")
@click.argument("dataset", metavar="DATASET")
@click.option("--engine", metavar="ENGINE", default="duckdb", show_default=True,
              help="What runs the report: duckdb, here, or a Spark cluster that is there already,"
              " spark://HOST:PORT or sc://HOST.")
@format_option("text", "csv", "json")
@click.option("--limit", "-n", metavar="N", type=click.IntRange(1), help="Only the first N rows.")
@click.option("--human/--bytes", "-H/", default=None,
              help="Amounts in K, M and G, or in bytes (default: K, M and G in text).")
@memory_option
@output_options
def command(
    report: str, dataset: str, engine: str, limit: int | None, human: bool | None, memory: int,
    **options: Any,
) -> int:
    """Report on DATASET, a directory (or s3://BUCKET/PREFIX) into which many hosts record:
    programs, mappings, libraries, limits, growth, outliers or hosts.

    Each report is a file of SQL, which DuckDB and Spark run unchanged. A recording that cannot be
    read is left out, and named on stderr.

    \b
    pagewalk fleet programs series
    pagewalk fleet hosts series --format json
    """
    from pagewalk.history.fleet import OF_FRAMES, asking, hidden, look_at_fleet
    from pagewalk.history.statements import report as named
    from pagewalk.proc.freeze import terminating

    request = Request(source="", human=human, **options)
    statement = named(report)
    with commands.put_back(), terminating():
        fleet = look_at_fleet(dataset)
        missing = left_out(fleet)
        with asking(fleet, dataset, engine, memory) as ask:
            dark = hidden(ask) if report in OF_FRAMES else {}
            missing += [*refused_by(report, fleet), *dark_hosts(report, dark)]
            write(request, statement, fleet, ask(statement.sql), limit, missing)
    return commands.incomplete(request, missing, told=request.format == "json")


def write(
    request: Request, statement: Statement, fleet: Fleet, answer: Answer, limit: int | None,
    missing: list[str],
) -> None:
    """Write the answer, with what it comes to in front."""
    from pagewalk.render import answer as written
    from pagewalk.render.columns import SHOWN
    from pagewalk.render.terminal import printable

    with commands.output(request.output) as out:
        found = answer.first(limit)
        if request.format == "csv":
            written.csv(found.columns, found.rows, out)
        elif request.format == "json":
            written.as_json(found.columns, found.rows, out, about={
                "report": statement.name, "hosts": len(fleet.hosts),
                "recordings": len(fleet.recordings), "late": fleet.late,
                "partial": missing})
        else:
            rows = list(answer.rows)
            lines = heading(statement, fleet, [dict(zip(answer.columns, row, strict=True))
                                               for row in rows])
            out.writelines(f"{printable(line)}\n" for line in lines)
            shown = rows[: SHOWN if limit is None else limit]
            written.text(answer.columns, shown, out, in_units=request.human is not False)
            if len(shown) < len(rows):
                out.write(f"... and {len(rows) - len(shown)} more: --limit N shows them\n")


def heading(statement: Statement, fleet: Fleet, rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines above the table: what it comes to, of what, and who has not reported."""
    from textwrap import wrap

    from pagewalk.render.amounts import many
    from pagewalk.render.answer import iso
    from pagewalk.render.fleet_words import answer

    hosts = fleet.hosts
    texts = [f"{answer(statement.name, rows)} {many(len(fleet.recordings), 'recording')} of"
             f" {many(len(hosts), 'host')}, the newest of {iso(max(hosts.values()))}."]
    if fleet.late:
        few = ", ".join(fleet.late[:5]) + ", ..." * (len(fleet.late) > 5)
        texts.append(f"{many(len(fleet.late), 'host')} recorded nothing in the last hour before"
                     f" that: {few}.")
    texts += ["", f"{statement.title} {statement.more}".rstrip()]
    return [line for text in texts for line in wrap(text, 80) or [""]] + [""]


def left_out(fleet: Fleet) -> list[str]:
    """Return which recordings could not be read, the first few of them."""
    if not fleet.damaged:
        return []
    more = f", and {len(fleet.damaged) - LISTED} more" * (len(fleet.damaged) > LISTED)
    return [f"left out: {'; '.join(fleet.damaged[:LISTED])}{more}"]


def refused_by(report: str, fleet: Fleet) -> list[str]:
    """Return on which hosts processes could not be recorded, if that matters to a report."""
    from pagewalk.render.amounts import many

    refused = fleet.refused
    if not refused or report == "limits":
        return []
    processes = many(sum(refused.values()), "process", "es")
    return [f"some processes: {processes} on {many(len(refused), 'host')} ({few(refused)}) could"
            " not be recorded"]


def few(names: Iterable[str]) -> str:
    """Return the first LISTED of ``names``."""
    every = list(names)
    return ", ".join(every[:LISTED]) + ", ..." * (len(every) > LISTED)


def dark_hosts(report: str, dark: dict[str, int]) -> list[str]:
    """Return which hosts hid the frames of processes, and what that withholds."""
    from pagewalk.render.amounts import many

    if not dark:
        return []
    processes, hosts = many(sum(dark.values()), "process", "es"), many(len(dark), "host")
    return [f"{WITHOUT[report]}: the frames of {processes} on {hosts} ({few(dark)}) were not"
            " visible to the user who recorded them; record as root"]
