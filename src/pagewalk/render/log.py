"""The format of the original kernel module: every page, a block for each VMA, the totals.

The wording is the module's. Its page counts and kB did not always agree; these do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TextIO

import numpy as np

from pagewalk.account.table import Table
from pagewalk.model.columns import I64, Pages, State, take
from pagewalk.model.rules import IS_PRESENT
from pagewalk.render import describe
from pagewalk.render import lines as pieces
from pagewalk.walking.walk import Walk

CHUNK = 1 << 16  # pages written at a time

PRESENT, ABSENT, UNMAPPED, HIDDEN = range(4)


def pages(batches: Iterable[Pages], walk: Walk[Pages], out: TextIO) -> None:
    """Write a line for each base page of every VMA, in address order, with blocks and totals."""
    sizes = np.zeros(4, np.int64)
    total = np.zeros(4, np.int64)
    at = None
    all_hidden, page_size = walk.vmas.hidden.tolist(), walk.facts.page_size
    unknown = False  # whether some page of this VMA may be either absent or not mapped
    for rows in (piece for batch in batches for piece in chunks(batch, page_size)):
        edges = np.flatnonzero(np.diff(rows.vma)) + 1
        for part in np.split(np.arange(len(rows)), edges):
            here = take(rows, part)
            row = int(here.vma[0])
            if at is not None and row != at:
                block(sizes, page_size, out, tables=not unknown)
                sizes[:] = 0
                unknown = False
            at = row
            unknown = unknown or bool((here.state == State.ABSENT.value).any())
            kinds = kind(here, hidden=all_hidden[row])
            out.write(lines(here, kinds, page_size).decode())
            found = np.bincount(kinds, minlength=4) * page_size
            sizes += found
            total += found
    if at is not None:
        block(sizes, page_size, out, tables=not unknown)
    totals(int(total[PRESENT]), int(total.sum()), page_size, out)


def chunks(batch: Pages, page_size: int) -> Iterator[Pages]:
    # Base pages, CHUNK at a time, however long a row is.
    count = (batch.size // np.uint64(page_size)).astype(np.int64)
    last = np.cumsum(count)
    for start in range(0, int(last[-1]) if len(last) else 0, CHUNK):
        page = np.arange(start, min(start + CHUNK, int(last[-1])))
        row = np.searchsorted(last, page, side="right")
        step = (page - (last - count)[row]).astype(np.uint64)
        part = take(batch, row)
        part.addr[:] += step * np.uint64(page_size)
        if part.pfn is not None:
            here = IS_PRESENT[part.state]
            part.pfn[here] += step[here]
        yield part


def kind(rows: Pages, *, hidden: bool) -> I64:
    kinds = np.where(IS_PRESENT[rows.state], PRESENT, HIDDEN if hidden else ABSENT)
    kinds[rows.state == State.NOT_MAPPED.value] = UNMAPPED
    return kinds.astype(np.int64)


def lines(rows: Pages, kinds: I64, page_size: int) -> bytes:
    words = ["Physical page exists at PA:", "Physical Page Not in RAM", "Not Mapped",
             "Not Shown by this source"]
    where = describe.physical(rows, page_size, "hidden (needs CAP_SYS_ADMIN)")
    return pieces.lines(
        "VA:", pieces.hexadecimal(rows.addr), " ", pieces.labels(words, kinds),
        pieces.where(kinds == PRESENT, where, ""),
    )


def block(sizes: I64, page_size: int, out: TextIO, *, tables: bool) -> None:
    """Write a VMA's block; ``Not Mapped`` is withheld where no page table was read."""
    present, absent, unmapped, hidden = (int(n) for n in sizes)
    gone = amount(unmapped, page_size) if tables else "n/a"
    out.write(f"FOR CURRENT VMA,\nPresent in RAM (RSS): {amount(present, page_size)}\n"
              f"Not Present in RAM : {amount(absent + hidden, page_size)}\nNot Mapped : {gone}\n"
              f"Total Pages : {amount(int(sizes.sum()), page_size)}\n")


def totals(present: int, size: int, page_size: int, out: TextIO) -> None:
    out.write(f"TOTAL VM,\nRSS : {amount(present, page_size)}\nSize: {amount(size, page_size)}\n")


def amount(size: int, page_size: int) -> str:
    return f"{size // page_size} ({size >> 10} kB)"


def maps(table: Table, rows: list[int], out: TextIO, **_: object) -> None:
    """Write the block of each VMA of ``rows`` and the totals, without the page lines."""
    present, size = table.columns["present"], table.columns["size"]
    unmapped, page_size = table.columns["not_mapped"], table.walk.facts.page_size
    assert present is not None and size is not None
    for row in rows:
        here, whole = int(present[row]), int(size[row])
        gone = 0 if unmapped is None else int(unmapped[row])
        sizes = np.array([here, whole - here - gone, gone, 0])
        block(sizes, page_size, out, tables=unmapped is not None or here == whole)
    totals(int(present.sum()), int(size.sum()), page_size, out)


VIEWS = {"pages": pages, "maps": maps}

