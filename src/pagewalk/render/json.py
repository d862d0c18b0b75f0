"""JSON, schema pagewalk/1: bytes as integers, addresses as strings, null where withheld.

Every key is documented in docs/json.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from pagewalk.account.check import Report
from pagewalk.account.groups import BY_KEY, Group
from pagewalk.account.ledger import Line, beyond_rss
from pagewalk.account.smaps import others, vmflags
from pagewalk.account.table import Table
from pagewalk.model.bits import KPAGEFLAGS, names
from pagewalk.model.columns import U8, Flag, Pages, VMAs, perms_text
from pagewalk.pagetables.trace import Step
from pagewalk.proc.counters import Theirs
from pagewalk.proc.processes import Process
from pagewalk.render import describe
from pagewalk.render import lines as pieces
from pagewalk.render.columns import fields
from pagewalk.render.document import ledger_rows, missing, write
from pagewalk.render.heap_json import heap
from pagewalk.render.later import later
from pagewalk.sources.doctor import Check
from pagewalk.translate.translation import Translation
from pagewalk.walking.walk import Walk

if TYPE_CHECKING:
    from pagewalk.account.huge import Huge
    from pagewalk.render.file_table import Names
    from pagewalk.system.files import FilesReport


def write_table(table: Table, body: dict[str, Any], out: TextIO) -> None:
    # What every document about a walk begins and ends with.
    walk, outcome = table.walk, table.outcome
    head = {
        "process": {"pid": walk.pid, "name": walk.name, "exe": walk.exe},
        "source": {"name": walk.source, "arch": walk.facts.architecture,
                   "page_size": walk.facts.page_size},
    }
    foot = {
        **missing(outcome.withheld),
        "stall_ns": outcome.stall.longest_ns,
    }
    write({**head, **body, **foot}, out)


def vma_rows(
    table: Table, rows: Sequence[int], columns: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    lists = {k: None if (c := table.columns[k]) is None else c.tolist() for k in table.names}
    found = (
        {
            **vma_head(table.vmas, row),
            **{k: None if c is None else c[row] for k, c in lists.items()},
            "vm_flags": vmflags(table, row),
            **others(table, row),
        }
        for row in rows
    )
    return [fields("maps", row, columns) for row in found]


def vma_head(vmas: VMAs, row: int) -> dict[str, Any]:
    return {
        "start": hex(vmas.start[row]),
        "end": hex(vmas.end[row]),
        "perms": perms_text(int(vmas.perms[row])),
        "offset": int(vmas.offset[row]),
        "name": vmas.name[row],
    }


def amounts(
    table: Table, rows: list[int] | None = None, columns: Sequence[str] | None = None
) -> dict[str, Any]:
    # With the VMAs `rows` and the `columns` of them, all if None.
    return {
        "totals": {k: table.totals[k] for k in table.names},
        "from_kernel": list(table.from_kernel),
        "unmapped": unmapped(table),
        "vmas": vma_rows(table, range(len(table.vmas)) if rows is None else rows, columns),
    }


def unmapped(table: Table) -> dict[str, Any]:
    return {
        "bytes": table.unmapped,
        "objects": None if table.holdings is None else [row._asdict() for row in table.holdings],
    }


def against(table: Table, ledger: Sequence[Line]) -> dict[str, Any]:
    return {
        "ledger": ledger_rows(ledger),
        "beyond_rss": [{"part": row.cause, "bytes": row.bytes} for row in beyond_rss(table)],
    }


def show(
    table: Table, ledger: Sequence[Line], groups: Sequence[Group], out: TextIO,
    columns: Sequence[str] | None = None,
) -> None:
    """Write totals, every VMA, the short ledger, and the groups by kind, with the ``columns``."""
    body = amounts(table) | against(table, ledger) | {"groups": group_rows(groups, columns)}
    write_table(table, body, out)


def groups(
    table: Table, found: Sequence[Group], out: TextIO, columns: Sequence[str] | None = None,
    **_: object,
) -> None:
    """Write the totals and the groups that add up to them, with the ``columns``."""
    totals = {k: table.totals[k] for k in table.names}
    write_table(table, {"totals": totals, "groups": group_rows(found, columns)}, out)


def group_rows(
    found: Sequence[Group], columns: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    rows = (
        {"group": group.key, "vmas": group.vmas,
         "evidence": BY_KEY[group.key].evidence if group.key in BY_KEY else None, **group.amounts}
        for group in found
    )
    return [fields("groups", row, columns) for row in rows]


def maps(
    table: Table, rows: list[int], out: TextIO, columns: Sequence[str] | None = None, **_: object
) -> None:
    """Write show's document without the ledger, with ``rows`` and their ``columns``."""
    write_table(table, amounts(table, rows, columns), out)


def explain(
    table: Table, ledger: Sequence[Line], theirs: Theirs, out: TextIO,
    columns: Sequence[str] | None = None,
) -> None:
    """Write every line of the ledger; ours - theirs = sum of the causes' bytes + unexplained."""
    body = against(table, ledger)
    if columns is not None:
        body["ledger"] = [
            fields("explain", line._asdict() | {"difference": line.difference}, columns)
            for line in ledger]
    body |= {
        **{name: table.totals[name] for name in ("distinct", "freed")},
        "unmapped": unmapped(table),
        "not_read": list(theirs.not_read),
    }
    write_table(table, body, out)


# A field of a page, of (rows, page size).
PAGE_FIELDS: dict[str, Callable[[Pages, int], Sequence[U8 | str]]] = {
    "addr": lambda rows, _: ('"0x', pieces.hexadecimal(rows.addr), '"'),
    "size": lambda rows, _: (pieces.decimal(rows.size),),
    "state": lambda rows, _: ('"', describe.states(rows), '"'),
    "pfn": lambda rows, _: (describe.number(rows, rows.pfn, "null"),),
    "phys": lambda rows, page_size: (describe.physical(rows, page_size, "null", '"0x', '"'),),
    "flags": lambda rows, _: ("[", describe.flag_words(rows, '"'), "]"),
    "mapcount": lambda rows, _: (describe.number(rows, rows.mapcount, "null"),),
    "swap": lambda rows, _: (
        describe.swap_place(rows, '{"type":', ',"offset":', "}", "null"),),
}


def pages(
    batches: Iterable[Pages], walk: Walk[Pages], out: TextIO, columns: Sequence[str] | None = None
) -> None:
    """Write one object per line for each page, huge page or range without pages."""
    names = list(PAGE_FIELDS) if columns is None else ["addr", *columns]
    for batch in batches:
        out.write(page_lines(batch, walk.facts.page_size, names).decode())


def page_lines(rows: Pages, page_size: int, names: Sequence[str]) -> bytes:
    parts: list[U8 | str] = []
    for name in names:
        before = "," if parts else "{"
        parts += [f'{before}"{name}":', *PAGE_FIELDS[name](rows, page_size)]
    return pieces.lines(*parts, "}")


def check(
    report: Report, out: TextIO, columns: Sequence[str] | None = None, **_: object
) -> None:
    """Write the report: pages and fields compared, and every difference, with the ``columns``."""
    told = asdict(report)
    told["differences"] = [fields("check", row, columns) for row in told["differences"]]
    write(told, out)


def vtop(found: Translation, out: TextIO, **_: object) -> None:
    """Write one address's walk through the tables, an object per level, and what it leads to."""
    trace, frame, opinion = found.trace, found.frame, found.pagemap
    write(
        {
            "process": {"pid": found.pid, "name": found.name, "exe": found.exe},
            "source": {"name": found.source, "arch": found.arch.name,
                       "page_size": 1 << trace.page_shift, "levels": len(found.arch.levels)},
            "asked": found.asked,
            "addr": hex(trace.addr),
            "phys": None if trace.phys is None else hex(trace.phys),
            "state": None if found.state is None else found.state.label,
            "size": trace.last.size,
            "offset": trace.offset,
            "levels": [level_row(step) for step in trace.steps],
            "vma": None if found.row is None else vma_head(found.vmas, found.row),
            "frame": None if frame is None else {
                "pfn": frame.pfn,
                "mapcount": frame.mapcount,
                "flags": names(frame.kflags, KPAGEFLAGS),
            },
            "hole": None if found.hole is None else [hex(edge) for edge in found.hole],
            "swap_device": found.device,
            "pagemap": {"entry": None if opinion.word is None else hex(opinion.word),
                        "agrees": opinion.agrees, "why": opinion.why},
            "stable": found.stable,
            "remarks": list(found.remarks),
        },
        out,
    )


def level_row(step: Step) -> dict[str, Any]:
    known = dict(step.says)
    bits = {name: known[name] for name in ("type", "offset", "pkey", "marks") if name in known}
    return {
        "level": step.level.name,
        "table": hex(step.table),
        "index": step.slot,
        "entry_addr": hex(step.at),
        "entry": hex(step.entry),
        "kind": step.kind,
        "next": None if step.below is None else hex(step.below),
        "pfn": known.get("pfn"),
        "bits": bits | dict.fromkeys(str(known.get("bits", "")).split(), True),
        "rights": [flag.name.lower() for flag in (Flag.WRITE, Flag.USER, Flag.EXEC)
                   if flag in step.rights and flag.name],
        "doubt": None if step.doubt is None else step.doubt.label,
    }


def doctor(
    checks: Sequence[Check], machine: str, out: TextIO, columns: Sequence[str] | None = None
) -> None:
    """Write every check, with the ``columns``."""
    rows = [fields("doctor", check._asdict(), columns) for check in checks]
    write({"machine": machine, "checks": rows}, out)


def processes(
    found: Sequence[Process], summary: str, out: TextIO, columns: Sequence[str] | None = None,
    **_: object,
) -> None:
    """Write every process with its RSS, with the ``columns``."""
    rows = [fields("processes", row._asdict(), columns) for row in found]
    write({"machine": summary, "processes": rows}, out)


def files(
    report: FilesReport, names: Names, out: TextIO, columns: Sequence[str] | None = None,
    **options: Any,
) -> None:
    """Write the page cache by file, with the ``columns`` of each file."""
    from pagewalk.render.file_table import document

    write(document(report, names, columns, **options), out)


def huge(found: Huge, rows: Sequence[int], out: TextIO, **options: Any) -> None:
    """Write how large folios are mapped: see `huge_table.document`."""
    from pagewalk.render import huge_table

    write_table(found.table, huge_table.document(found, rows, **options), out)


VIEWS: dict[str, Callable[..., None]] = {
    "show": show, "groups": groups, "maps": maps, "pages": pages, "explain": explain, "heap": heap,
    "check": check, "vtop": vtop, "doctor": doctor, "processes": processes, "files": files,
    "huge": huge,
    "ram": later("ram_json", "ram"),
    "slab": later("kernel_table", "json"),
    "map": later("ram_map", "json"),
    "group": later("group_json", "group"),
    "cgroups": later("groups_table", "json"),
    "trigger": later("trigger_table", "json"),
    "share": later("share_table", "json"),
    "top": later("top_table", "json"),
    "who": later("who_table", "json"),
    "overview": later("overview_table", "json"),
    "huge_of_each": later("huge_table", "json_of_each"),
    "cache": later("cache_table", "json"),
    "diff": later("diff_table", "json"),
    "run": later("run_table", "json"),
}
