"""Many rows by frame, sorted in pieces, which are kept on disk and merged: RAM is not the limit."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from pagewalk.model.columns import I64, Rows, join, take

Columns = TypeVar("Columns", bound=Rows)

# Rows that are sorted together, and the most that are merged together: 33 bytes each, and a few
# times as much while they are sorted.
PIECE = 1 << 18
# Where large files belong: /tmp is often RAM itself (file-hierarchy(7)).
FOLDER = "/var/tmp"


class SortedRows(Generic[Columns]):
    """Rows that are added in any order and come back by ascending ``pfn``, their first column.

    Those of one frame come in the order in which they were added, and always in one batch. Up to
    ``piece`` rows stay in memory; more go to an unnamed file in ``folder``, which lasts as long as
    this object.
    """

    def __init__(self, kind: type[Columns], *, piece: int = PIECE, folder: str = FOLDER) -> None:
        self._kind, self._piece, self._folder = kind, piece, folder
        self._waiting: list[Columns] = []
        self._count = 0
        self._file: IO[bytes] | None = None
        self._pieces: list[tuple[int, int]] = []  # the first row in the file, and how many
        self._row: np.dtype[Any] | None = None

    def __len__(self) -> int:
        """Return how many rows there are."""
        return sum(count for _, count in self._pieces) + self._count

    def add(self, rows: Columns) -> None:
        """Add ``rows``; raises OSError if the disk is full."""
        for at in range(0, len(rows), self._piece):
            part = take(rows, slice(at, at + self._piece))
            if self._count + len(part) > self._piece:
                self._write()
            self._waiting.append(part)
            self._count += len(part)

    def close(self) -> None:
        """Drop what is on disk; closing it again does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def batches(self) -> Iterator[Columns]:
        """Yield all rows by ascending frame; no frame is in two batches."""
        if not self._pieces:
            if self._waiting:
                yield by_frame(join(self._waiting))
            return
        self._write()
        yield from self._merged()

    def _write(self) -> None:
        if not self._waiting:
            return
        rows, self._waiting, self._count = by_frame(join(self._waiting)), [], 0
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        self._row = np.dtype([(name, getattr(rows, name).dtype) for name in rows.names])
        packed = np.empty(len(rows), self._row)
        for name in rows.names:
            packed[name] = getattr(rows, name)
        self._pieces.append((len(self), len(rows)))
        self._file.seek(0, 2)
        self._file.write(packed.tobytes())

    def _merged(self) -> Iterator[Columns]:
        # Of each piece a window is read; whatever lies before the end of every window is complete.
        window = max(self._piece // len(self._pieces), 1)
        left = list(self._pieces)
        while left:
            parts = [self._read(first, min(count, window)) for first, count in left]
            ends = [part["pfn"][-1] for part, (_, count) in zip(parts, left, strict=True)
                    if len(part) < count]
            taken = [len(part) if not ends else int(np.searchsorted(part["pfn"], min(ends)))
                     for part in parts]
            if not any(taken):  # a window full of one frame
                window *= 2
                continue
            rows = np.concatenate([part[:many] for part, many in zip(parts, taken, strict=True)])
            yield by_frame(self._kind(*(np.ascontiguousarray(rows[n]) for n in self._kind.names)))
            del rows
            left = [(first + many, count - many)
                    for (first, count), many in zip(left, taken, strict=True) if count > many]

    def _read(self, first: int, count: int) -> npt.NDArray[Any]:
        assert self._file is not None and self._row is not None
        self._file.seek(first * self._row.itemsize)
        found: npt.NDArray[Any] = np.frombuffer(
            self._file.read(count * self._row.itemsize), self._row)
        return found


def by_frame(rows: Columns) -> Columns:
    pfn: I64 = vars(rows)["pfn"]
    return take(rows, np.argsort(pfn, kind="stable"))
