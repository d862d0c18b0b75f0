"""A JSON document: which schema and program wrote it, and a line for each key and each row."""

from __future__ import annotations

import json
from typing import Any, TextIO

SCHEMA = "pagewalk/1"


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


def version() -> str:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("pagewalk")
    except PackageNotFoundError:
        return "unknown"
