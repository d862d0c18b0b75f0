"""The answer to a SELECT, whatever its columns: text, CSV, JSON."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import islice
from typing import Any, TextIO

from pagewalk.render.amounts import human
from pagewalk.render.csv import row as csv_row
from pagewalk.render.document import SCHEMA, version
from pagewalk.render.terminal import paint, printable

ABREAST = 1000  # rows that are lined up with one another
MISSING, NULL = "n/a", "null"
# Columns of views that are bytes.
AMOUNTS = frozenset((
    "size", "rss", "pss", "uss", "swap", "present", "not_present", "not_mapped", "anon", "file",
    "shmem", "zero", "special", "hugetlb", "distinct_bytes", "freed", "page_tables", "charged",
    "allowed", "headroom", "reclaimable", "unmapped", "kernel", "mapped", "dirty", "active", "huge",
    "used", "shared", "extra", "grown", "median", "rss_first", "rss_last", "rss_most",
))
Row = Sequence[Any]


def text(
    columns: Sequence[str], rows: Iterable[Row], out: TextIO, *, in_units: bool = False,
    none: str = MISSING,
) -> int:
    """Write a table and return how many rows it has; numbers are lined up on the right.

    ``in_units``: columns called as amounts are, in K, M and G. ``none`` is what is written of null:
    MISSING where something was withheld, else NULL, of which the views say what it means.
    """
    heads = [printable(name.upper()) for name in columns]
    count, left, widths = 0, iter(rows), [len(name) for name in heads]
    amounts = [in_units and name.lower() in AMOUNTS for name in columns]
    while some := list(islice(left, ABREAST)):
        cells = [[word(value, amount, none) for value, amount in zip(row, amounts, strict=True)]
                 for row in some]
        widths = [max(width, *map(len, column))
                  for width, column in zip(widths, zip(*cells, strict=True), strict=True)]
        right = [all(value is None or is_number(value) for value in column)
                 for column in zip(*some, strict=True)]
        if not count:
            out.write(paint(out, "aside", line(heads, widths, right)) + "\n")
        out.writelines(line(row, widths, right) + "\n" for row in cells)
        count += len(some)
    if not count:
        out.write(paint(out, "aside", " ".join(heads)) + "\nno rows\n")
    return count


def line(words: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = (one.rjust(width) if to_right else one.ljust(width)
              for one, width, to_right in zip(words, widths, right, strict=True))
    return "  ".join(padded).rstrip()


def word(value: Any, amount: bool = False, none: str = MISSING) -> str:
    if value is None:
        return none
    if amount and isinstance(value, int):
        return human(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return printable(plain_text(value))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def plain_text(value: Any) -> str:
    found = plain(value)
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def csv(columns: Sequence[str], rows: Iterable[Row], out: TextIO) -> None:
    """Write a line of names and a line for each row; an empty field is null."""
    out.write(csv_row(*columns))
    out.writelines(csv_row(*(None if value is None else plain_text(value) for value in row))
                   for row in rows)


def as_json(
    columns: Sequence[str], rows: Iterable[Row], out: TextIO, *, about: Mapping[str, Any]
) -> None:
    """Write a document with ``about`` in front and a line for each row, as they come."""
    head = {"schema": SCHEMA, "pagewalk": version(), **about, "columns": list(columns)}
    out.write("{\n" + "".join(f"{json.dumps(key)}: {json.dumps(value)},\n"
                              for key, value in head.items()) + '"rows": [')
    names = unique(columns)
    out.writelines(separated(json.dumps(dict(zip(names, map(plain, row), strict=True)))
                             for row in rows))
    out.write("\n]\n}\n")


def separated(lines: Iterable[str]) -> Iterator[str]:
    before = "\n"
    for one in lines:
        yield before + one
        before = ",\n"


def unique(names: Sequence[str]) -> list[str]:
    """Return ``names``, with a number after one that was there before: a key may occur once."""
    found: dict[str, None] = {}
    for name in names:
        number, one = 1, name
        while one in found:
            number += 1
            one = f"{name}_{number}"
        found[one] = None
    return list(found)


def plain(value: Any) -> Any:
    """Return ``value`` as what JSON has: times in UTC as text, bytes as base64, no NaN."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds") + ("" if value.tzinfo else "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return str(value)


def iso(micros: int) -> str:
    """Return a time, microseconds since 1970, as text in UTC."""
    seconds, rest = divmod(micros, 1_000_000)
    return plain(datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest, tzinfo=None))  # type: ignore[no-any-return]
