"""SQL over recordings, by DuckDB: the only file that imports it.

DuckDB is given rows, not files: it opens none, and whoever asks cannot either.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from itertools import islice
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

from pagewalk.history.statements import views
from pagewalk.model.arrow import arrow, parquet
from pagewalk.model.errors import BadRequest, PackageMissing, PagewalkError, in_a_line
from pagewalk.snapshot.relation import One, relation
from pagewalk.snapshot.write import whole_file

Worked = TypeVar("Worked")
BATCH = 1000  # rows
# What Spark has by these names; everything else in views is in both.
COMMON = (
    "create macro explode(list) as unnest(list)",
    "create macro sequence(first, last) as generate_series(first, last)",
)
LOCKED = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false", "allow_community_extensions": "false",
    "python_enable_replacements": "false",
}
# What is put into files may be so many times as large as the memory.
SPILLED = 16
PLACES = ("/var/tmp", None)  # /tmp may be RAM; None: where tempfile would
HIDDEN = """
select host, time, count(*) as processes from recordings
where record = 'process' and pid = mm and pss is null group by host, time
"""


class Answer(NamedTuple):
    """What a SELECT gives: the names of its columns, and its rows as they come."""

    columns: list[str]
    rows: Iterator[tuple[Any, ...]]

    def first(self, many: int | None) -> Answer:
        """Return the first ``many`` rows of it, all for None."""
        return self if many is None else self._replace(
            rows=islice(self.rows, min(many, sys.maxsize)))


class Database:
    """Recordings as the relation ``recordings``, with the views over it.

    ``memory`` bytes bound what a SELECT may hold; ``threads`` work on it, None for one a CPU. With
    ``spill`` what does not fit goes into a directory that only its owner can read, and that is
    removed with this object. Only for SQL of ours: DuckDB lets a SELECT read that directory.
    """

    def __init__(
        self, recordings: Sequence[One], memory: int, threads: int | None, *, spill: bool = False
    ) -> None:
        self.recordings = recordings
        self._duckdb, self._worker = duckdb(), ThreadPoolExecutor(1)
        self._folder = folder() if spill else None
        config = {**LOCKED, "memory_limit": f"{memory}B", "temp_directory": ""}
        if self._folder is not None:
            config["temp_directory"] = self._folder.name
            config["max_temp_directory_size"] = f"{SPILLED * memory}B"
        if threads is not None:
            config["threads"] = str(threads)
        with self._sentence():
            self._connection = self._duckdb.connect(":memory:", config=config)
            # Not in the configuration: then a file called :memory: could be read.
            self._connection.execute("set enable_external_access = false")
            self._connection.register("recordings", relation(recordings))
            for macro in COMMON:
                self._connection.execute(macro)
            for view in views():
                self._connection.execute(f"create view {view.name} as {view.sql}")
            self._connection.execute("set enable_progress_bar = false")
            self._connection.execute("set lock_configuration = true")

    def ask(self, sql: str) -> Answer:
        """Return the answer to ``sql``, one SELECT; raises BadRequest, PagewalkError.

        So may iterating over it, and Ctrl-C ends it.
        """
        with self._sentence():
            statement = self._only(sql)
            self._work(lambda: self._connection.execute(statement))
            columns = [column[0] for column in self._connection.description]
        return Answer(columns, self._rows())

    def ask_for_batches(self, sql: str) -> Any:
        """Return the answer as a pyarrow RecordBatchReader; raises BadRequest, PagewalkError."""
        with self._sentence():
            self._only(sql)
            reader = arrow().RecordBatchReader
            return self._work(lambda: reader.from_stream(self._connection.sql(sql)))

    def write_parquet(self, sql: str, path: str) -> None:
        """Write the answer into a Parquet file, which is replaced when all is written."""
        batches = self.ask_for_batches(sql)
        with (whole_file(path) as out, self._sentence(),
              parquet().ParquetWriter(out, batches.schema, compression="zstd") as writer):
            while (batch := self._work(lambda: next(batches, None))) is not None:
                writer.write_batch(batch)

    def withheld(self) -> list[str]:
        """Return what of which recordings was not visible when they were made, in sentences."""
        at = {(one.meta.host, one.micros): one.name for one in self.recordings}
        found = refused_in(self.recordings)
        for host, time, processes in self.ask(HIDDEN).rows:
            path = at.get((host, micros(time)), host)
            found.append(f"pss, uss and who shares a page: {in_a_line(path)} does not have them for"
                         f" {processes} of its processes, whose page frames were not visible")
        return found

    def _only(self, sql: str) -> Any:
        if any("\ud800" <= letter <= "\udfff" for letter in sql):
            raise BadRequest("the SQL is not UTF-8: in names of recordings such a byte is \\xNN")
        # The rest is refused here too, whatever a version of DuckDB makes of its configuration.
        statements = self._connection.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != self._duckdb.StatementType.SELECT:
            raise BadRequest("a query is one SELECT: nothing can be changed, and no other file read"
                             " or written")
        return statements[0]

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        while True:
            with self._sentence():
                some = self._work(lambda: self._connection.fetchmany(BATCH))
            if not some:
                return
            yield from some

    def _work(self, work: Callable[[], Worked]) -> Worked:
        # In a thread of its own: while this one is inside DuckDB, Python sees no signal.
        working = self._worker.submit(work)
        try:
            return working.result()
        except BaseException:
            while not working.done():
                self._connection.interrupt()
                wait([working], 0.05)
            raise

    @contextmanager
    def _sentence(self) -> Iterator[None]:
        try:
            yield
        except self._duckdb.OutOfMemoryException:
            raise PagewalkError("the answer does not fit into memory: ask for less, or give it more"
                                " with --memory") from None
        except (self._duckdb.Error, RuntimeError, ValueError, OverflowError) as error:
            raise BadRequest(f"cannot answer this: {in_words(error)}") from None


def folder() -> TemporaryDirectory[str] | None:
    """Return a new directory for what does not fit into memory, None where none can be made."""
    chosen = os.environ.get("TMPDIR")
    for place in (chosen, *PLACES) if chosen else PLACES:
        with suppress(OSError):
            return TemporaryDirectory(prefix="pagewalk.", dir=place, ignore_cleanup_errors=True)
    return None


def duckdb() -> Any:
    """Return the module duckdb; raises PackageMissing."""
    try:
        import duckdb
    except ImportError:
        raise PackageMissing("a query", "duckdb") from None
    return duckdb


def in_words(error: Exception) -> str:
    """Return what DuckDB says, in a line, without the picture of where."""
    return " ".join(str(error).partition("\nLINE ")[0].split())


def refused_in(recordings: Sequence[One]) -> list[str]:
    """Return how many processes could not be recorded, in a sentence; nothing if all were."""
    lacking = [one for one in recordings if one.meta.refused]
    if not lacking:
        return []
    more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
    return [f"some processes: {sum(one.meta.refused for one in lacking)} could not be recorded,"
            f" and are not in {in_a_line(lacking[0].name)}{more}"]


def micros(time: Any) -> int:
    from datetime import UTC, datetime, timedelta

    since = time.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return int(since // timedelta(microseconds=1))
