"""The table of VMAs as text: amounts in KiB, and the columns that fit a terminal."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pagewalk.account.table import COLUMNS, Table
from pagewalk.model.columns import perms_text
from pagewalk.render.amounts import kib
from pagewalk.render.terminal import NARROWEST, align, printable, shorten

TITLES = {column.name: column.title for column in COLUMNS}
# Columns hidden on a narrow terminal, in this order.
LEAST_WANTED = ("special", "hugetlb", "zero", "shmem", "file", "anon", "not_mapped", "present",
                "uss", "swap", "not_present", "size")
NAME_WIDTH = 14
NARROW, NARROWER = 40, 30  # columns of a terminal below which rights, and addresses, give way
ROOMY = 60  # and below which the count of VMAs may be shortened
PLACES = ("end", "offset")  # addresses among the columns
KERNELS = "*"  # marks a total that is the kernel's own


class VmaTable(NamedTuple):
    """The table as ``lines``, heading first; the columns ``shown``; the titles ``left_out``."""

    lines: list[str]
    shown: list[str]
    left_out: list[str]


def vma_table(
    table: Table,
    rows: list[int],
    columns: Sequence[str],
    room: int | None,
    heading: str,
    *,
    foot: bool = False,
    flags: bool = False,
    fields: bool = False,
) -> VmaTable:
    """Return the VMAs ``rows`` with the ``columns`` that fit into ``room`` characters (None: all).

    ``heading`` is the title of the name column. ``foot`` adds totals; ``flags`` VmFlags after the
    name; ``fields`` the other fields of smaps that are not amounts.
    """
    titles = headings(columns)
    ends = [heading, *([f"total of {vmas_counted(len(table.vmas))}"] if foot else ())]
    blank = [""] if foot else []  # what has no total
    addresses = [f"{start:012x}" for start in table.vmas.start[rows].tolist()]
    perms = each(perms_text, table.vmas.perms[rows].tolist())
    fixed = [["ADDRESS", *addresses, *blank], ["PERM", *perms, *blank]]
    if room is not None and room < NARROW:
        fixed = fixed[: room >= NARROWER]
    cells = {c: [titles[c], *amounts(table, c, rows)] for c in columns}
    for name in cells if foot else ():
        cells[name].append(total(table, name))
    kept = [NARROWEST if room is not None and room < NARROW else NAME_WIDTH]
    kept += map(len, ends) if room is None or room >= ROOMY else ()
    taken = sum(map(wide, fixed)) + max(kept)
    widths = {name: wide(column) for name, column in cells.items()}
    chosen = list(columns) if room is None else fit(columns, widths, room - taken)
    others = other_fields(table, rows) if fields else []
    shown = [*fixed, *(cells[c] for c in chosen), *([*column, *blank] for column in others)]
    names = [heading, *names_of(table, rows, flags=flags), *ends[1:]]
    lines = align(shown, set(range(len(fixed))))
    edge = max(map(len, lines))
    if room is not None:
        free = max(room - edge - 2, NARROWEST)
        names = each(lambda name: shorten(name, free), names)
    lines = [f"{line.ljust(edge)}  {name}" for line, name in zip(lines, names, strict=True)]
    return VmaTable(lines, chosen, [titles[c] for c in columns if c not in chosen])


def headings(columns: Sequence[str]) -> dict[str, str]:
    """Return what is printed above ``columns`` of a VMA or of a group."""
    if TITLES.keys() >= set(columns):
        return TITLES
    from pagewalk.render.columns import titles

    return titles("maps") | titles("groups")


def vmas_counted(count: int) -> str:
    """Return ``1 VMA``, ``2 VMAs``."""
    return f"{count} VMA" + ("" if count == 1 else "s")


def total(table: Table, name: str) -> str:
    """Return a total in KiB, marked if it is the kernel's own; nothing for an address."""
    if name in PLACES:
        return ""
    return kib(table.totals[name]) + (KERNELS if name in table.from_kernel else "")


def names_of(table: Table, rows: list[int], *, flags: bool) -> list[str]:
    names = each(lambda name: printable(name) or "[anon]", [table.vmas.name[row] for row in rows])
    if not flags:
        return names
    from pagewalk.account.smaps import vmflags

    return [f"{name}  {' '.join(vmflags(table, row) or [])}".rstrip()
            for name, row in zip(names, rows, strict=True)]


def other_fields(table: Table, rows: list[int]) -> list[list[str]]:
    # The fields of smaps that are not amounts: a column each, title first.
    from pagewalk.account.smaps import others

    def cell(name: str, value: int | None) -> str:
        return kib(value) if value is None or name.endswith("_size") else str(value)

    titles = {"kernel_page_size": "KERNEL PAGE", "mmu_page_size": "MMU PAGE",
              "thp_eligible": "THP", "protection_key": "PKEY"}
    told = [others(table, row) for row in rows]
    # Without protection keys in the CPU smaps has no such line.
    keys = table.walk.facts.protection_keys
    shown = [name for name in titles if name != "protection_key" or keys]
    return [[titles[name], *(cell(name, row[name]) for row in told)] for name in shown]


def wide(column: list[str]) -> int:
    return max(map(len, column)) + 2


def fit(columns: Sequence[str], widths: dict[str, int], room: int) -> list[str]:
    """Return the columns that remain when the least wanted ones are dropped until they fit.

    Then the last go; one stays.
    """
    chosen = list(columns)
    for name in (*LEAST_WANTED, *(name for name in columns[:0:-1] if name not in LEAST_WANTED)):
        if sum(widths[c] for c in chosen) <= room or len(chosen) == 1:
            break
        if name in chosen:
            chosen.remove(name)
    return chosen


def amounts(table: Table, column: str, rows: list[int]) -> list[str]:
    if column in PLACES:
        return [f"{place:x}" for place in getattr(table.vmas, column)[rows].tolist()]
    values = table.columns[column]
    return ["n/a"] * len(rows) if values is None else each(kib, values[rows].tolist())


def each(show: Callable[[Any], str], values: list[Any]) -> list[str]:
    # Most of thousands of VMAs are alike: each distinct value is formatted once.
    known = {value: show(value) for value in set(values)}
    return [known[value] for value in values]
