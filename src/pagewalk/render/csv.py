"""CSV with a header line: bytes as integers, an empty field where withheld."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from typing import TextIO

import numpy as np

from pagewalk import describe
from pagewalk import lines as pieces
from pagewalk.account import TOTALS, Table
from pagewalk.ledger import Line
from pagewalk.pages import Pages, VMAs
from pagewalk.proc.counters import Theirs
from pagewalk.smaps import OTHER_FIELDS, others, vmflags


def ordered(table: Table) -> list[str]:
    # The keys of the JSON contract first.
    return [*TOTALS, *(name for name in table.columns if name not in TOTALS)]


def show(table: Table, ledger: Sequence[Line], out: TextIO) -> None:
    """Write the totals, one line an amount: name, bytes; those that are the kernel's are empty."""
    del ledger
    counted = {**table.totals, **dict.fromkeys(table.from_kernel)}
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("name", "bytes"))
    writer.writerows((key, empty(counted[key])) for key in ordered(table))


def maps(
    table: Table, out: TextIO, columns: Sequence[str] = (), *, everything: bool = False
) -> None:
    """Write one line a VMA with every amount; the options are for formats of limited width."""
    del columns, everything
    vmas, keys = table.vmas, ordered(table)
    writer = csv.writer(out, lineterminator="\n")
    more = OTHER_FIELDS.values() if table.particulars else ()
    writer.writerow(("start", "end", "perms", "offset", "name", *keys, *more, "vm_flags"))
    lists = {k: None if (c := table.columns[k]) is None else c.tolist() for k in keys}
    for row in range(len(vmas)):
        writer.writerow((
            hex(vmas.start[row]), hex(vmas.end[row]), describe.perms(int(vmas.perms[row])),
            int(vmas.offset[row]), vmas.name[row],
            *("" if (c := lists[k]) is None else c[row] for k in keys),
            *(empty(others(table, row)[name]) for name in more),
            " ".join(vmflags(vmas, row) or []),
        ))


def explain(table: Table, ledger: Sequence[Line], theirs: Theirs, out: TextIO) -> None:
    """Write one line a cause, and one a line's unexplained rest."""
    del table, theirs
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("against", "ours", "theirs", "cause", "bytes", "exact", "bound"))
    for line in ledger:
        sides = (line.against, empty(line.ours), empty(line.theirs))
        for cause in line.causes:
            bound = empty(cause.bound)
            writer.writerow((*sides, cause.cause, cause.bytes, int(cause.exact), bound))
        writer.writerow((*sides, "unexplained", empty(line.unexplained), "", ""))


def empty(amount: int | None) -> int | str:
    return "" if amount is None else amount


def pages(batches: Iterable[Pages], vmas: VMAs, out: TextIO) -> None:
    """Write one line a page, huge leaf, or stretch without pages; flags joined by ``|``."""
    out.write("addr,size,state,pfn,phys,mapcount,swap_type,swap_offset,flags\n")
    for batch in batches:
        out.write(page_lines(batch).decode())


def page_lines(rows: Pages) -> bytes:
    count = len(rows)
    comma = pieces.text(",", count)
    known = describe.present(rows) if rows.pfn is not None else np.zeros(count, bool)
    prefix = pieces.where(known, pieces.text("0x", count), pieces.text("", count))
    return pieces.lines(
        pieces.text("0x", count), pieces.hexadecimal(rows.addr), comma, pieces.decimal(rows.size),
        comma, describe.states(rows), comma, describe.frame(rows, ""), comma, prefix,
        describe.physical(rows, ""), comma, describe.mapcount(rows, ""), comma,
        describe.swap_place(rows, "", ",", "", ","), comma, describe.flag_words(rows, joint="|"),
    )


VIEWS = {"show": show, "maps": maps, "pages": pages, "explain": explain}
