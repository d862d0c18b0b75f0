"""CSV with a header line: bytes as integers, an empty field where withheld.

Each row is one line: the kernel writes a newline in a name as ``\\012``. A field with any other
character that some readers treat as the end of a line is quoted (RFC 4180).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

from pagewalk.account.groups import Group, value
from pagewalk.account.ledger import Line
from pagewalk.account.smaps import OTHER_FIELDS, column, others
from pagewalk.account.table import Table
from pagewalk.model.columns import U8, Pages
from pagewalk.proc.counters import Theirs
from pagewalk.render import describe
from pagewalk.render import lines as pieces
from pagewalk.walking.walk import Walk

if TYPE_CHECKING:
    from pagewalk.account.huge import Huge
    from pagewalk.history.diff import Diff
    from pagewalk.history.tally import Row as DiffRow
    from pagewalk.render.file_table import Names
    from pagewalk.system.file_cache import CacheLook, FileCache
    from pagewalk.system.files import FilesReport
    from pagewalk.system.group import Group as Cgroup
    from pagewalk.system.group_table import GroupTable
    from pagewalk.system.huge import HugeOfEach
    from pagewalk.system.huge import Row as HugeRow
    from pagewalk.system.look import Ram
    from pagewalk.system.share import Share
    from pagewalk.system.slabs import Cache
    from pagewalk.system.top import Line as TopLine
    from pagewalk.system.top import Top

# Quotes, commas, control characters, and whatever str.splitlines treats as the end of a line.
SPECIAL = re.compile('[",\x00-\x1f\x7f-\x9f\u2028\u2029]|^ | $')


def row(*fields: object) -> str:
    """Return a line of ``fields``; before Python 3.13 csv.writer does not quote a CR."""
    return ",".join(map(field, fields)) + "\n"


def field(value: object) -> str:
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if SPECIAL.search(text) else text


def show(
    table: Table, _ledger: Sequence[Line], _groups: Sequence[Group], out: TextIO, **_: object
) -> None:
    """Write the totals, one amount per line (name, bytes); the kernel's own figures stay empty."""
    counted = {**table.totals, **dict.fromkeys(table.from_kernel)}
    out.write(row("name", "bytes"))
    out.writelines(row(key, counted[key]) for key in table.names)


def maps(
    table: Table, rows: list[int], out: TextIO, columns: Sequence[str] | None = None, **_: object
) -> None:
    """Write one line per VMA of ``rows`` with every amount, or with the ``columns``."""
    more = list(OTHER_FIELDS.values()) if table.particulars and columns is None else []
    known = [*table.names, *more, "vm_flags"]
    names = (["start", "end", "perms", "offset", "name", *known] if columns is None
             else ["start", "perms", "name", *columns])
    out.write(row(*names))
    told = [others(table, i) for i in rows] if more else []
    fields = [[*map(field, (one[name] for one in told))] if name in more
              else cells(table, rows, name) for name in names]
    out.writelines(",".join(line) + "\n" for line in zip(*fields, strict=True))


def cells(table: Table, rows: list[int], name: str) -> list[str]:
    values = column(table, name)
    if values is None:
        return [""] * len(rows)
    show = hex if name in ("start", "end") else field if name in ("name", "vm_flags") else str
    return [show(values[row]) for row in rows]


def groups(
    table: Table, found: Sequence[Group], out: TextIO, columns: Sequence[str] | None = None,
    **_: object,
) -> None:
    """Write one line per group with every amount, or with the ``columns``."""
    keys = ["vmas", *table.names] if columns is None else columns
    out.write(row("group", *keys))
    for group in found:
        out.write(row(group.key, *(value(group, name) for name in keys)))


def explain(
    _table: Table, ledger: Sequence[Line], _theirs: Theirs, out: TextIO, **_: object
) -> None:
    """Write one line per cause, and one for the unexplained rest of each line."""
    write_ledger(ledger, out)


def write_ledger(ledger: Sequence[Line], out: TextIO) -> None:
    out.write(row("against", "ours", "theirs", "cause", "bytes", "exact", "bound"))
    for line in ledger:
        sides = (line.against, line.ours, line.theirs)
        for cause in line.causes:
            out.write(row(*sides, cause.cause, cause.bytes, int(cause.exact), cause.bound))
        out.write(row(*sides, "unexplained", line.unexplained, None, None))


# A field of a page, of (rows, page size); the swap device and the slot are two columns.
PAGE_FIELDS: dict[str, Callable[[Pages, int], U8]] = {
    "addr": lambda rows, _: pieces.beside("0x", pieces.hexadecimal(rows.addr)),
    "size": lambda rows, _: pieces.decimal(rows.size),
    "state": lambda rows, _: describe.states(rows),
    "pfn": lambda rows, _: describe.number(rows, rows.pfn, ""),
    "phys": lambda rows, page_size: describe.physical(rows, page_size, "", "0x"),
    "mapcount": lambda rows, _: describe.number(rows, rows.mapcount, ""),
    "swap": lambda rows, _: describe.swap_place(rows, "", ",", "", ","),
    "flags": lambda rows, _: describe.flag_words(rows, joint="|"),
}


def pages(
    batches: Iterable[Pages], walk: Walk[Pages], out: TextIO, columns: Sequence[str] | None = None
) -> None:
    """Write one line per page, huge page or range without pages; flags are joined by ``|``."""
    names = list(PAGE_FIELDS) if columns is None else ["addr", *columns]
    out.write(row(*names).replace("swap", "swap_type,swap_offset"))
    for batch in batches:
        out.write(page_lines(batch, walk.facts.page_size, names).decode())


def page_lines(rows: Pages, page_size: int, names: Sequence[str]) -> bytes:
    first, *others = (PAGE_FIELDS[name](rows, page_size) for name in names)
    return pieces.lines(first, *(part for field in others for part in (",", field)))


def ram(found: Ram, out: TextIO, *, ledger: bool = False) -> None:
    """Write one line per kind (group, kind, bytes), or with ``ledger`` one per cause."""
    from pagewalk.system.ram import PARTS

    if ledger:
        write_ledger(found.lines, out)
        return
    out.write(row("group", "kind", "bytes"))
    amounts = found.parts or {}
    out.writelines(row(part.group, part.name, amounts[part.name])
                   for part in PARTS if part.name in amounts)


def files(
    report: FilesReport, names: Names, out: TextIO, columns: Sequence[str] | None = None,
    **_: object,
) -> None:
    """Write one line per file of the page cache."""
    from pagewalk.render.file_table import records

    out.writelines(row(*record) for record in records(report, names, columns))


def slab(
    _found: object, shown: Sequence[Cache], out: TextIO, columns: Sequence[str] | None = None,
    **_: object,
) -> None:
    """Write one line per cache of kernel objects."""
    from pagewalk.render.slab_table import records

    out.writelines(row(*record) for record in records(shown, columns))


def group(found: Cgroup, _name: object, out: TextIO, **_: object) -> None:
    """Write one line per cause of the ledger."""
    write_ledger(found.lines, out)


def cgroups(
    table: GroupTable, rows: Sequence[tuple[int, int | None]], _names: object, out: TextIO, *,
    columns: Sequence[str] | None = None, **_: object,
) -> None:
    """Write one line per group with every amount, or with the ``columns``."""
    from pagewalk.render.groups_table import FIELDS, amount

    wanted = list(FIELDS) if columns is None else list(columns)
    out.write(row("path", *wanted))
    out.writelines(row(table.groups.path[one], *(amount(table, one, name) for name in wanted))
                   for one, _ in rows)


def top(
    found: Top, lines: Sequence[TopLine], out: TextIO, columns: Sequence[str] | None = None
) -> None:
    """Write one line per process, or per what they have in common."""
    from pagewalk.render.top_table import records

    out.writelines(row(*record) for record in records(found, lines, columns))


def huge(
    found: Huge, rows: Sequence[int], out: TextIO, columns: Sequence[str] | None = None
) -> None:
    """Write one line per VMA of ``rows``, with how its large folios are mapped."""
    from pagewalk.render.huge_table import records

    out.writelines(row(*record) for record in records(found, rows, columns))


def huge_of_each(
    found: HugeOfEach, rows: Sequence[HugeRow], out: TextIO, columns: Sequence[str] | None = None
) -> None:
    """Write one line per process, with how it maps large folios."""
    from pagewalk.render.huge_table import records_of_each

    out.writelines(row(*record) for record in records_of_each(found, rows, columns))


def share(
    found: Share, rows: Sequence[int], out: TextIO, columns: Sequence[str] | None = None
) -> None:
    """Write one line per member of a set."""
    from pagewalk.render.share_table import records

    out.writelines(row(*record) for record in records(found, rows, columns))


def cache(
    _found: CacheLook, rows: Sequence[FileCache], out: TextIO,
    columns: Sequence[str] | None = None,
) -> None:
    """Write one line per file that is mapped."""
    from pagewalk.render.cache_table import records

    out.writelines(row(*record) for record in records(rows, columns))


def diff(
    found: Diff, rows: Sequence[DiffRow], out: TextIO, columns: Sequence[str] | None = None
) -> None:
    """Write one line per row of what changed."""
    from pagewalk.render.diff_table import records

    out.writelines(row(*record) for record in records(found, rows, columns))


VIEWS = {
    "show": show, "groups": groups, "maps": maps, "pages": pages, "explain": explain, "ram": ram,
    "files": files, "slab": slab, "group": group, "cgroups": cgroups, "share": share, "top": top,
    "huge": huge, "huge_of_each": huge_of_each, "cache": cache,
    "diff": diff,
}
