"""The lines of the original kernel module: every page, a block for each VMA, the totals.

The wording is the module's. Its page counts and its kB did not always agree; these do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

import numpy as np

from pagewalk import describe
from pagewalk import lines as pieces
from pagewalk.account import Table
from pagewalk.pages import I64, U8, Pages, State, VMAs, take
from pagewalk.proc.pagemap import PAGE

CHUNK = 1 << 16  # pages written at a time

PRESENT, ABSENT, UNMAPPED, HIDDEN = range(4)


def pages(batches: Iterable[Pages], vmas: VMAs, out: TextIO) -> None:
    """Write a line for each base page of every VMA, in address order, with blocks and totals."""
    counts = np.zeros(4, np.int64)
    total = np.zeros(4, np.int64)
    at = None
    all_hidden = vmas.hidden.tolist()
    unknown = False  # whether some page of this VMA is absent or not mapped, and nobody knows which
    for rows in (piece for batch in batches for piece in chunks(batch)):
        edges = np.flatnonzero(np.diff(rows.vma)) + 1
        for part in np.split(np.arange(len(rows)), edges):
            here = take(rows, part)
            row = int(here.vma[0])
            if at is not None and row != at:
                block(counts, out, tables=not unknown)
                counts[:] = 0
                unknown = False
            at = row
            unknown = unknown or bool((here.state == State.ABSENT.value).any())
            kinds = kind(here, hidden=all_hidden[row])
            out.write(lines(here, kinds).decode())
            found = np.bincount(kinds, minlength=4)
            counts += found
            total += found
    if at is not None:
        block(counts, out, tables=not unknown)
    totals(int(total[PRESENT]), int(total.sum()), out)


def chunks(batch: Pages) -> Iterator[Pages]:
    # Base pages, CHUNK at a time, however long a row is.
    count = (batch.size // np.uint64(PAGE)).astype(np.int64)
    last = np.cumsum(count)
    for start in range(0, int(last[-1]) if len(last) else 0, CHUNK):
        page = np.arange(start, min(start + CHUNK, int(last[-1])))
        row = np.searchsorted(last, page, side="right")
        step = (page - (last - count)[row]).astype(np.uint64)
        part = take(batch, row)
        part.addr[:] += step * np.uint64(PAGE)
        if part.pfn is not None:
            part.pfn[describe.present(part)] += step[describe.present(part)]
        yield part


def kind(rows: Pages, *, hidden: bool) -> I64:
    kinds = np.where(describe.present(rows), PRESENT, HIDDEN if hidden else ABSENT)
    kinds[rows.state == State.NOT_MAPPED.value] = UNMAPPED
    return kinds.astype(np.int64)


def lines(rows: Pages, kinds: I64) -> bytes:
    count = len(rows)
    words = ["Physical page exists at PA:", "Physical Page Not in RAM", "Not Mapped",
             "Not Shown by this source"]
    place: U8 = pieces.where(
        kinds == PRESENT,
        describe.physical(rows, "hidden (needs CAP_SYS_ADMIN)"),
        np.zeros((count, 1), np.uint8),
    )
    return pieces.lines(
        pieces.text("VA:", count), pieces.hexadecimal(rows.addr), pieces.text(" ", count),
        pieces.labels(words, kinds), place,
    )


def block(counts: I64, out: TextIO, *, tables: bool) -> None:
    """Write a VMA's block; ``Not Mapped`` is withheld where no page table was read."""
    present, absent, unmapped, hidden = (int(n) for n in counts)
    out.write("FOR CURRENT VMA,\n")
    out.write(f"Present in RAM (RSS): {amount(present)}\n")
    out.write(f"Not Present in RAM : {amount(absent + hidden)}\n")
    out.write(f"Not Mapped : {amount(unmapped) if tables else 'n/a'}\n")
    out.write(f"Total Pages : {amount(int(counts.sum()))}\n")


def totals(present: int, size: int, out: TextIO) -> None:
    out.write("TOTAL VM,\n")
    out.write(f"RSS : {amount(present)}\n")
    out.write(f"Size: {amount(size)}\n")


def amount(count: int) -> str:
    return f"{count} ({count * PAGE >> 10} kB)"


def maps(
    table: Table, out: TextIO, columns: Sequence[str] = (), *, everything: bool = False
) -> None:
    """Write each VMA's block and the totals, without the page lines."""
    del columns, everything
    present, size = table.columns["present"], table.columns["size"]
    unmapped = table.columns["not_mapped"]
    assert present is not None and size is not None
    for row in range(len(table.vmas)):
        here, whole = int(present[row]) // PAGE, int(size[row]) // PAGE
        gone = 0 if unmapped is None else int(unmapped[row]) // PAGE
        counts = np.array([here, whole - here - gone, gone, 0])
        block(counts, out, tables=unmapped is not None or here == whole)
    totals(int(present.sum()) // PAGE, int(size.sum()) // PAGE, out)


VIEWS = {"pages": pages, "maps": maps}

