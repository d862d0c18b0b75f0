"""pagewalk vtop: one address, level by level."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pagewalk.commands import DIFFERENCE, PARTIAL, Request, note, opened, output, target_options

if TYPE_CHECKING:
    from pagewalk.errors import SourceUnavailable
    from pagewalk.sources import Source
    from pagewalk.vtop import Translation


@click.command("vtop")
@target_options("text", "json")
@click.argument("address")
@click.option("--legend", is_flag=True, help="Also say what each bit means that is set.")
def command(address: str, legend: bool, **options: object) -> int:
    """Translate ADDRESS of TARGET: the entry at every level, raw and in words, to the page.

    ADDRESS is hexadecimal, or the name of a VMA: heap, stack, vdso, a path or its last part.
    NAME+N counts from its first byte, as backtraces do, NAME-N back from its end; N is
    hexadecimal. Reads the real page tables (source ebpf or kcore), twice, and asks pagemap for a
    second opinion: exit code 4 when that differs.

    \b
    pagewalk vtop $$ stack-8
    pagewalk vtop $$ heap+0x1000
    pagewalk vtop $$ libc.so.6+0x2000
    pagewalk vtop $$ stack-8 --legend
    pagewalk vtop $$ heap --format json
    """
    from pagewalk.render import view
    from pagewalk.translate import translate

    request = Request(**options)  # type: ignore[arg-type]
    write = view(request.format, "vtop")
    with opened(request) as source, output(request.output) as out:
        if source.page_tables is None:
            raise refusal(source, address)
        found = translate(source, address)
        write(found, out, legend=legend)
    return verdict(request, found)


def verdict(request: Request, found: Translation) -> int:
    """Say what is wrong with ``found``, if anything, and return the exit code it means."""
    if found.pagemap.agrees is False:
        note(request, f"pagemap differs: {found.pagemap.why}")
        return DIFFERENCE
    if found.trace.last.doubt is not None or not found.stable:
        note(request, "partial: the entries changed while they were read, or are broken")
        return PARTIAL
    return 0


def refusal(source: Source, asked: str) -> SourceUnavailable:
    """Return why ``source`` cannot translate, with what it does tell of the address."""
    from pagewalk.address import locate
    from pagewalk.errors import SourceUnavailable
    from pagewalk.vtop import spell_pagemap

    why = "vtop follows page tables, and it shows none"
    if source.pagemap is not None:
        addr = locate(asked, source.vmas())
        says = spell_pagemap(source.pagemap.word(addr))
        why += f"; of {addr:#x} pagemap says {says}"
    return SourceUnavailable(
        source.name, why, "use --source ebpf or kcore (pagewalk doctor says what they need)"
    )
