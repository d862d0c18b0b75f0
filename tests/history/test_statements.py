"""The SQL that comes with pagewalk: every file is listed, shipped, and in the common dialect."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from pagewalk.history.statements import (
    HERE,
    QUESTIONS,
    REPORTS,
    VIEWS,
    Statement,
    question,
    questions,
    reports,
    views,
)
from pagewalk.model.errors import BadRequest
from tests.documents import ROOT

ASKED = [*questions(), *reports()]
EVERY = [*views(), *ASKED]
KINDS = (("views", VIEWS), ("questions", QUESTIONS), ("reports", REPORTS))
# One of the engines has none of these, or means something else by them; docs/commands/query.md says
# what to write instead.
SIGNS = ("//", "::", "|>", "$$")
WORDS = ("arg_max", "arg_min", "list", "unnest", "range", "generate_series", "list_distinct",
         "epoch_us", "ilike", "shiftright", "qualify", "string_agg", "try", "percentile_approx",
         "read_parquet", "hugeint", "varchar", "concat")
FOREIGN = re.compile(rf"{'|'.join(map(re.escape, SIGNS))}|\b({'|'.join(WORDS)})\b")


@pytest.mark.parametrize(("kind", "names"), KINDS)
def test_every_file_is_listed(kind: str, names: tuple[str, ...]) -> None:
    assert {path.name for path in (HERE / kind).iterdir()} == {f"{name}.sql" for name in names}


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.name)
def test_each_is_a_title_and_one_select(one: Statement) -> None:
    assert 0 < len(one.title) < 70
    assert one.title.endswith("?") == (one in ASKED)
    assert one.sql.startswith(("select ", "with ")) and ";" not in one.sql and "--" not in one.sql


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.name)
def test_each_is_in_what_duckdb_and_spark_have_in_common(one: Statement) -> None:
    assert FOREIGN.search(re.sub(r"'[^']*'", "''", one.sql)) is None


def test_what_to_write_instead_is_documented() -> None:
    text = (ROOT / "docs/commands/query.md").read_text().partition("\n## SQL for both engines\n")[2]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    said = {one.replace("\\|", "|") for row in rows for one in re.findall(r"`([^`]+)`", row)}
    assert {*SIGNS, *WORDS} <= said


def read_by(one: Statement) -> set[str]:
    own = set(re.findall(r"\b(\w+) as \(", one.sql))
    return set(re.findall(r"(?<!distinct )\b(?:from|join) (\w+)", one.sql)) - own


def test_each_view_reads_recordings_and_those_before_it() -> None:
    before = {"recordings"}
    for view in views():
        assert read_by(view) and read_by(view) <= before
        before.add(view.name)


@pytest.mark.parametrize("one", questions(), ids=lambda one: one.name)
def test_each_question_reads_views(one: Statement) -> None:
    assert read_by(one) and read_by(one) <= set(VIEWS)


def test_a_question_that_is_not_there_says_where_they_are() -> None:
    with pytest.raises(BadRequest, match="--list"):
        question("nothing")
    with pytest.raises(BadRequest):
        question("../views/pages")


def test_a_wheel_has_them(tmp_path: Path) -> None:
    path = next(iter(WheelBuilder(str(ROOT)).build(directory=str(tmp_path))))
    names = set(zipfile.ZipFile(path).namelist())
    for kind, every in KINDS:
        assert {f"pagewalk/history/{kind}/{name}.sql" for name in every} <= names
