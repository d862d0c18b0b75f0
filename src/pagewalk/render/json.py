"""JSON, schema pagewalk/1: bytes as integers, addresses as strings, null where withheld.

Every key is documented in docs/json.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, TextIO

import numpy as np

from pagewalk.account.check import Report
from pagewalk.account.ledger import Line, beyond_rss
from pagewalk.account.smaps import others, vmflags
from pagewalk.account.table import TOTALS, Table
from pagewalk.model.bits import KPAGEFLAGS, names
from pagewalk.model.columns import U8, Flag, Pages
from pagewalk.pagetables.trace import Step
from pagewalk.proc.counters import Theirs
from pagewalk.proc.processes import Process
from pagewalk.render import describe
from pagewalk.render import lines as pieces
from pagewalk.sources.doctor import Check
from pagewalk.translate.translation import Translation
from pagewalk.walking.walk import Walk

SCHEMA = "pagewalk/1"


def version() -> str:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("pagewalk")
    except PackageNotFoundError:
        return "unknown"


def head(table: Table) -> dict[str, Any]:
    walk = table.walk
    return {
        "schema": SCHEMA,
        "pagewalk": version(),
        "process": {"pid": walk.pid, "name": walk.name, "exe": walk.exe},
        "source": {"name": walk.source, "arch": walk.facts.architecture,
                   "page_size": walk.facts.page_size},
    }


def foot(table: Table) -> dict[str, Any]:
    outcome = table.outcome
    return {
        "withheld": [{"what": row.what, "why": row.why} for row in outcome.withheld],
        "partial": outcome.partial,
        "stall_ns": outcome.stall.longest_ns,
    }


def ordered(table: Table) -> list[str]:
    # The guaranteed keys first, in the documented order.
    return [*TOTALS, *(name for name in table.columns if name not in TOTALS)]


def vma_rows(table: Table) -> list[dict[str, Any]]:
    vmas, values = table.vmas, table.columns
    keys = ordered(table)
    lists = {k: None if (c := values[k]) is None else c.tolist() for k in keys}
    return [
        {
            "start": hex(start),
            "end": hex(end),
            "perms": describe.perms(word),
            "offset": offset,
            "name": vmas.name[row],
            **{k: None if (c := lists[k]) is None else c[row] for k in keys},
            "vm_flags": vmflags(table, row),
            **others(table, row),
        }
        for row, (start, end, word, offset) in enumerate(
            zip(vmas.start.tolist(), vmas.end.tolist(), vmas.perms.tolist(), vmas.offset.tolist(),
                strict=True)
        )
    ]


def write(document: dict[str, Any], out: TextIO) -> None:
    # One line per key and one per row: readable, and the rows are encoded by the C encoder, which
    # json.dump does not use when it indents.
    lines = (f"{json.dumps(key)}: {encode(value)}" for key, value in document.items())
    out.write("{\n" + ",\n".join(lines) + "\n}\n")


def encode(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return json.dumps(value)
    return "[\n" + ",\n".join(json.dumps(row) for row in value) + "\n]"


def totals(table: Table) -> dict[str, Any]:
    return {
        "totals": {k: table.totals[k] for k in ordered(table)},
        "from_kernel": list(table.from_kernel),
        "unmapped": unmapped(table),
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


def show(table: Table, ledger: Sequence[Line], out: TextIO) -> None:
    """Write totals, every VMA, and the short ledger."""
    write(
        {
            **head(table),
            **totals(table),
            "vmas": vma_rows(table),
            **against(table, ledger),
            **foot(table),
        },
        out,
    )


def maps(
    table: Table, out: TextIO, columns: Sequence[str] = (), *, everything: bool = False
) -> None:
    """Write show's document without the ledger; the options are for other formats."""
    del columns, everything
    write({**head(table), **totals(table), "vmas": vma_rows(table), **foot(table)}, out)


def explain(table: Table, ledger: Sequence[Line], theirs: Theirs, out: TextIO) -> None:
    """Write every line of the ledger; ours - theirs = sum of the causes' bytes + unexplained."""
    write(
        {
            **head(table),
            **against(table, ledger),
            **{name: table.totals[name] for name in ("distinct", "freed")},
            "unmapped": unmapped(table),
            "not_read": list(theirs.not_read),
            **foot(table),
        },
        out,
    )


def pages(batches: Iterable[Pages], walk: Walk[Pages], out: TextIO) -> None:
    """Write one object per line for each page, huge page or range without pages."""
    for batch in batches:
        out.write(page_lines(batch, walk.facts.page_size).decode())


def page_lines(rows: Pages, page_size: int) -> bytes:
    count = len(rows)

    def text(value: str) -> U8:
        return pieces.text(value, count)

    physical = describe.physical(rows, page_size, "")
    quoted = np.concatenate([text('"0x'), physical, text('"')], axis=1)
    known = describe.present(rows) if rows.pfn is not None else np.zeros(count, bool)
    return pieces.lines(
        text('{"addr":"0x'), pieces.hexadecimal(rows.addr), text('","size":'),
        pieces.decimal(rows.size), text(',"state":"'), describe.states(rows),
        text('","pfn":'), describe.frame(rows, "null"),
        text(',"phys":'), pieces.where(known, quoted, text("null")),
        text(',"flags":['), describe.flag_words(rows, '"'),
        text('],"mapcount":'), describe.mapcount(rows, "null"),
        text(',"swap":'), describe.swap_place(rows, '{"type":', ',"offset":', "}", "null"),
        text("}"),
    )


def check(report: Report, out: TextIO) -> None:
    """Write the report: pages and fields compared, and every difference."""
    write({"schema": SCHEMA, "pagewalk": version(), **asdict(report)}, out)


def vtop(found: Translation, out: TextIO, *, legend: bool = False) -> None:
    """Write one address's walk through the tables, an object per level, and what it leads to.

    ``legend`` is for the text format.
    """
    del legend
    trace, vmas, row = found.trace, found.vmas, found.row
    frame, opinion = found.frame, found.pagemap
    write(
        {
            "schema": SCHEMA,
            "pagewalk": version(),
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
            "vma": None if row is None else {
                "start": hex(int(vmas.start[row])),
                "end": hex(int(vmas.end[row])),
                "perms": describe.perms(int(vmas.perms[row])),
                "offset": int(vmas.offset[row]),
                "name": vmas.name[row],
            },
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
        "index": step.index,
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
    write({"schema": SCHEMA, "pagewalk": version(), "machine": machine,
           "checks": [check._asdict() for check in checks]}, out)


def processes(rows: Sequence[Process], summary: str, out: TextIO) -> None:
    """Write every process with its RSS."""
    write({"schema": SCHEMA, "pagewalk": version(), "machine": summary,
           "processes": [row._asdict() for row in rows]}, out)


VIEWS = {
    "show": show,
    "maps": maps,
    "pages": pages,
    "explain": explain,
    "check": check,
    "vtop": vtop,
    "doctor": doctor,
    "processes": processes,
}
