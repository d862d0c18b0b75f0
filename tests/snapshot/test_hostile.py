"""Recordings made to do harm: valid Parquet with wild values is refused in a sentence, or shown."""

from __future__ import annotations

import json
import os
import random
import resource
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pagewalk.snapshot import read
from pagewalk.snapshot.write import Writer
from tests.live.command import Ran, pagewalk_here
from tests.snapshot.by_hand import FACTS, META

COMMANDS = (
    ("show",), ("maps",), ("maps", "--all"), ("maps", "--huge"), ("maps", "--by", "file"),
    ("pages", "--limit", "50"), ("explain",), ("who", "stack-8"), ("heap",), ("maps", "--cache"),
    ("show", "--format", "json"), ("maps", "--all", "--format", "csv"), ("heap", "-f", "json"),
)
NUMBERS = (0, 1, -1, 2, 7, 4095, 4096, 1 << 31, 1 << 40, 1 << 62, -(1 << 63), (1 << 63) - 1)
NAMES = ("", "\x1b[31m", "a\nb", "\\x41", "\\x80", "é" * 300, "[heap]", "/a (deleted)", "\0", "%s")
LEAVES = (*NUMBERS, 10**40, -(10**40), None, True, 1.5, "", "\x1b[2J", "\ud800", [], {}, [[]], "A")
SECONDS = 4.0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recording of this process, by whatever rights the tests have."""
    path = tmp_path_factory.mktemp("whole") / "a"
    ran = pagewalk_here("record", os.getpid(), "-o", path, "--heap", "--cache")
    assert ran.code in (0, 3), ran.err
    return path


def groups(path: Path) -> list[pa.Table]:
    file = pq.ParquetFile(path)
    return [file.read_row_group(at) for at in range(file.num_row_groups)]


def written(path: Path, tables: list[pa.Table], meta: dict[bytes, bytes]) -> Path:
    with pq.ParquetWriter(path, tables[0].schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
        writer.add_key_value_metadata(meta)
    return path


def check(ran: Ran, *, csv: bool = False) -> None:
    """It shows something, or is one sentence; nothing that a terminal would obey.

    What is not a terminal gets names in CSV as they are (docs/csv.md).
    """
    assert ran.code in (0, 1, 2, 3, 4, 5, 6), ran.err
    assert "Traceback" not in ran.err and "\x1b" not in (ran.err if csv else ran.out + ran.err)
    if ran.code not in (0, 3, 4):
        assert ran.err.startswith("pagewalk: "), ran.err


def wild(rng: random.Random, table: pa.Table) -> pa.Table:
    """Return rows of a recording with a value, or a few, that nobody would write."""
    used = [name for name in table.column_names
            if table.column(name).null_count < len(table) and name not in ("record", "text")]
    name = rng.choice(used)
    values = table.column(name).to_pylist()
    some: tuple[Any, ...] = NAMES if pa.types.is_string(table.schema.field(name).type) else NUMBERS
    for _ in range(rng.choice((1, 1, 3, len(values)))):
        at = rng.randrange(len(values))
        values[at] = rng.choice((*some, None, values[rng.randrange(len(values))]))
    column = pa.array(values, table.schema.field(name).type)
    return table.set_column(table.column_names.index(name), table.schema.field(name), column)


def shaken(rng: random.Random, value: Any) -> Any:
    """Return plain JSON with one of its leaves, or one of its branches, replaced."""
    if isinstance(value, list | dict) and value and rng.random() < 0.9:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key, copy = rng.choice(list(keys)), value.copy()
        copy[key] = shaken(rng, value[key])
        return copy
    return rng.choice(LEAVES)


def wild_document(rng: random.Random, table: pa.Table) -> pa.Table:
    texts = table.column("text").to_pylist()
    at = rng.randrange(len(texts))
    texts[at] = json.dumps(shaken(rng, json.loads(texts[at])))
    return table.set_column(table.column_names.index("text"), table.schema.field("text"),
                            pa.array(texts))


def test_wild_values_are_shown_or_refused(whole: Path, tmp_path: Path) -> None:
    """For a while; the seed of a failure is in its message."""
    tables, meta = groups(whole), pq.read_metadata(whole).metadata
    before, end = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic() + SECONDS
    seed = int(os.environ.get("PAGEWALK_SEED", "0"))
    while time.monotonic() < end:
        rng, seed = random.Random(seed), seed + 1
        made = tables.copy()
        for _ in range(rng.choice((1, 1, 2))):
            at = rng.randrange(len(made))
            if rng.random() < 0.03:
                made.insert(at, made[rng.randrange(len(made))])
            elif made[at].column("record")[0].as_py() == "document" and rng.random() < 0.9:
                made[at] = wild_document(rng, made[at])
            else:
                made[at] = wild(rng, made[at])
        path, words = written(tmp_path / "b", made, meta), rng.choice(COMMANDS)
        began = time.monotonic()
        try:
            check(pagewalk_here(words[0], path, *words[1:]), csv="csv" in words)
        except BaseException as error:
            raise AssertionError(f"PAGEWALK_SEED={seed - 1}: {' '.join(words)}") from error
        assert time.monotonic() - began < 60, seed - 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 600 << 10, f"it grew by {grown} KiB"  # MOST_BYTES, and what was there before


def test_more_rows_than_a_group_may_have_are_not_read(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column of one value takes nothing in the file, and eight bytes a row in memory."""
    (process,) = [t for t in groups(whole) if t.column("record")[0].as_py() == "process"]
    many = process.take(pa.array([0] * 1001))
    monkeypatch.setattr(read, "MOST_ROWS", 1000)
    path = tmp_path / "b"
    with pq.ParquetWriter(path, many.schema, compression="zstd") as writer:
        writer.write_table(many)
        writer.add_key_value_metadata(pq.read_metadata(whole).metadata)
    ran = pagewalk_here("show", path)
    assert ran.code == 1 and "has 1001 rows" in ran.err


def test_what_would_unpack_to_gigabytes_is_not_unpacked(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Megabytes here: what counts is that the footer is asked first."""
    tables = groups(whole)
    monkeypatch.setattr(read, "MOST_BYTES", 20 << 20)
    at = next(n for n, t in enumerate(tables) if t.column("record")[0].as_py() == "document")
    text = pa.array(["x" * (30 << 20)] + [""] * (len(tables[at]) - 1))
    tables[at] = tables[at].set_column(tables[at].column_names.index("text"), "text", text)
    path = written(tmp_path / "b", tables, pq.read_metadata(whole).metadata)
    assert path.stat().st_size < 1 << 20
    ran = pagewalk_here("show", path)
    assert ran.code == 1 and "bytes of memory" in ran.err


def test_a_column_of_another_type_is_refused(whole: Path, tmp_path: Path) -> None:
    tables = [t.set_column(t.column_names.index("pid"), "pid",
                           t.column("pid").cast(pa.string())) for t in groups(whole)]
    path = written(tmp_path / "b", tables, pq.read_metadata(whole).metadata)
    ran = pagewalk_here("show", path)
    assert ran.code == 1 and "column pid is string" in ran.err


@pytest.mark.parametrize("field", ["time", "host", "facts"])
def test_a_footer_with_anything_in_it_is_refused(field: str, whole: Path, tmp_path: Path) -> None:
    tables, said = groups(whole), json.loads(pq.read_metadata(whole).metadata[b"pagewalk"])
    for leaf in LEAVES:
        meta = {b"pagewalk": json.dumps({**said, field: leaf}).encode()}
        check(pagewalk_here("show", written(tmp_path / "b", tables, meta)))


def test_thousands_of_processes_are_listed_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "b"
    with open(path, "wb") as out:
        writer = Writer(out)
        pids = list(range(1, 100_001))
        writer.add("process", {"pid": pids, "mm": pids, "name": ["x"] * len(pids)})
        writer.close(META, FACTS)
    ran = pagewalk_here("show", path)
    assert ran.code == 2 and "100000 processes" in ran.err and ran.err.count("\n") < 30
