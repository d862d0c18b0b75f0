"""The document of `ram`: kinds that add up to the total, the ledger, what could be reclaimed."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from pagewalk.render.document import ledger_rows, missing, write
from pagewalk.render.group_json import file
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
            "deleted": None if found.deleted is None else {
                "files": found.deleted.files, "cached": found.deleted.amounts.cached,
                "largest": None if found.deleted.largest is None else file(found.deleted.largest)},
            "headroom": None if found.headroom is None else found.headroom._asdict(),
            "protected_by_min": found.protected,
            "ledger": ledger_rows(found.lines),
            "not_compared": [{"field": name, "why": reason}
                             for name, reason in not_compared(found.totals).items()],
            **missing(found.withheld),
        },
        out,
    )
