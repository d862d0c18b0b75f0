"""Print the manual page, made from the commands' own help: scripts/man.py > docs/man/pagewalk.1"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib.metadata import version

import click

from pagewalk.cli import COMMANDS, cli

FORMATS = """\
text (KiB, for people), json (exact bytes), csv, and log: the lines that the kernel module
printed which pagewalk descends from. Not every command has every format."""
ENVIRONMENT = """\
NO_COLOR switches colours off, FORCE_COLOR switches them on, in a pipe too; otherwise they are
used on a terminal only, and not if TERM is dumb. COLUMNS gives the width of a table in a file or a
pipe."""
SEE_ALSO = "pmap(1), proc(5), madvise(2), mincore(2)"


def page() -> Iterator[str]:
    context = click.Context(cli, info_name="pagewalk")
    yield f'.TH PAGEWALK 1 "" "pagewalk {version("pagewalk")}" "User Commands"'
    yield from (".SH NAME", r"pagewalk \- where a Linux process's memory lives, page by page")
    yield ".SH SYNOPSIS"
    yield from (".B pagewalk", ".RI [ TARGET ]", ".br")
    for name in COMMANDS:
        command = cli.get_command(context, name)
        pieces = command.collect_usage_pieces(context) if command else []
        yield from (f".B pagewalk {name}", escape(" ".join(pieces)), ".br")
    yield from (".SH DESCRIPTION", *paragraphs(cli.help))
    yield ".SH COMMANDS"
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        yield from (f".SS {name}", *paragraphs(command.help), *options(command, context))
    for title, text in (("FORMATS", FORMATS), ("ENVIRONMENT", ENVIRONMENT)):
        yield from (f".SH {title}", escape(text))
    yield from (".SH EXIT STATUS", *paragraphs(cli.epilog), ".SH SEE ALSO", SEE_ALSO)


def paragraphs(text: str | None) -> Iterator[str]:
    """Yield roff for help text; click keeps the lines of a paragraph that starts with \\b."""
    for paragraph in inspect.cleandoc(text or "").split("\n\n"):
        kept = paragraph.startswith("\b")
        yield ".PP"
        yield from (".nf", ".RS 4") if kept else ()
        yield escape(paragraph.removeprefix("\b").strip("\n"))
        yield from (".RE", ".fi") if kept else ()


def options(command: click.Command, context: click.Context) -> Iterator[str]:
    for option in command.params:
        record = option.get_help_record(context)
        if record and isinstance(option, click.Option):
            names, text = record
            yield from (".TP", rf"\fB{escape(names)}\fR", escape(text))


def escape(text: str) -> str:
    """Return ``text`` with roff's special characters escaped."""
    plain = text.replace("\\", r"\e").replace("-", r"\-")
    lines = (rf"\&{line}" if line.startswith((".", "'")) else line for line in plain.split("\n"))
    return "\n".join(lines)


if __name__ == "__main__":
    print("\n".join(page()))
