"""pagewalk query: SQL over recordings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from pagewalk import commands
from pagewalk.commands.options import Request, format_option, memory_option, output_options
from pagewalk.model.errors import BadRequest

if TYPE_CHECKING:
    from pagewalk.history.sql import Answer, Database
    from pagewalk.snapshot.relation import One

class Asked(NamedTuple):
    """What is asked: a SELECT, and for a question of ours its title; how much of it is shown."""

    sql: str
    title: str = ""
    limit: int | None = None


@click.command("query", short_help="SQL over recordings: views, ready questions, any format.")
@click.argument("words", nargs=-1, metavar="FILE... [SQL]")
@click.option("--list", "listed", is_flag=True, help="List the questions and the views.")
@click.option("--question", metavar="NAME", help="Ask this question of --list instead of SQL.")
@format_option("text", "csv", "json", "parquet")
@click.option("--limit", "-n", metavar="N", type=click.IntRange(1), help="Only the first N rows.")
@click.option("--human", "-H", is_flag=True,
              help="Amounts in K, M and G: columns called as in the views.")
@memory_option
@click.option("--threads", metavar="N", type=click.IntRange(1, 1024),
              help="Threads that work on it (default: one a CPU).")
@output_options
def command(
    words: tuple[str, ...], listed: bool, question: str | None, limit: int | None, memory: int,
    threads: int | None, **options: Any,
) -> int:
    """Answer SQL, one SELECT, from recordings: files of `pagewalk record`, and directories of
    recordings of several times and hosts. It reads nothing else and writes nothing.

    The views are processes, vmas, pages, frames, mapped, sharing, sharers, growth, cgroups, files,
    ram, caches, moments and latest; each row has the host and the time of its recording.

    \b
    pagewalk query --list
    pagewalk query shell.pagewalk "select pid, rss, pss, name from processes"
    pagewalk query shell.pagewalk --question programs
    """
    from pagewalk.render.terminal import harmless

    request = Request(source="", **options)
    if listed:
        if words or question:
            raise BadRequest("--list only lists: leave out the rest")
        with commands.output(request.output) as out:
            out.writelines(f"{harmless(line)}\n" for line in listing())
        return 0
    files, asked = asked_of(words, question, limit)
    if request.format == "parquet" and request.output in (None, "-"):
        raise BadRequest("--format parquet needs a file: name it with --output FILE")
    from pagewalk.history.sql import Database
    from pagewalk.proc.freeze import terminating
    from pagewalk.snapshot.relation import footers

    with commands.put_back(), terminating():
        recordings = footers(files)
        database = Database(recordings, memory, threads, spill=question is not None)
        missing = database.withheld()
        if request.format == "parquet":
            assert request.output is not None
            database.write_parquet(asked.sql, request.output)
        else:
            with commands.output(request.output) as out:
                write(request, out, database, recordings, asked, missing)
    return commands.incomplete(request, missing, told=request.format == "json")


def asked_of(
    words: Sequence[str], question: str | None, limit: int | None
) -> tuple[Sequence[str], Asked]:
    """Return the files, and what is asked of them; raises BadRequest."""
    if question is not None:
        from pagewalk.history.statements import question as named

        found = named(question)
        files, asked = words, Asked(found.sql, found.title, limit)
    else:
        files, asked = words[:-1], Asked(words[-1] if words else "", "", limit)
    if not files:
        missing = "FILE: a recording" if question or not words else "FILE or SQL: both are needed"
        raise BadRequest(f"missing {missing}; pagewalk query FILE \"select * from processes\", or"
                         " pagewalk query --list")
    return files, asked


def write(
    request: Request, out: Any, database: Database, recordings: Sequence[One], asked: Asked,
    missing: list[str],
) -> None:
    """Write the answer as text, CSV or JSON."""
    from pagewalk.render import answer as written
    from pagewalk.render.amounts import STYLE
    from pagewalk.render.terminal import printable

    found = database.ask(asked.sql).first(asked.limit)
    if request.format == "json":
        about = [{"file": one.name, "host": one.meta.host, "time": written.iso(one.micros)}
                 for one in recordings]
        written.as_json(found.columns, found.rows, out,
                        about={"recordings": about, "partial": missing})
        return
    if request.format == "csv":
        written.csv(found.columns, found.rows, out)
        return
    style = STYLE.get()
    token = STYLE.set(style._replace(color=request.color))
    try:
        if asked.title and len(recordings) == 1:
            one = recordings[0]
            out.write(f"{asked.title} {printable(one.meta.host)}, {written.iso(one.micros)}\n\n")
            found = without_place(found)
        elif asked.title:
            out.write(f"{asked.title} {len(recordings)} recordings\n\n")
        written.text(found.columns, found.rows, out, in_units=bool(request.human),
                     none=written.MISSING if missing else written.NULL)
    finally:
        STYLE.reset(token)


def without_place(answer: Answer) -> Answer:
    """Return an answer about one recording without the columns that say which."""
    keep = [at for at, name in enumerate(answer.columns) if name not in ("host", "time")]
    return answer._replace(columns=[answer.columns[at] for at in keep],
                           rows=(tuple(row[at] for at in keep) for row in answer.rows))


def listing() -> Iterator[str]:
    """Yield the lines of --list."""
    from pagewalk.history.statements import questions, views

    wide = max(len(one.name) for one in (*questions(), *views()))
    yield "Questions: pagewalk query FILE... --question NAME"
    yield from (f"  {one.name.ljust(wide)}  {one.title}" for one in questions())
    yield ""
    yield 'Views: pagewalk query FILE... "select ... from NAME"'
    yield from (f"  {one.name.ljust(wide)}  {one.title}" for one in views())
