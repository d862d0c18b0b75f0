"""A JSON document: which schema and program wrote it, and a line for each key and each row."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from pagewalk.model.columns import partial

if TYPE_CHECKING:
    from pagewalk.account.ledger import Line
    from pagewalk.model.columns import Withheld

SCHEMA = "pagewalk/1"


def write(document: dict[str, Any], out: TextIO) -> None:
    # One line per key and one per row: readable, and the rows are encoded by the C encoder, which
    # json.dump does not use when it indents.
    document = {"schema": SCHEMA, "pagewalk": version(), **document}
    lines = (f"{json.dumps(key)}: {encode(value)}" for key, value in document.items())
    out.write("{\n" + ",\n".join(lines) + "\n}\n")


def missing(withheld: Iterable[Withheld]) -> dict[str, Any]:
    """Return the keys about what is missing, which every document has."""
    rows = list(withheld)
    return {"withheld": [{"what": row.what, "why": row.why} for row in rows],
            "partial": partial(rows)}


def ledger_rows(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """Return the lines of a ledger, with their causes."""
    return [{**line._asdict(), "causes": [cause._asdict() for cause in line.causes]}
            for line in lines]


def encode(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return json.dumps(value)
    return "[\n" + ",\n".join(json.dumps(row) for row in value) + "\n]"


def version() -> str:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("pagewalk")
    except PackageNotFoundError:
        return "unknown"
