"""CSV with a header line: bytes as integers, an empty field where withheld.

Each row is one line: the kernel writes a newline in a name as ``\\012``. A field with any other
character that some readers treat as the end of a line is quoted (RFC 4180).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TextIO

from pagewalk.account.groups import Group
from pagewalk.account.ledger import Line
from pagewalk.account.smaps import OTHER_FIELDS, others, vmflags
from pagewalk.account.table import Table
from pagewalk.model.columns import Pages, perms_text
from pagewalk.proc.counters import Theirs
from pagewalk.render import describe
from pagewalk.render import lines as pieces
from pagewalk.walking.walk import Walk

# Quotes, commas, control characters, and whatever str.splitlines treats as the end of a line.
SPECIAL = re.compile('[",\x00-\x1f\x7f-\x9f\u2028\u2029]|^ | $')


def row(*fields: object) -> str:
    """Return a line of ``fields``; before Python 3.13 csv.writer does not quote a CR."""
    return ",".join(map(field, fields)) + "\n"


def field(value: object) -> str:
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if SPECIAL.search(text) else text


def show(
    table: Table, _ledger: Sequence[Line], _groups: Sequence[Group], out: TextIO
) -> None:
    """Write the totals, one amount per line (name, bytes); the kernel's own figures stay empty."""
    counted = {**table.totals, **dict.fromkeys(table.from_kernel)}
    out.write(row("name", "bytes"))
    out.writelines(row(key, counted[key]) for key in table.names)


def maps(table: Table, rows: list[int], out: TextIO, **_: object) -> None:
    """Write one line per VMA of ``rows`` with every amount; the options are for other formats."""
    vmas, keys = table.vmas, table.names
    more = OTHER_FIELDS.values() if table.particulars else ()
    out.write(row("start", "end", "perms", "offset", "name", *keys, *more, "vm_flags"))
    lists = [None if (c := table.columns[k]) is None else c.tolist() for k in keys]
    for i in rows:
        head = row(hex(vmas.start[i]), hex(vmas.end[i]), perms_text(int(vmas.perms[i])),
                   int(vmas.offset[i]), vmas.name[i])
        amounts = ",".join("" if column is None else str(column[i]) for column in lists)
        tail = row(*(others(table, i)[name] for name in more), " ".join(vmflags(table, i) or []))
        out.write(f"{head[:-1]},{amounts},{tail}")


def groups(table: Table, found: Sequence[Group], out: TextIO, **_: object) -> None:
    """Write one line per group with every amount."""
    out.write(row("group", "vmas", *table.names))
    for group in found:
        out.write(row(group.key, group.vmas, *(group.amounts[name] for name in table.names)))


def explain(_table: Table, ledger: Sequence[Line], _theirs: Theirs, out: TextIO) -> None:
    """Write one line per cause, and one for the unexplained rest of each line."""
    out.write(row("against", "ours", "theirs", "cause", "bytes", "exact", "bound"))
    for line in ledger:
        sides = (line.against, line.ours, line.theirs)
        for cause in line.causes:
            out.write(row(*sides, cause.cause, cause.bytes, int(cause.exact), cause.bound))
        out.write(row(*sides, "unexplained", line.unexplained, None, None))


def pages(batches: Iterable[Pages], walk: Walk[Pages], out: TextIO) -> None:
    """Write one line per page, huge page or range without pages; flags are joined by ``|``."""
    out.write("addr,size,state,pfn,phys,mapcount,swap_type,swap_offset,flags\n")
    for batch in batches:
        out.write(page_lines(batch, walk.facts.page_size).decode())


def page_lines(rows: Pages, page_size: int) -> bytes:
    return pieces.lines(
        "0x", pieces.hexadecimal(rows.addr), ",", pieces.decimal(rows.size),
        ",", describe.states(rows), ",", describe.number(rows, rows.pfn, ""),
        ",", describe.physical(rows, page_size, "", "0x"),
        ",", describe.number(rows, rows.mapcount, ""),
        ",", describe.swap_place(rows, "", ",", "", ","), ",", describe.flag_words(rows, joint="|"),
    )


VIEWS = {"show": show, "groups": groups, "maps": maps, "pages": pages, "explain": explain}
