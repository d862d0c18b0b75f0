"""Write a recording: rows by kind into one Parquet file that is there whole, or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np

from pagewalk.model.arrow import arrow, integers, parquet, strings
from pagewalk.model.errors import BadRequest, in_a_line, naming
from pagewalk.model.facts import Facts
from pagewalk.snapshot.schema import COLUMNS, INTEGER, KEY, LABEL, RECORDS, Meta

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
# Rows of a row group: what is held before it is written, some 15 MB of pages.
GROUP = 1 << 17
# Columns of few values in rows of pages, and texts. An empty dictionary takes 60 bytes in each row
# group that does not use the column.
REPEATED = [column.name for column in COLUMNS if column.kind != INTEGER
            or (column.name in RECORDS["page"] and not column.rising)]


class Writer:
    """Rows on their way into a file, by kind of row."""

    def __init__(self, file: Any) -> None:
        pa = arrow()
        self.schema = pa.schema([(column.name, arrow_type(pa, column.kind)) for column in COLUMNS])
        self._file = parquet().ParquetWriter(
            file, self.schema, compression="zstd", compression_level=3,
            use_dictionary=REPEATED, store_schema=False,
            column_encoding={c.name: "DELTA_BINARY_PACKED" for c in COLUMNS if c.rising},
            write_statistics=["record", "pid", "start", "frame", "name"],
        )
        self._waiting: dict[str, list[Added]] = {}

    def add(self, record: str, columns: Mapping[str, Any]) -> None:
        """Add rows of kind ``record``: ``columns`` by name are arrays or lists of one length.

        A column that is missing or None is null. Unsigned numbers are kept as they are, as two's
        complement. The arrays must not change afterwards.
        """
        unknown = columns.keys() - set(RECORDS[record])
        assert not unknown, f"{record} has no {unknown}"
        given = {name: c for name, c in columns.items() if c is not None}
        count = len(next(iter(given.values())))
        if not count:
            return
        waiting = self._waiting.setdefault(record, [])
        waiting.append(Added(count, given))
        if sum(added.rows for added in waiting) >= GROUP:
            self._flush(record)

    def _flush(self, record: str) -> None:
        # As a whole: a row group has all columns, and each conversion costs as much as many rows.
        pa, waiting = arrow(), self._waiting.pop(record)
        count = sum(added.rows for added in waiting)
        labels = pa.DictionaryArray.from_arrays(integers(np.zeros(count, np.int32)),
                                                strings([record]))
        made = [labels, *(column_of(pa, field, waiting) for field in self.schema if
                          field.name != "record")]
        self._file.write_table(pa.Table.from_arrays(made, schema=self.schema),
                               row_group_size=GROUP)

    def abandon(self) -> None:
        """Write nothing more, and no footer: pyarrow would do so when this is collected."""
        self._file.is_open = False

    def close(self, meta: Meta, facts: Facts) -> None:
        """Write what is waiting, and what the whole recording is, as a row and in the footer."""
        self.add("meta", {
            "name": [meta.host], "state": [meta.reason or None], "moment": [meta.time],
            "uptime": [meta.uptime], "boot": [meta.boot], "unit": [facts.page_size],
            "text": [footer(meta, facts)]})
        for record in list(self._waiting):
            self._flush(record)
        self._file.add_key_value_metadata({KEY: footer(meta, facts)})
        self._file.close()


class Added(NamedTuple):
    """Rows that wait to be written: how many, and their columns."""

    rows: int
    columns: Mapping[str, Any]


def column_of(pa: Any, field: Any, waiting: Sequence[Added]) -> Any:
    """Return column ``field`` of all that is ``waiting``, null where it was not given."""
    count = sum(added.rows for added in waiting)
    given = [added.columns.get(field.name) for added in waiting]
    known = [values for values in given if values is not None]
    if not known:
        return pa.nulls(count, field.type)
    if isinstance(known[0], Labels):
        return labelled(pa, known)
    if len(known) == len(given) and all(isinstance(values, np.ndarray) for values in known):
        return integers(np.concatenate([words(values) for values in known]))
    parts = [pa.nulls(added.rows, field.type) if values is None else listed(pa, field, values)
             for added, values in zip(waiting, given, strict=True)]
    return pa.chunked_array(parts, field.type)


def labelled(pa: Any, parts: Sequence[Labels]) -> Any:
    # Labels of one column always have the same names.
    codes = np.concatenate([values.codes for values in parts]).astype(np.int32)
    return pa.DictionaryArray.from_arrays(integers(codes), strings(parts[0].names))


def listed(pa: Any, field: Any, values: Any) -> Any:
    if isinstance(values, np.ndarray):
        return integers(words(values))
    if pa.types.is_string(field.type):
        return strings(values)
    known = np.array([value is not None for value in values], bool)
    if pa.types.is_dictionary(field.type):
        names = sorted({value for value in values if value is not None})
        at = {name: number for number, name in enumerate(names)}
        codes = np.array([at.get(value, 0) for value in values], np.int32)
        return pa.DictionaryArray.from_arrays(integers(codes, known), strings(names))
    return integers(np.array([value or 0 for value in values], np.int64), known)


def words(values: Any) -> Any:
    # Numbers as i64; large unsigned ones turn negative.
    return (values if values.dtype == np.uint64 else values.astype(np.int64)).view(np.int64)


class Labels:
    """A column of few texts: ``codes`` are rows of ``names``."""

    def __init__(self, codes: Any, names: Sequence[str]) -> None:
        self.codes, self.names = codes, names

    def __len__(self) -> int:
        return len(self.codes)


def arrow_type(pa: Any, kind: str) -> Any:
    if kind == INTEGER:
        return pa.int64()
    return pa.dictionary(pa.int32(), pa.string()) if kind == LABEL else pa.string()


def footer(meta: Meta, facts: Facts) -> str:
    """Return what the footer says, as JSON."""
    config = facts.config
    return json.dumps({**meta._asdict(), "facts": {
        "architecture": facts.architecture, "release": facts.release,
        "page_size": facts.page_size, "cpus": facts.cpus,
        "config": None if config is None else sorted(config),
        "protection_keys": facts.protection_keys,
    }})


def check_place(path: str) -> None:
    """Raise BadRequest where no file can be, before anything is done for it."""
    if not path:
        raise BadRequest("cannot write to '': the name is empty; name a file")
    if path == "-":
        raise BadRequest("a recording is written as a whole, into a file: name one with -o FILE")
    if os.path.exists(path) and not os.path.isfile(path):
        what = "a directory" if os.path.isdir(path) else "no regular file"
        raise BadRequest(f"cannot record into {in_a_line(path)}: it is {what}; name a file")


@contextmanager
def whole_file(path: str) -> Iterator[Any]:
    """Yield a file to write to, which replaces ``path`` at the end of the block, mode 0600.

    It has no name until it is on the disk, so that nothing is left of half of one, whatever ends
    us; where a file system has no such files (such as NFS, 9p, FAT) it is called
    ``.pagewalk.*.partial``. If the block fails, nothing has changed; a symbolic link is replaced,
    and what it points to left alone. Raises OSError, BadRequest.
    """
    check_place(path)
    folder = os.path.dirname(path) or "."
    partial = os.path.join(folder, f".pagewalk.{os.urandom(6).hex()}.partial")
    try:
        fd, named = open_new(folder, partial)
        with naming(path), open(fd, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
            if not named:  # no file can be replaced by one without a name
                give_name(fd, partial)
        os.replace(partial, path)
        sync_folder(folder)
    except BaseException as error:
        if not isinstance(error, FileExistsError):
            with suppress(OSError):
                os.unlink(partial)
        if isinstance(error, OSError) and (
                error.filename in (folder, partial) or error.filename2 is not None):
            raise OSError(error.errno, error.strerror, path) from error
        raise


def open_new(folder: str, partial: str) -> tuple[int, bool]:
    """Open a new file in ``folder``, without a name if that can be, else as ``partial``.

    Return its descriptor, and whether it has a name.
    """
    with suppress(OSError):
        return os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600), False
    return os.open(partial, NEW, 0o600), True


def give_name(fd: int, path: str) -> None:
    """Give the file ``fd``, which has no name, the name ``path``; a copy of it if that is refused.
    """
    try:
        # With a descriptor Python calls linkat(2), which can follow a link; it means nothing to an
        # absolute path.
        os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd)
    except OSError:  # by a seccomp filter or a security module, or there is no /proc/self/fd
        with open(os.open(path, NEW, 0o600), "wb") as out, open(os.dup(fd), "rb") as file:
            file.seek(0)
            shutil.copyfileobj(file, out)
            out.flush()
            os.fsync(out.fileno())


def sync_folder(folder: str) -> None:
    """Write the names in ``folder`` to the disk; some file systems cannot."""
    with suppress(OSError):  # nor can who may write to it and not read it
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
