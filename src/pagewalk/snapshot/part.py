"""Rows of a recording: columns as pyarrow has them, as numbers and text."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from pagewalk.model.arrow import arrow
from pagewalk.model.columns import I64
from pagewalk.model.errors import BadRecording
from pagewalk.snapshot.damage import reading

BYTE = re.compile(r"\\x(5c|[89a-f][0-9a-f])")


class Part(NamedTuple):
    """Rows of one kind that stand together in a file: columns by name, as pyarrow has them."""

    table: Any
    path: str

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def numbers(self, name: str) -> I64 | None:
        """Return a column as i64, 0 where it is null; None if it is null throughout."""
        column = self.table.column(name)
        if column.null_count == len(column) and len(column):
            return None
        return whole_numbers(column)

    def needed(self, name: str) -> I64:
        """Return a column that has no nulls, i64; raises BadRecording."""
        column = self.table.column(name)
        if column.null_count:
            raise BadRecording(self.path, f"a row has no {name}")
        return whole_numbers(column)

    def values(self, name: str) -> list[int | None]:
        """Return a column of numbers, None where it is null."""
        found: list[int | None] = self.table.column(name).to_pylist()
        return found

    def texts(self, name: str) -> list[str | None]:
        """Return a column of text, None where it is null; raises BadRecording."""
        column = self.table.column(name)
        pa = arrow()
        with reading(self.path):
            if not pa.types.is_dictionary(column.type):
                return [None if one is None else unescaped(one) for one in column.to_pylist()]
            column = column.unify_dictionaries().combine_chunks()
            known = [unescaped(one) for one in column.dictionary.to_pylist()]
            return [None if at is None else known[at] for at in column.indices.to_pylist()]

    def without(self, name: str) -> Part:
        """Return the rows whose column ``name`` is null."""
        return Part(self.table.filter(self.table.column(name).is_null()), self.path)

    def text(self, name: str, row: int) -> str:
        """Return one value of a column of text, empty if it is null; raises BadRecording."""
        with reading(self.path):
            return unescaped(self.table.column(name)[row].as_py() or "")

    def codes(self, name: str) -> tuple[I64, list[str]]:
        """Return a LABEL column as rows of a list of its values; raises BadRecording."""
        pa = arrow()
        column = self.table.column(name)
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        column = column.unify_dictionaries().combine_chunks()
        if column.null_count:
            raise BadRecording(self.path, f"a row has no {name}")
        codes = column.indices.cast(pa.int64())
        return whole_numbers(pa.chunked_array([codes])), column.dictionary.to_pylist()


def whole_numbers(column: Any, null: int = 0) -> I64:
    """Return a pyarrow column of int64, with ``null`` in place of what it lacks.

    Its own to_numpy and fill_null import pandas where that is installed, and it is not needed: that
    takes as long as a whole command.
    """
    parts = [np.zeros(0, np.int64)]
    for chunk in column.chunks:
        if len(chunk):
            valid, values = chunk.buffers()
            found = np.frombuffer(values, np.int64, len(chunk), chunk.offset * 8)
            if chunk.null_count:
                bits = np.unpackbits(np.frombuffer(valid, np.uint8), bitorder="little")
                found = np.where(bits[chunk.offset :][: len(chunk)], found, null)
            parts.append(found)
    return parts[1] if len(parts) == 2 else np.concatenate(parts)


def unescaped(text: str) -> str:
    """Return what model.arrow.escaped was given."""
    if "\\x" not in text:
        return text
    return BYTE.sub(lambda found: "\\" if found[1] == "5c" else chr(0xDC00 + int(found[1], 16)),
                    text)
