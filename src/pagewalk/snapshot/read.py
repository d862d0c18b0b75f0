"""Read a recording: what its footer says, and its rows, a row group at a time.

A file may be cut, newer than this program, or made to do harm: whatever does not fit is one
sentence, BadRecording.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from stat import S_ISDIR, S_ISREG
from typing import Any, NamedTuple

import numpy as np

from pagewalk.model.arrow import arrow, parquet, stream
from pagewalk.model.columns import I64
from pagewalk.model.errors import BadRecording, BadRequest, PagewalkError, in_a_line
from pagewalk.model.facts import Facts
from pagewalk.proc.mounts import answered_elsewhere, real_path
from pagewalk.snapshot.documents import NO_NAME
from pagewalk.snapshot.places import is_dataset, is_url, opened, recordings_in, shown
from pagewalk.snapshot.schema import COLUMNS, INTEGER, KEY, MAGIC, RECORDS, VERSION, Meta

ENDING = ".pagewalk"  # what a recording is usually called; any other name will do
TEXTS = [column.name for column in COLUMNS if column.kind != INTEGER]
# More rows than the writer puts into a group, and more bytes of a group's columns: 16 times.
MOST_ROWS, MOST_BYTES = 1 << 21, 1 << 29
LONGEST_FOOTER = 64 << 20
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


class Recording:
    """An open recording: ``meta`` and ``facts`` of its footer; rows are read when asked for."""

    def __init__(self, path: str) -> None:
        self.path = shown(path)
        with reading(self.path):
            self._disk = opened(path) if is_url(path) else self._regular(path)
        try:
            self._file = self._open()
            self.meta, self.facts = self._footer()
            self._groups = self._statistics()
            self._names = frozenset(self._file.schema_arrow.names)
            self._last: dict[str, tuple[tuple[int, tuple[str, ...]], Any]] = {}
        except BaseException:
            self._disk.close()
            raise

    def _regular(self, path: str) -> Any:
        if is_dataset(path):
            raise BadRecording(self.path, "it is a directory of many: name one of them, such as"
                               f" {recordings_in(path)[-1].path}, or give all of them to query,"
                               " diff or fleet")
        # A FIFO must not be waited for.
        file = open(path, "rb", buffering=0, opener=lambda name, flags: os.open(  # noqa: SIM115
            name, flags | os.O_NONBLOCK))
        try:
            if not S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BadRecording(self.path, "it is no regular file")
            check_ends(file, self.path)
        except BaseException:
            file.close()
            raise
        return file

    def _open(self) -> Any:
        with reading(self.path):
            footer = parquet().read_metadata(self._disk)
            # A text that many rows repeat takes no memory for each of them.
            known = [name for name in TEXTS if name in footer.schema.names]
            return parquet().ParquetFile(self._disk, metadata=footer, read_dictionary=known)

    def _footer(self) -> tuple[Meta, Facts]:
        with reading(self.path):
            said = (self._file.schema_arrow.metadata or {}).get(KEY.encode())
            said = said or (self._file.metadata.metadata or {}).get(KEY.encode())
            if said is None:
                raise BadRecording(self.path, "it is a Parquet file, but none of pagewalk's")
            found = json.loads(said)
            if not isinstance(found, dict) or type(found.get("schema")) is not int:
                raise BadRecording(self.path, "its footer does not say which schema it has")
            if found["schema"] > VERSION:
                raise BadRecording(
                    self.path, f"it has schema {found['schema']}, and this pagewalk knows schemas"
                    f" up to {VERSION}; read it with a newer one")
            facts = facts_of(found.pop("facts"))
            known = {name: found[name] for name in Meta._fields if name in found}
            meta = Meta(**known)
            check_meta(meta, self.path)
            missing = {c.name for c in COLUMNS[:2]} - set(self._file.schema_arrow.names)
            if missing:
                raise BadRecording(self.path, f"it has no column {missing.pop()}")
            check_types(self._file.schema_arrow, self.path)
            return meta, facts

    def _statistics(self) -> list[tuple[str, int | None, int | None]]:
        # Of each row group, the kind of its rows, and the least and the highest pid.
        with reading(self.path):
            metadata, found = self._file.metadata, []
            names = self._file.schema_arrow.names
            record, pid = names.index("record"), names.index("pid")
            for at in range(metadata.num_row_groups):
                group = metadata.row_group(at)
                if not 0 <= group.num_rows <= MOST_ROWS:
                    raise BadRecording(self.path, f"row group {at} has {group.num_rows} rows")
                kind = group.column(record).statistics
                if kind is None or kind.min != kind.max:
                    raise BadRecording(self.path, f"row group {at} has rows of several kinds")
                pids = group.column(pid).statistics
                told = pids is not None and pids.has_min_max
                found.append((str(kind.min), pids.min if told else None,
                              pids.max if told else None))
            return found

    def parts(
        self, record: str, columns: tuple[str, ...], pid: int | None = None
    ) -> Iterator[Part]:
        """Yield the rows of kind ``record``, of one process if ``pid`` is given, by row group.

        Only ``columns`` are read, which may be missing in a file of an older schema.
        """
        names = [name for name in columns if name in self._names]
        more = ["pid"] if pid is not None and "pid" not in names else []
        for at, (kind, least, most) in enumerate(self._groups):
            if kind != record:
                continue
            if pid is not None and (least is None or most is None or not least <= pid <= most):
                continue
            with reading(self.path):
                table = self._row_group(record, at, (*names, *more))
                if pid is not None:
                    table = self._of(table, pid)
                for name in columns:
                    if name not in table.column_names:
                        table = table.append_column(name, arrow().nulls(len(table)))
            if len(table):
                yield Part(table, self.path)

    def _row_group(self, record: str, at: int, columns: tuple[str, ...]) -> Any:
        # The last one of each kind is kept: many small processes are in one.
        asked, table = self._last.get(record, (None, None))
        if asked != (at, columns):
            self._last.pop(record, None)  # it takes no memory while the next one is read
            self._check_size(at, columns)
            table = self._file.read_row_group(at, list(columns))
            self._last[record] = (at, columns), table
        return table

    def _check_size(self, at: int, names: tuple[str, ...]) -> None:
        # What is compressed may be a thousand times as large: the footer says it first.
        group = self._file.metadata.row_group(at)
        every = {name: column for column, name in enumerate(self._file.schema_arrow.names)}
        size = sum(group.column(every[name]).total_uncompressed_size for name in names)
        if not 0 <= size <= MOST_BYTES:
            raise BadRecording(self.path, f"row group {at} would take {size} bytes of memory")

    def _of(self, table: Any, pid: int) -> Any:
        # Rows of a process stand together.
        pids = whole_numbers(table.column("pid"), -1)
        rows = np.flatnonzero(pids == pid)
        if len(rows) == 0:
            return table.slice(0, 0)
        first, last = int(rows[0]), int(rows[-1]) + 1
        if last - first != len(rows):
            raise BadRecording(self.path, f"the rows of process {pid} do not stand together")
        return table.slice(first, last - first)

    @property
    def kinds(self) -> set[str]:
        """Return which kinds of rows there are."""
        return {kind for kind, _, _ in self._groups}

    def rows(self, record: str, pid: int | None = None) -> Selected:
        """Return the rows of kind ``record``, of one process if ``pid`` is given, as Arrow.

        They have the columns that such rows use. Raises BadRequest for a kind that is not known.
        """
        if record not in RECORDS:
            raise BadRequest(f"a recording has no rows of kind '{in_a_line(record)}'; there are"
                             f" {', '.join(RECORDS)}")
        return Selected(self, record, pid)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close(force=True)
        self._disk.close()


class Selected:
    """Rows of one kind of a recording, which whatever reads Arrow reads; see Recording.rows."""

    def __init__(self, recording: Recording, record: str, pid: int | None) -> None:
        self._recording, self._record, self._pid = recording, record, pid

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Return the rows as an Arrow stream, a row group at a time; raises PackageMissing.

        A damaged file ends the stream with an error of whoever reads it.
        """
        pa, used = arrow(), RECORDS[self._record]
        schema = pa.schema([
            (column.name, pa.int64() if column.kind == INTEGER else pa.string())
            for column in COLUMNS if column.name in used])
        parts = self._recording.parts(self._record, tuple(schema.names), self._pid)
        batches = (batch for part in parts
                   for batch in part.table.select(schema.names).cast(schema).to_batches())
        return stream(schema, batches, requested_schema)


def open_recording(path: str) -> Recording:
    """Open the recording at ``path``, to be closed, or used in a with block; raises BadRecording.

    Its rows are read when they are asked for; ``meta`` says what it is.
    """
    return Recording(path)


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


@contextmanager
def damage(path: str) -> Iterator[None]:
    """Raise BadRecording for whatever goes wrong in the block for what a recording has in it.

    Not every relation between its values is checked when they are read: a hostile file may have
    columns of any length, and a sum that no number can hold.
    """
    try:
        yield
    except PagewalkError:
        raise
    except (ValueError, LookupError, TypeError, ArithmeticError, AssertionError, AttributeError,
            RecursionError) as error:
        raise BadRecording(path, f"it is damaged: {first_line(error)}") from None


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Raise BadRecording for whatever goes wrong in the block, which reads a recording."""
    pa = arrow()
    try:
        with damage(path):
            yield
    except OSError as error:
        if error.errno is not None and error.strerror is not None and not isinstance(
                error, pa.ArrowException):
            raise BadRecording(path, error.strerror.lower()) from None
        raise BadRecording(path, first_line(error)) from None
    except pa.ArrowException as error:
        raise BadRecording(path, f"it is damaged: {first_line(error)}") from None


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


def may_be_recording(word: str) -> bool:
    """Return whether ``word``, as FILE or FILE:PROCESS, may name a recording."""
    return is_recording(word) or (":" in word and is_recording(word.rpartition(":")[0]))


def is_recording(word: str) -> bool:
    """Return whether ``word`` names a file that begins as a recording does, or is called so.

    So does a directory of many recordings, so that whoever opens it is told what to name instead.

    A file that is neither is not opened, nor is one in an object store: its name decides. Where
    a file system may never answer, only a name that ends as one of a recording is looked at.
    """
    if is_url(word):
        return word.partition("?")[0].endswith((".parquet", ENDING))
    if not word.endswith((".parquet", ENDING)) and "/" in word and (
            real_path(os.path.abspath(word), answered_elsewhere())[1]):
        return False
    try:
        mode = os.stat(word).st_mode
        if not S_ISREG(mode):
            return S_ISDIR(mode) and is_dataset(word)
        with open(word, "rb") as file:
            return file.read(4) == MAGIC or word.endswith(ENDING)
    except PermissionError:
        return os.path.isfile(word)  # whoever opens it is told why that is refused
    except (OSError, ValueError):
        return word.endswith(ENDING)


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


def unescaped(text: str) -> str:
    """Return what model.arrow.escaped was given."""
    if "\\x" not in text:
        return text
    return BYTE.sub(lambda found: "\\" if found[1] == "5c" else chr(0xDC00 + int(found[1], 16)),
                    text)


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200] or type(error).__name__
