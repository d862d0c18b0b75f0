"""A recording that is open: its rows are read when they are asked for, a row group at a time.

A file may be cut, newer than this program, or made to do harm: whatever does not fit is one
sentence, BadRecording.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from stat import S_ISREG
from typing import Any

import numpy as np

from pagewalk.model.arrow import arrow, parquet, stream
from pagewalk.model.errors import BadRecording, BadRequest, in_a_line
from pagewalk.snapshot.damage import reading
from pagewalk.snapshot.footer import check_ends, read_footer
from pagewalk.snapshot.part import Part, whole_numbers
from pagewalk.snapshot.places import (
    is_dataset,
    is_url,
    opened,
    recordings_directly_in,
    recordings_in,
    shown,
)
from pagewalk.snapshot.schema import COLUMNS, INTEGER, RECORDS

TEXTS = [column.name for column in COLUMNS if column.kind != INTEGER]
# More rows than the writer puts into a group, and more bytes of a group's columns: 16 times.
MOST_ROWS, MOST_BYTES = 1 << 21, 1 << 29


class Recording:
    """An open recording: ``meta`` and ``facts`` of its footer; rows are read when asked for."""

    def __init__(self, path: str) -> None:
        self.path = shown(path)
        with reading(self.path):
            self._disk = opened(path) if is_url(path) else self._regular(path)
        try:
            self._file = self._open()
            self.meta, self.facts = read_footer(self._file, self.path)
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
        inside = recordings_directly_in(path)
        if inside:
            raise BadRecording(self.path, "it is a folder of recordings: name one of them, such as"
                               f" {inside[-1]}, or give the folder to query")
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
