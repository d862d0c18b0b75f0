"""The document of `ram`: kinds that add up to the total, the ledger, what could be had back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

from pagewalk.render.document import write
from pagewalk.system.ram import GROUPS, PARTS
from pagewalk.system.ram_ledger import not_compared

if TYPE_CHECKING:
    from pagewalk.system.look import Ram


def ram(found: Ram, out: TextIO, **_: object) -> None:
    """Write all of it, with or without --ledger."""
    parts = found.parts
    write(
        {
            "source": {"name": found.source},
            "total": found.total,
            "kinds": parts,
            "groups": None if parts is None else {
                group: [part.name for part in PARTS if part.group == group and part.name in parts]
                for group in GROUPS
            },
            "file_systems": [{"type": name, "mapped": mapped, "unmapped": unmapped}
                             for name, (mapped, unmapped) in found.file_systems.items()],
            "headroom": None if found.headroom is None else found.headroom._asdict(),
            "ledger": lines(found),
            "not_compared": [{"field": name, "why": reason}
                             for name, reason in not_compared(found.totals).items()],
            "withheld": [{"what": row.what, "why": row.why} for row in found.withheld],
            "partial": found.partial,
        },
        out,
    )


def lines(found: Ram) -> list[dict[str, Any]]:
    return [{**line._asdict(), "causes": [cause._asdict() for cause in line.causes]}
            for line in found.lines]
