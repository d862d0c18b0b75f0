"""Arrow, the columns that other programs read: the only file that imports pyarrow.

pyarrow is an optional extra, imported only when asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

import numpy as np

from pagewalk.model.errors import PackageMissing

ESCAPED = re.compile("[\udc80-\udcff]")


def arrow(what: str = "a recording") -> Any:
    """Return the module pyarrow; raises PackageMissing, which says that ``what`` needs it."""
    try:
        import pyarrow
    except ImportError:
        raise PackageMissing(what, "pyarrow") from None
    return pyarrow


def parquet(what: str = "a recording") -> Any:
    """Return the module pyarrow.parquet; raises PackageMissing."""
    arrow(what)
    import pyarrow.parquet

    return pyarrow.parquet


def dataset(what: str = "a recording") -> Any:
    """Return the module pyarrow.dataset, several files as one table; raises PackageMissing."""
    arrow(what)
    import pyarrow.dataset

    return pyarrow.dataset


def file_systems(what: str = "an object store") -> Any:
    """Return the module pyarrow.fs, file systems of object stores; raises PackageMissing."""
    arrow(what)
    import pyarrow.fs

    return pyarrow.fs


def escaped(text: str) -> str:
    r"""Return ``text`` as UTF-8 can have it: bytes that are not UTF-8 as \xNN, and \x as \x5cx."""
    if "\\x" not in text and text.isascii():
        return text
    return ESCAPED.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}",
                       text.replace("\\x", "\\x5cx"))


def integers(values: Any, known: Any = None) -> Any:
    """Return a numpy column of i32 or i64 as an Array, without copying it.

    Where ``known`` (bool) is False it is null. pyarrow.array does the same, but imports pandas
    where that is installed, to ask whether this is one of its columns: a fifth of a second.
    """
    pa = arrow()
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(
        kind, len(values), [bitmap(known), pa.py_buffer(np.ascontiguousarray(values))])


def strings(values: Sequence[str | None]) -> Any:
    """Return texts as an Array, escaped; None is null. See integers."""
    pa = arrow()
    parts = [b"" if value is None else escaped(value).encode() for value in values]
    ends = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    if ends[-1] > np.iinfo(np.int32).max:  # more than one Array can hold
        return pa.array([part.decode() for part in parts], pa.string())
    known = np.array([value is not None for value in values], bool)
    return pa.Array.from_buffers(pa.string(), len(parts), [
        bitmap(known), pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(parts))])


def bitmap(known: Any) -> Any:
    # Which values are not null, a bit each; None: all of them.
    if known is None or known.all():
        return None
    return arrow().py_buffer(np.packbits(known, bitorder="little"))


def stream(schema: Any, batches: Iterable[Any], requested: Any) -> Any:
    """Return a PyCapsule of RecordBatches, which come when the reader asks for them."""
    reader = arrow("an Arrow stream").RecordBatchReader.from_batches(schema, iter(batches))
    return reader.__arrow_c_stream__(requested)


def schema_of(kind: Any) -> Any:
    """Return the pyarrow Schema of a class of Rows; a State or a Backing is a word."""
    annotations = kind.__annotations__
    return arrow("an Arrow stream").schema(
        [(name, type_of(annotations[name], kind.words.get(name))) for name in kind.names])


def batch_of(rows: Any) -> Any:
    """Return Rows as a pyarrow RecordBatch, without copying a column of numbers."""
    columns = {name: getattr(rows, name) for name in rows.names}
    return batch(schema_of(type(rows)), columns, len(rows), rows.words)


def batch(
    schema: Any, columns: Mapping[str, Any], count: int, words: Mapping[str, Sequence[str]]
) -> Any:
    """Return columns (numpy arrays, texts, or None for null) as a RecordBatch of ``schema``.

    ``words`` are what the numbers of some columns stand for.
    """
    pa = arrow("an Arrow stream")

    def column(field: Any) -> Any:
        values = columns[field.name]
        if values is None:
            return pa.nulls(count, field.type)
        if pa.types.is_dictionary(field.type):
            return pa.DictionaryArray.from_arrays(pa.array(values), pa.array(words[field.name]))
        if pa.types.is_string(field.type):
            return pa.array(map(escaped, values), field.type)
        return pa.array(values, field.type)

    return pa.record_batch([column(field) for field in schema], schema=schema)


def type_of(annotation: Any, words: Sequence[str] | None) -> Any:
    # The annotation is ndarray[shape, dtype[scalar]], perhaps in a union with None.
    pa = arrow("an Arrow stream")
    if words is not None:
        return pa.dictionary(pa.uint8(), pa.string())
    scalars = [one for one in inside(annotation)
               if isinstance(one, type) and issubclass(one, np.generic)]
    return pa.from_numpy_dtype(np.dtype(scalars[0])) if scalars else pa.string()


def inside(annotation: Any) -> Iterator[Any]:
    yield annotation
    for one in get_args(annotation):
        yield from inside(one)
