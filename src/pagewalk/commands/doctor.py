"""pagewalk doctor: what this kernel and your privileges allow."""

from __future__ import annotations

import click

from pagewalk import commands
from pagewalk.commands.options import format_option, output_options, table_options


@click.command("doctor", short_help="What this kernel and your privileges allow.")
@format_option("text", "json")
@table_options
@output_options
def command(format: str, output: str | None, color: str, **options: object) -> int:
    """Show what this kernel and your privileges allow, and how to get the rest.

    \b
    pagewalk doctor
    pagewalk doctor --columns ok,remedy
    pagewalk doctor --format json
    """
    from pagewalk.render import view
    from pagewalk.render.columns import choose
    from pagewalk.sources.doctor import checks, machine

    asked = {name: options[name] for name in ("columns", "sort", "limit")}
    choice = choose("doctor", **asked)  # type: ignore[arg-type]
    with commands.output(output) as out:
        write = view(format, "doctor", color=color)
        write(choice.rows(checks()), machine(), out, columns=choice.columns)
    return 0
