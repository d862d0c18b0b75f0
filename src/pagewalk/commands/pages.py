"""pagewalk pages: every page of a process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from pagewalk.commands import finish, opened
from pagewalk.commands.options import Request, choice_of, table_options, target_options

if TYPE_CHECKING:
    from pagewalk.model.columns import U64, Pages, VMAs
    from pagewalk.render.columns import Choice
    from pagewalk.sources import Source
    from pagewalk.walking.walk import Walk

# Pages of 62 bytes; up to twice as many are held, and once more while they are put in order.
MOST_SORTED = 1_000_000


@click.command("pages", short_help="Every page: address, physical address, state, flags.")
@target_options("text", "json", "csv", "log")
@table_options
@click.option("--range", "span", metavar="A-B", help="Only addresses in [A, B), in hexadecimal.")
@click.option("--vma", metavar="NAME", help="Only VMAs with this name: a path, its last component,"
              " or e.g. heap.")
@click.option("--where", metavar="EXPR", help="Only pages that match every term of EXPR, e.g."
              " anon,~ksm.")
def command(span: str | None, vma: str | None, where: str | None, **options: object) -> int:
    """Show every page of TARGET: address, physical address, state, mapcount, flags.

    A range without pages is one line. The terms of EXPR are states (anon, file, shmem, zero,
    special, hugetlb, swapped, guard, absent, present, not_present ...), kpageflags names (ksm, thp,
    dirty ...), entry flags (pmd, exclusive ...), lazyfree and comparisons such as mapcount>1. A
    comma means and, ~ means not.

    \b
    pagewalk pages $$ --vma heap
    pagewalk pages $$ --where anon,~exclusive
    pagewalk pages $$ --where 'file,mapcount>1' --format json
    pagewalk pages $$ --sort mapcount --limit 20
    pagewalk pages $$ --format log
    """
    from pagewalk.model.errors import BadRequest
    from pagewalk.render.columns import WHOLE
    from pagewalk.walking.where import check_told, parse_where

    request = Request(**options)  # type: ignore[arg-type]
    choice = choice_of(request, "pages") or WHOLE
    check_sorted(choice)
    test = parse_where(where) if where else None
    if test and request.format == "log":
        raise BadRequest("--format log always prints every page; use another format with --where")
    with opened(request, "pages") as (source, write):
        walked = walk_part(source, span, vma)
        if where:
            check_told(where, walked)
        rows = first(selected(walked, test), choice)
        write(rows, walked, **({} if request.format == "log" else {"columns": choice.columns}))
        walked.close()
    code = finish(request, walked.outcome)
    return code if source.recorded is None else max(code, renumbered(request, walked, choice))


def renumbered(request: Request, walked: Walk[Pages], choice: Choice) -> int:
    """Say that a recording does not have the physical addresses asked for; return the exit code.

    No rights took them away, but they are what this command is for.
    """
    from pagewalk.commands import PARTIAL, note
    from pagewalk.sources.recorded import NUMBERED_ANEW

    asked = choice.columns is None or {"phys", "pfn"} & {*choice.columns}
    if not asked or NUMBERED_ANEW not in walked.outcome.withheld:
        return 0
    note(request, f"partial: {NUMBERED_ANEW.what}: {NUMBERED_ANEW.why}; record it with --physical,"
                  " or leave them out with --columns")
    return PARTIAL


def walk_part(source: Source, span: str | None, vma: str | None) -> Walk[Pages]:
    """Return a walk of ``source`` with holes, of what ``span`` and ``vma`` leave of it."""
    from pagewalk.walking.walk import walk

    vmas = source.vmas()
    ranges = vmas.ranges
    if vma is not None:
        ranges = ranges[named(vmas, vma)]
    if span is not None:
        ranges = within(ranges, span, source.space.facts.page_size)
    return walk(source, holes=True, ranges=ranges)


def selected(walked: Walk[Pages], test: object) -> Iterator[Pages]:
    from pagewalk.model.columns import take

    for batch in walked:
        rows = take(batch, test(batch)) if callable(test) else batch
        if len(rows):
            yield rows


def check_sorted(choice: Choice) -> None:
    """Raise BadRequest for an order that would take as much memory as there are pages."""
    from pagewalk.model.errors import BadRequest

    if choice.sort is None:
        return
    if choice.sort.name in ("flags", "swap"):
        raise BadRequest(f"pages cannot be sorted by {choice.sort.name}; select them with --where")
    if choice.limit is None or choice.limit > MOST_SORTED:
        raise BadRequest("--sort keeps the pages in memory, and a process may have hundreds of"
                         f" millions: add --limit N, at most {MOST_SORTED}")


def first(batches: Iterator[Pages], choice: Choice) -> Iterator[Pages]:
    """Yield the first ``choice.limit`` pages in the order asked for; all of them without a limit.

    To sort them, at most twice as many are held, and a batch.
    """
    from pagewalk.model.columns import join, take

    left = choice.limit
    if left is None:
        yield from batches
    elif choice.sort is None:
        for batch in batches:
            yield take(batch, slice(left))
            left -= len(batch)
            if left <= 0:
                return
    else:
        held: list[Pages] = []
        for batch in batches:
            held.append(batch)
            if sum(map(len, held)) >= 2 * left:
                held = [ordered(join(held), choice)]
        if held:
            yield ordered(join(held), choice)


def ordered(rows: Pages, choice: Choice) -> Pages:
    """Return the first ``choice.limit`` of ``rows`` in the order asked for.

    Pages that are not present have no frame and no mapcount; sorted by either, they come last.
    """
    import numpy as np

    from pagewalk.model.columns import State, take
    from pagewalk.model.errors import BadRequest
    from pagewalk.model.rules import IS_PRESENT

    assert choice.sort is not None
    name = choice.sort.name
    values = getattr(rows, "pfn" if name == "phys" else name)
    if values is None:
        raise BadRequest(f"--sort {name}: page frames are withheld; run as root")
    if name == "state":
        values = np.argsort(np.argsort([state.label for state in State]))[values]
    lacking = ~IS_PRESENT[rows.state] & (name in ("phys", "pfn", "mapcount"))
    key = values if choice.reversed == (not choice.sort.words) else ~values
    return take(rows, np.lexsort((key, lacking))[: choice.limit])


def named(vmas: VMAs, name: str) -> list[int]:
    """Return the rows of the VMAs called ``name`` (``anon``: those without a name).

    Raises BadRequest when there is none.
    """
    from pagewalk.model.errors import BadRequest
    from pagewalk.translate.address import called, listed, nearest

    nameless = name in ("anon", "[anon]", "")
    rows = [row for row, own in enumerate(vmas.name) if not own] if nameless else []
    rows = rows or called(name, vmas)
    if not rows:
        raise BadRequest(f"--vma: no VMA is called '{name}'; {nearest(name, vmas)}choose from:"
                         f" anon, {listed(vmas)}")
    return rows


def within(ranges: U64, span: str, page_size: int) -> U64:
    """Return ``ranges`` cut to ``span``, rounded out to whole pages; raises BadRequest if empty."""
    import numpy as np

    from pagewalk.model.errors import BadRequest
    from pagewalk.model.ranges import intersect

    try:
        low, high = (int(edge, 16) for edge in span.split("-"))
    except ValueError:
        raise BadRequest(f"--range: '{span}' is not two hexadecimal addresses, A-B") from None
    if not 0 <= low < high <= 1 << 64:
        raise BadRequest(f"--range: {span} is empty or exceeds 64 bits; the end address is"
                         " exclusive")
    low, high = low // page_size * page_size, -(-high // page_size) * page_size
    high = min(high, (1 << 64) - page_size)
    pieces, _, _ = intersect(ranges, np.array([[low, high]], np.uint64))
    if len(pieces) == 0:
        raise BadRequest(f"--range: the target has no VMA in {low:#x}-{high:#x}; see pagewalk maps")
    return pieces
