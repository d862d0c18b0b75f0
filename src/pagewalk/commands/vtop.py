"""pagewalk vtop: one address, level by level."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pagewalk.commands import DIFFERENCE, PARTIAL, note, opened
from pagewalk.commands.options import Request, target_options

if TYPE_CHECKING:
    from pagewalk.model.errors import SourceUnavailable
    from pagewalk.sources import Source
    from pagewalk.translate.translation import Translation


@click.command("vtop", short_help="One address through the page tables, level by level.")
@target_options("text", "json")
@click.argument("address")
@click.option("--legend", is_flag=True, help="Explain every bit that is set.")
def command(address: str, legend: bool, **options: object) -> int:
    """Translate ADDRESS of TARGET level by level: each page-table entry, raw and decoded.

    ADDRESS is hexadecimal, or the name of a VMA: heap, stack, vdso, a path or its last component.
    NAME+N counts from its first byte, as backtraces do, and NAME-N back from its end; N is
    hexadecimal. The real page tables are read twice (source ebpf or kcore) and compared with
    pagemap: exit code 4 if it differs.

    \b
    pagewalk vtop $$ stack-8
    pagewalk vtop $$ heap+0x1000
    pagewalk vtop $$ libc.so.6+0x2000
    pagewalk vtop $$ stack-8 --legend
    pagewalk vtop $$ heap --format json
    """
    from pagewalk.translate.translate import translate

    request = Request(**options)  # type: ignore[arg-type]
    with opened(request, "vtop") as (source, write):
        if source.recorded is not None:
            from pagewalk.history.process_documents import refused

            raise refused(source, "the page tables", "a recording keeps what their entries say of"
                          " each page, not the tables", "ask the process itself, or see pagewalk"
                          f" pages {request.target}")
        if source.page_tables is None:
            raise refusal(source, address)
        found = translate(source, address)
        write(found, legend=legend)
    return verdict(request, found)


def verdict(request: Request, found: Translation) -> int:
    """Report what is wrong with ``found``, if anything, and return the exit code."""
    if found.pagemap.agrees is False:
        note(request, f"pagemap differs: {found.pagemap.why}")
        return DIFFERENCE
    if found.trace.last.doubt is not None or not found.stable:
        note(request, "partial: the entries changed while they were read, or are corrupt")
        return PARTIAL
    return 0


def refusal(source: Source, asked: str) -> SourceUnavailable:
    """Return why ``source`` cannot translate, with what it does know about the address."""
    from pagewalk.model.errors import SourceUnavailable
    from pagewalk.translate.address import locate
    from pagewalk.translate.translation import spell_pagemap

    why = "vtop follows page tables, which it does not read"
    if source.pagemap is not None:
        addr = locate(asked, source.vmas())
        says = spell_pagemap(source.pagemap.word(addr))
        why += f"; for {addr:#x} pagemap says {says}"
    return SourceUnavailable(
        source.name, why, "use --source ebpf or kcore (see pagewalk doctor for what they need)"
    )
