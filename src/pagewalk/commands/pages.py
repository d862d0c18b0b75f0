"""pagewalk pages: every page of a process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from pagewalk.commands import Request, finish, opened, output, target_options

if TYPE_CHECKING:
    from pagewalk.pages import U64, Pages, VMAs
    from pagewalk.sources import Source
    from pagewalk.walking import Walk


@click.command("pages")
@target_options("text", "json", "csv", "log")
@click.option("--range", "span", metavar="A-B", help="Only addresses in [A, B), hexadecimal.")
@click.option("--vma", metavar="NAME", help="Only VMAs of that name: a path, its last part, heap.")
@click.option("--where", metavar="EXPR", help="Only pages for which all of EXPR holds: anon,~ksm.")
def command(span: str | None, vma: str | None, where: str | None, **options: object) -> int:
    """Show every page of TARGET: address, physical address, state, mapcount, flags.

    A stretch without pages is one line. EXPR takes states (anon, file, shmem, zero, special,
    hugetlb, swapped, guard, absent, present, not_present ...), kpageflags names (ksm, thp, dirty
    ...), entry flags (pmd, exclusive ...), lazyfree and mapcount>1; a comma means and, ~ means not.

    \b
    pagewalk pages $$ --vma heap
    pagewalk pages $$ --where anon,~exclusive
    pagewalk pages $$ --where 'file,mapcount>1' --format json
    pagewalk pages $$ --format log
    """
    from pagewalk.errors import BadRequest
    from pagewalk.render import view
    from pagewalk.where import check_told, parse_where

    request = Request(**options)  # type: ignore[arg-type]
    test = parse_where(where) if where else None
    if test and request.format == "log":
        raise BadRequest("--format log prints every page; --where is for the other formats")
    write = view(request.format, "pages")
    with opened(request) as source, output(request.output) as out:
        walked = walk_part(source, span, vma)
        if where:
            check_told(where, walked)
        rows = selected(walked, test)
        write(rows, walked, out)
    return finish(request, walked.outcome)


def walk_part(source: Source, span: str | None, vma: str | None) -> Walk[Pages]:
    """Return a walk of ``source`` with holes, of what ``span`` and ``vma`` leave of it."""
    from pagewalk.walking import walk

    vmas = source.vmas()
    ranges = vmas.ranges
    if vma is not None:
        ranges = ranges[named(vmas, vma)]
    if span is not None:
        ranges = within(ranges, span, source.space.facts.page_size)
    return walk(source, holes=True, ranges=ranges)


def selected(walked: Walk[Pages], test: object) -> Iterator[Pages]:
    from pagewalk.pages import take

    for batch in walked:
        rows = take(batch, test(batch)) if callable(test) else batch
        if len(rows):
            yield rows


def named(vmas: VMAs, name: str) -> list[int]:
    """Return the rows of the VMAs called ``name`` (``anon``: those without a name).

    Raises BadRequest when there is none.
    """
    from pagewalk.address import called, listed
    from pagewalk.errors import BadRequest

    nameless = name in ("anon", "[anon]", "")
    rows = [row for row, own in enumerate(vmas.name) if not own] if nameless else []
    rows = rows or called(name, vmas)
    if not rows:
        raise BadRequest(f"--vma: no VMA is called '{name}'; there are: anon, {listed(vmas)}")
    return rows


def within(ranges: U64, span: str, page_size: int) -> U64:
    """Return ``ranges`` cut to ``span``, grown to whole pages; raises BadRequest if empty."""
    import numpy as np

    from pagewalk.errors import BadRequest
    from pagewalk.ranges import intersect

    try:
        low, high = (int(edge, 16) for edge in span.split("-"))
    except ValueError:
        raise BadRequest(f"--range: '{span}' is not A-B with two hexadecimal addresses") from None
    if not 0 <= low < high <= 1 << 64:
        raise BadRequest(f"--range: {span} is empty, or beyond 64 bits; the end is not part of it")
    low, high = low // page_size * page_size, -(-high // page_size) * page_size
    high = min(high, (1 << 64) - page_size)
    pieces, _, _ = intersect(ranges, np.array([[low, high]], np.uint64))
    if len(pieces) == 0:
        raise BadRequest(f"--range: no VMA of the target lies in {low:#x}-{high:#x}; see maps")
    return pieces
