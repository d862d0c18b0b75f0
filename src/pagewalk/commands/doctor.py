"""pagewalk doctor: what this kernel and your privileges allow."""

from __future__ import annotations

import click

from pagewalk import commands


@click.command("doctor")
@commands.format_option("text", "json")
@commands.output_options
def command(format: str, output: str | None, quiet: bool) -> int:
    """Show what this kernel and your privileges allow, and how to get the rest.

    \b
    pagewalk doctor
    pagewalk doctor --format json
    """
    from pagewalk.render import view
    from pagewalk.sources.doctor import checks, machine

    with commands.output(output) as out:
        view(format, "doctor")(checks(), machine(), out)
    return 0
