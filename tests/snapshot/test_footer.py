"""The footer of a recording: what it says is checked, value by value."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pagewalk.model.errors import BadRecording
from pagewalk.snapshot.footer import check_ends, read_footer
from pagewalk.snapshot.read import TEXTS
from pagewalk.snapshot.schema import KEY
from tests.history.by_hand import Process, recorded
from tests.snapshot.by_hand import FACTS, META


@pytest.fixture
def whole(tmp_path: Path) -> str:
    return recorded(tmp_path / "whole", Process(5))


def said(path: str, **changed: Any) -> tuple[Any, Any]:
    """Return what is read from a copy of the file whose footer was changed."""
    table = pq.read_table(path)
    found = json.loads(pq.read_metadata(path).metadata[KEY.encode()])
    text = json.dumps({**found, **changed}).encode()
    copy = Path(f"{path}.copy")
    pq.write_table(table.replace_schema_metadata({KEY: text}), copy)
    return read_footer(pq.ParquetFile(copy, read_dictionary=TEXTS), str(copy))


def test_what_was_written_is_read(whole: str) -> None:
    meta, facts = said(whole)
    assert meta == META
    assert (facts.architecture, facts.release, facts.page_size, facts.cpus) == (
        FACTS.architecture, FACTS.release, FACTS.page_size, FACTS.cpus)


def test_a_newer_schema_says_so(whole: str) -> None:
    with pytest.raises(BadRecording, match=r"schema 99.*newer"):
        said(whole, schema=99)


@pytest.mark.parametrize(("changed", "why"), [
    ({"schema": "1"}, "does not say which schema"), ({"schema": True}, "does not say which schema"),
    ({"time": "now"}, "odd time"), ({"time": 1 << 63}, "odd time"), ({"host": 5}, "odd host"),
    ({"host": "a\ud800b"}, "odd host"), ({"physical": 1}, "odd physical"),
    ({"facts": None}, "damaged"),
])
def test_a_footer_with_an_odd_value_is_refused(
    changed: dict[str, Any], why: str, whole: str
) -> None:
    with pytest.raises(BadRecording, match=why):
        said(whole, **changed)


@pytest.mark.parametrize(("name", "value", "why"), [
    ("page_size", 0, "pages of an odd size"), ("page_size", 5000, "pages of an odd size"),
    ("page_size", 4096.0, "pages of an odd size"), ("cpus", 0, "odd number of CPUs"),
    ("architecture", "vax", "unknown architecture"), ("architecture", [], "unknown architecture"),
    ("release", [6], "damaged"),
])
def test_facts_that_no_kernel_has_are_refused(
    name: str, value: object, why: str, whole: str
) -> None:
    facts = json.loads(pq.read_metadata(whole).metadata[KEY.encode()])["facts"]
    with pytest.raises(BadRecording, match=why):
        said(whole, facts={**facts, name: value})


def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"pid": [1]}), path)
    with pytest.raises(BadRecording, match="none of pagewalk's"):
        read_footer(pq.ParquetFile(path), str(path))


@pytest.mark.parametrize(("held", "why"), [
    (b"", "does not begin"), (b"text", "does not begin"), (b"PAR1", "is cut"),
    (b"PAR1" + bytes(40), "footer is missing"),
    (b"PAR1" + bytes(40) + b"\xff\xff\xff\x7fPAR1", "footer is damaged"),
])
def test_what_is_cut_is_seen_at_its_ends(held: bytes, why: str) -> None:
    with pytest.raises(BadRecording, match=why):
        check_ends(io.BytesIO(held), "a")
