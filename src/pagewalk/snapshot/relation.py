"""Several recordings as one table: their rows, with the host and the time of each beside them.

Nothing is read before somebody asks for rows, and then only the columns and the row groups that are
needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from pagewalk.model.arrow import arrow, dataset, file_systems
from pagewalk.model.errors import BadRecording, BadRequest, in_a_line
from pagewalk.snapshot.places import (
    entry_of,
    is_dataset,
    is_url,
    recordings_directly_in,
    recordings_in,
    shown,
)
from pagewalk.snapshot.read import Recording
from pagewalk.snapshot.schema import COLUMNS, INTEGER, Meta

LATEST = 253_402_300_800 * 10**9  # the year 10000, in which dates end


class One(NamedTuple):
    """A recording: where it is, and what its footer says."""

    path: str
    meta: Meta

    @property
    def name(self) -> str:
        """Return where it is without credentials, which an address may have."""
        return shown(self.path)

    @property
    def micros(self) -> int:
        """Return its time, microseconds since 1970."""
        return self.meta.time // 1000


def footers(words: Iterable[str]) -> list[One]:
    """Return the recordings that ``words`` name, files, data sets and folders, each once.

    Raises BadRecording, OSError, and BadRequest for two that are of the same host and time.
    """
    found: dict[tuple[str, int], One] = {}
    for path, named in paths(words):
        try:
            one = footer(path)
        except BadRecording:
            if named or is_url(path) or os.path.lexists(path):
                raise
            continue  # it was removed since: the armed recorder keeps the newest
        key = one.meta.host, one.micros
        other = found.setdefault(key, one)
        if other is not one and not same(other.path, path):
            raise BadRequest(f"{in_a_line(other.name)} and {in_a_line(one.name)} are recordings of"
                             f" the same host, {in_a_line(one.meta.host)}, at the same time: name"
                             " only one of them")
    return list(found.values())


def footer(path: str) -> One:
    """Return the recording at ``path``; raises BadRecording, OSError.

    Host and time of one in a data set are those of its place, whatever its footer says: every
    engine reads them there.
    """
    recording = Recording(path)
    recording.close()
    meta, entry = recording.meta, entry_of(path)
    if entry is not None:
        meta = meta._replace(host=entry.host, time=entry.time)
    if not 0 <= meta.time < LATEST:
        raise BadRecording(shown(path), "its footer has an odd time")
    return One(path, meta)


def paths(words: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Yield the files of ``words``, and whether each is one of them itself.

    Else it is one of a data set or a folder.

    Raises BadRecording.
    """
    for word in words:
        inside = [] if is_dataset(word) else recordings_directly_in(word)
        if inside:
            yield from ((path, False) for path in inside)
        elif os.path.isdir(word) or is_dataset(word):
            yield from ((entry.path, False) for entry in recordings_in(word))
        else:
            yield word, True


def same(path: str, other: str) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)


def relation(recordings: Sequence[One]) -> Any:
    """Return a pyarrow Dataset of all rows: the columns of the schema, ``host`` and ``time``.

    ``time`` is a timestamp in UTC, microseconds.
    """
    pa, ds = arrow(), dataset()
    at = pa.timestamp("us")
    columns = [pa.field(c.name, pa.int64() if c.kind == INTEGER else pa.string()) for c in COLUMNS]
    schema = pa.schema([*columns, pa.field("host", pa.string()), pa.field("time", at)])

    def known(one: One) -> Any:
        return (ds.field("host") == one.meta.host) & (ds.field("time") == pa.scalar(one.micros, at))

    children = [
        ds.FileSystemDataset.from_paths(
            [place.inside for place in some], schema=schema, format=ds.ParquetFileFormat(),
            filesystem=some[0].system, partitions=[known(place.one) for place in some],
        ) for some in by_system(recordings)
    ]
    return children[0] if len(children) == 1 else ds.dataset(children)


class Place(NamedTuple):
    """Where a recording is: pyarrow's file system, and the path in it."""

    one: One
    system: Any
    inside: str


def by_system(recordings: Sequence[One]) -> list[list[Place]]:
    """Return where the recordings are, those of one file system together; raises BadRecording."""
    groups: list[list[Place]] = []
    for one in recordings:
        place = located(one)
        same = next((some for some in groups if some[0].system == place.system), None)
        if same is None:
            groups.append([place])
        else:
            same.append(place)
    return groups


def located(one: One) -> Place:
    if is_url(one.path):
        return Place(one, *file_systems().FileSystem.from_uri(one.path))
    path = os.path.abspath(one.path)
    if any("\udc80" <= letter <= "\udcff" for letter in path):
        raise BadRecording(path, "its name is not UTF-8: rename it, or make a link to it")
    return Place(one, file_systems().LocalFileSystem(), path)
