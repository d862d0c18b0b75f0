"""What the footer of a recording says, each value of it checked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from pagewalk.model.arrow import arrow
from pagewalk.model.errors import BadRecording
from pagewalk.model.facts import Facts
from pagewalk.snapshot.damage import reading
from pagewalk.snapshot.documents import NO_NAME
from pagewalk.snapshot.schema import COLUMNS, INTEGER, KEY, MAGIC, VERSION, Meta

LONGEST_FOOTER = 64 << 20


def check_ends(file: Any, path: str) -> None:
    """Raise BadRecording unless ``file`` begins and ends as a Parquet file does."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if file.read(4) != MAGIC:
        raise BadRecording(path, "it does not begin as a Parquet file does")
    if size < 12:
        raise BadRecording(path, "it is cut")
    file.seek(size - 8)
    end = file.read(8)
    if end[4:] != MAGIC:
        raise BadRecording(path, "it is cut: its footer is missing")
    if int.from_bytes(end[:4], "little") > min(size, LONGEST_FOOTER):
        raise BadRecording(path, "its footer is damaged")


def read_footer(file: Any, path: str) -> tuple[Meta, Facts]:
    """Return what the footer of an open Parquet file says; raises BadRecording."""
    schema = file.schema_arrow
    with reading(path):
        said = (schema.metadata or {}).get(KEY.encode())
        said = said or (file.metadata.metadata or {}).get(KEY.encode())
        if said is None:
            raise BadRecording(path, "it is a Parquet file, but none of pagewalk's")
        found = json.loads(said)
        if not isinstance(found, dict) or type(found.get("schema")) is not int:
            raise BadRecording(path, "its footer does not say which schema it has")
        if found["schema"] > VERSION:
            raise BadRecording(
                path, f"it has schema {found['schema']}, and this pagewalk knows schemas up to"
                f" {VERSION}; read it with a newer one")
        facts = facts_of(found.pop("facts"))
        known = {name: found[name] for name in Meta._fields if name in found}
        meta = Meta(**known)
        check_meta(meta, path)
        missing = {c.name for c in COLUMNS[:2]} - set(schema.names)
        if missing:
            raise BadRecording(path, f"it has no column {missing.pop()}")
        check_types(schema, path)
        return meta, facts


def facts_of(said: Any) -> Facts:
    """Return the facts of a footer."""
    major, minor = said["release"]
    config = said["config"]
    known = None if config is None else frozenset(map(str, config))
    keys = bool(said["protection_keys"])
    page_size, cpus = said["page_size"], said["cpus"]
    if type(page_size) is not int or not 1 << 12 <= page_size <= 1 << 16 or (
            page_size & page_size - 1):
        raise ValueError("pages of an odd size")
    if type(cpus) is not int or not 0 < cpus < 1 << 20:
        raise ValueError("an odd number of CPUs")
    from pagewalk.pagetables.arch import ARCHES

    if not isinstance(said["architecture"], str) or said["architecture"] not in ARCHES:
        raise ValueError("an unknown architecture")
    return Facts(str(said["architecture"]), (int(major), int(minor)), page_size, cpus,
                 constant(known), constant(keys))


def constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def check_meta(meta: Meta, path: str) -> None:
    """Raise BadRecording unless each field has its type."""
    for (name, kind), value in zip(Meta.__annotations__.items(), meta, strict=True):
        large = type(value) is int and not -(1 << 63) <= value < 1 << 63
        if type(value) is not kind or large or (type(value) is str and NO_NAME.search(value)):
            raise BadRecording(path, f"its footer has an odd {name}")


def check_types(schema: Any, path: str) -> None:
    """Raise BadRecording unless each column that is known has its type."""
    pa = arrow()
    for column in COLUMNS:
        if column.name in schema.names:
            kind = schema.field(column.name).type
            text = pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type)
            if not (pa.types.is_int64(kind) if column.kind == INTEGER else text):
                raise BadRecording(path, f"its column {column.name} is {kind}")
