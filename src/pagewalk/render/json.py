"""JSON, schema pagewalk/1: bytes as integers, addresses as strings, null where withheld.

Every key is documented in docs/json.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from pagewalk.account.check import Report
from pagewalk.account.groups import BY_KEY, Group
from pagewalk.account.ledger import Line, beyond_rss
from pagewalk.account.smaps import others, vmflags
from pagewalk.account.table import Table
from pagewalk.model.bits import KPAGEFLAGS, names
from pagewalk.model.columns import Flag, Pages, VMAs, perms_text
from pagewalk.pagetables.trace import Step
from pagewalk.proc.counters import Theirs
from pagewalk.proc.processes import Process
from pagewalk.render import describe
from pagewalk.render import lines as pieces
from pagewalk.sources.doctor import Check
from pagewalk.translate.translation import Translation
from pagewalk.walking.walk import Walk

if TYPE_CHECKING:
    from pagewalk.heap.heap import Heap

SCHEMA = "pagewalk/1"


def version() -> str:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("pagewalk")
    except PackageNotFoundError:
        return "unknown"


def write_table(table: Table, body: dict[str, Any], out: TextIO) -> None:
    # What every document about a walk begins and ends with.
    walk, outcome = table.walk, table.outcome
    head = {
        "process": {"pid": walk.pid, "name": walk.name, "exe": walk.exe},
        "source": {"name": walk.source, "arch": walk.facts.architecture,
                   "page_size": walk.facts.page_size},
    }
    foot = {
        "withheld": [{"what": row.what, "why": row.why} for row in outcome.withheld],
        "partial": outcome.partial,
        "stall_ns": outcome.stall.longest_ns,
    }
    write({**head, **body, **foot}, out)


def vma_rows(table: Table, rows: Sequence[int]) -> list[dict[str, Any]]:
    lists = {k: None if (c := table.columns[k]) is None else c.tolist() for k in table.names}
    return [
        {
            **vma_head(table.vmas, row),
            **{k: None if c is None else c[row] for k, c in lists.items()},
            "vm_flags": vmflags(table, row),
            **others(table, row),
        }
        for row in rows
    ]


def vma_head(vmas: VMAs, row: int) -> dict[str, Any]:
    return {
        "start": hex(vmas.start[row]),
        "end": hex(vmas.end[row]),
        "perms": perms_text(int(vmas.perms[row])),
        "offset": int(vmas.offset[row]),
        "name": vmas.name[row],
    }


def write(document: dict[str, Any], out: TextIO) -> None:
    # One line per key and one per row: readable, and the rows are encoded by the C encoder, which
    # json.dump does not use when it indents.
    document = {"schema": SCHEMA, "pagewalk": version(), **document}
    lines = (f"{json.dumps(key)}: {encode(value)}" for key, value in document.items())
    out.write("{\n" + ",\n".join(lines) + "\n}\n")


def encode(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return json.dumps(value)
    return "[\n" + ",\n".join(json.dumps(row) for row in value) + "\n]"


def amounts(table: Table, rows: list[int] | None = None) -> dict[str, Any]:
    # With the VMAs `rows`, all of them if None.
    return {
        "totals": {k: table.totals[k] for k in table.names},
        "from_kernel": list(table.from_kernel),
        "unmapped": unmapped(table),
        "vmas": vma_rows(table, range(len(table.vmas)) if rows is None else rows),
    }


def unmapped(table: Table) -> dict[str, Any]:
    return {
        "bytes": table.unmapped,
        "objects": None if table.holdings is None else [row._asdict() for row in table.holdings],
    }


def against(table: Table, ledger: Sequence[Line]) -> dict[str, Any]:
    return {
        "ledger": [
            {**line._asdict(), "causes": [cause._asdict() for cause in line.causes]}
            for line in ledger
        ],
        "beyond_rss": [{"part": row.cause, "bytes": row.bytes} for row in beyond_rss(table)],
    }


def show(table: Table, ledger: Sequence[Line], groups: Sequence[Group], out: TextIO) -> None:
    """Write totals, every VMA, the short ledger, and the groups by kind."""
    body = amounts(table) | against(table, ledger) | {"groups": group_rows(groups)}
    write_table(table, body, out)


def groups(table: Table, found: Sequence[Group], out: TextIO, **_: object) -> None:
    """Write the totals and the groups that add up to them."""
    body = {"totals": {k: table.totals[k] for k in table.names}, "groups": group_rows(found)}
    write_table(table, body, out)


def group_rows(found: Sequence[Group]) -> list[dict[str, Any]]:
    return [
        {"group": group.key, "vmas": group.vmas,
         "evidence": BY_KEY[group.key].evidence if group.key in BY_KEY else None, **group.amounts}
        for group in found
    ]


def maps(table: Table, rows: list[int], out: TextIO, **_: object) -> None:
    """Write show's document without the ledger; the options are for other formats."""
    write_table(table, amounts(table, rows), out)


def explain(table: Table, ledger: Sequence[Line], theirs: Theirs, out: TextIO) -> None:
    """Write every line of the ledger; ours - theirs = sum of the causes' bytes + unexplained."""
    body = {
        **against(table, ledger),
        **{name: table.totals[name] for name in ("distinct", "freed")},
        "unmapped": unmapped(table),
        "not_read": list(theirs.not_read),
    }
    write_table(table, body, out)


def pages(batches: Iterable[Pages], walk: Walk[Pages], out: TextIO) -> None:
    """Write one object per line for each page, huge page or range without pages."""
    for batch in batches:
        out.write(page_lines(batch, walk.facts.page_size).decode())


def page_lines(rows: Pages, page_size: int) -> bytes:
    return pieces.lines(
        '{"addr":"0x', pieces.hexadecimal(rows.addr), '","size":', pieces.decimal(rows.size),
        ',"state":"', describe.states(rows), '","pfn":', describe.number(rows, rows.pfn, "null"),
        ',"phys":', describe.physical(rows, page_size, "null", '"0x', '"'),
        ',"flags":[', describe.flag_words(rows, '"'),
        '],"mapcount":', describe.number(rows, rows.mapcount, "null"),
        ',"swap":', describe.swap_place(rows, '{"type":', ',"offset":', "}", "null"), "}",
    )


def heap(found: Heap, out: TextIO) -> None:
    """Write what the allocator holds, in all and by arena."""
    names = ("obtained", "in_use", "free", "trim", "trim_exclusive", "thread_top", "scattered")
    walk = found.walk
    write(
        {
            "process": {"pid": walk.pid, "name": walk.name, "exe": walk.exe},
            "allocator": found.allocator,
            "library": found.library,
            **{key: found.total(name)
               for name, key in zip(names, (*names[:5], "thread_tops", "scattered"), strict=True)},
            "tcache": found.tcache,
            "mmapped": found.mmapped,
            "explained": found.explained,
            "anonymous": found.anonymous,
            "exact": found.exact,
            "why": found.why,
            "stopped_ns": found.stopped_ns,
            "stacks": found.stacks._asdict(),
            "pools": None if found.pools is None else found.pools._asdict(),
            "java": None if found.java is None else [one._asdict() for one in found.java],
            "returnable": None if found.returnable is None else found.returnable._asdict(),
            "arenas": [arena._asdict() for arena in found.arenas],
            "withheld": [{"what": row.what, "why": row.why} for row in found.outcome.withheld],
            "partial": found.outcome.partial,
        },
        out,
    )


def check(report: Report, out: TextIO) -> None:
    """Write the report: pages and fields compared, and every difference."""
    write(asdict(report), out)


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


def doctor(checks: Sequence[Check], machine: str, out: TextIO) -> None:
    """Write every check."""
    write({"machine": machine, "checks": [check._asdict() for check in checks]}, out)


def processes(rows: Sequence[Process], summary: str, out: TextIO) -> None:
    """Write every process with its RSS."""
    write({"machine": summary, "processes": [row._asdict() for row in rows]}, out)


VIEWS = {
    "show": show, "groups": groups, "maps": maps, "pages": pages, "explain": explain,
    "heap": heap, "check": check, "vtop": vtop, "doctor": doctor, "processes": processes,
}
