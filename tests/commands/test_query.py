"""pagewalk query as it is typed: formats, mistakes, Ctrl-C, and the examples of its page."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pagewalk.history.sql import Database
from pagewalk.history.statements import QUESTIONS, VIEWS
from pagewalk.snapshot.relation import footers
from tests.documents import ROOT, blocks
from tests.history.by_hand import Process, Run, recorded
from tests.live.command import begin, end, one_sentence, pagewalk, pagewalk_here
from tests.snapshot.by_hand import META

PAGE = ROOT / "docs/commands/query.md"
AMOUNTS: dict[str, int | None] = {"rss": 8192, "pss": 4096, "uss": 0, "swap": 0, "present": 8192}


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Return a recording of two processes."""
    return recorded(tmp_path / "it's.pagewalk", Process(5, amounts=AMOUNTS, runs=(Run(9),)),
                    Process(6, "two", amounts=AMOUNTS, runs=(Run(9),)))


SELECT = "select pid, rss, name from processes order by pid"


def test_a_table(file: str) -> None:
    ran = pagewalk_here("query", file, SELECT)
    assert (ran.code, ran.out) == (0, "PID   RSS  NAME\n  5  8192  one\n  6  8192  two\n")
    assert pagewalk_here("query", file, SELECT, "-H", "-n", 1).out == (
        "PID  RSS  NAME\n  5   8K  one\n")


def test_csv_json_and_parquet_have_the_same_rows(file: str, tmp_path: Path) -> None:
    rows = [{"pid": 5, "rss": 8192, "name": "one"}, {"pid": 6, "rss": 8192, "name": "two"}]
    assert pagewalk_here("query", file, SELECT, "--csv").out == (
        "pid,rss,name\n5,8192,one\n6,8192,two\n")
    found = pagewalk_here("query", file, SELECT, "--json").json
    assert found["rows"] == rows
    assert found["recordings"] == [
        {"file": file, "host": META.host, "time": "2023-11-14T22:13:20.000000Z"}]
    path = tmp_path / "a.parquet"
    assert pagewalk_here("query", file, SELECT, "-f", "parquet", "-o", path).code == 0
    assert pq.read_table(path).to_pylist() == rows


def test_a_question_has_its_title_and_says_of_what(file: str) -> None:
    first, empty, head, *rows = pagewalk_here(
        "query", file, "--question", "programs").out.splitlines()
    assert first == "Which programs have the memory? host, 2023-11-14T22:13:20.000000Z"
    assert empty == "" and head.split()[0] == "PROCESSES"
    assert rows[0].split() == ["2", "8192", "0", "16384", "0", "/bin/one"]


def test_the_list_has_all_questions_and_views() -> None:
    words = {line.split()[0] for line in pagewalk_here("query", "--list").out.splitlines() if line}
    assert words >= {*QUESTIONS, *VIEWS}


@pytest.mark.parametrize(("words", "code", "says"), [
    ((), 2, "FILE"), (("select 1",), 2, "SQL"), (("--question", "programs"), 2, "FILE"),
    (("FILE", "--question", "nothing"), 2, "--list"), (("FILE", "selec 1"), 2, "syntax error"),
    (("FILE", "drop view pages"), 2, "one SELECT"),
    (("FILE", "select 1", "-f", "parquet"), 2, "--output"),
    (("FILE", "--list"), 2, "--list"), (("missing", "select 1"), 1, "no such file"),
    ((__file__, "select 1"), 1, "not begin"),
    (("FILE", "FILE", "select 1 from x"), 2, "x does not"),
])
def test_a_mistake_is_one_sentence(
    words: tuple[str, ...], code: int, says: str, file: str
) -> None:
    ran = pagewalk_here("query", *(file if word == "FILE" else word for word in words))
    assert ran.code == code and says in one_sentence(ran)


@pytest.mark.parametrize("size", ["1", "63M", "much", "-1G"])
def test_a_memory_that_is_none_is_refused(size: str, file: str) -> None:
    assert pagewalk_here("query", file, "select 1", f"--memory={size}").code == 2


def test_what_was_withheld_makes_it_partial(tmp_path: Path) -> None:
    hidden = recorded(tmp_path / "a", Process(5, amounts={**AMOUNTS, "pss": None}))
    ran = pagewalk_here("query", hidden, "select pss from processes")
    assert ran.code == 3 and ran.out == "PSS\nn/a\n" and "not visible" in ran.err
    ran = pagewalk_here("query", hidden, "select pss from processes", "--json")
    assert ran.code == 3 and len(ran.json["partial"]) == 1 and ran.err == ""


def test_null_is_only_called_missing_where_something_was_withheld(file: str) -> None:
    ran = pagewalk_here("query", file, "select pid, null as nothing from processes limit 1")
    assert ran.code == 0 and ran.out.split()[-1] == "null" and "n/a" not in ran.out


LONG = "select count(*) from range(1000000) a(i), range(1000000) b(j) where i * j % 7 = 3"
PATIENCE = 240.0  # seconds, for a hang


@pytest.mark.parametrize("to_file", [False, True])
def test_ctrl_c_ends_it(file: str, tmp_path: Path, to_file: bool) -> None:
    words = ["-f", "parquet", "-o", tmp_path / "a.parquet"] if to_file else []
    process = begin("query", file, LONG, *words)
    deadline = time.monotonic() + PATIENCE
    while worked(process.pid) < 4:  # it takes less than one to begin
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    try:
        ran = end(process)
    finally:
        process.kill()
    assert ran.code == 130 and ran.err.strip().startswith("pagewalk: interrupted")
    assert len(ran.err.strip().splitlines()) == 1
    assert os.listdir(tmp_path) == [Path(file).name]


def worked(pid: int) -> float:
    """Return the CPU time of a process, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- its page


def examples() -> list[str]:
    return [block.text for block in blocks(PAGE, "sql")]


@pytest.mark.parametrize("sql", examples())
def test_an_example_of_the_page_is_answered(sql: str, file: str) -> None:
    list(Database(footers([file]), 1 << 30, 1).ask(sql).rows)


def test_every_view_column_and_question_is_on_the_page(file: str) -> None:
    text = PAGE.read_text()
    database = Database(footers([file]), 1 << 30, 1)
    for view in VIEWS:
        section = re.search(rf"^### `{view}`\n(.*?)(?=^##)", text, re.M | re.S)
        assert section is not None, view
        documented = set(re.findall(r"`(\w+)`", section[1]))
        columns = set(database.ask(f"select * from {view}").columns) - {"host", "time"}
        assert columns <= documented, view
    assert [name for name in QUESTIONS if f"`{name}`" not in text] == []
    assert len(examples()) > 8


def test_json_is_documented(file: str) -> None:
    documented = set(re.findall(r"`(\w+)`", (ROOT / "docs/json.md").read_text()))
    found = json.loads(pagewalk_here("query", file, SELECT, "--json").out)
    assert set(found) | set(found["recordings"][0]) <= documented


def test_a_question_leaves_no_directory_behind(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spilled = tmp_path / "spilled"
    spilled.mkdir()
    monkeypatch.setenv("TMPDIR", str(spilled))
    assert pagewalk("query", file, "--question", "sharing").code == 0
    assert list(spilled.iterdir()) == []
    # Nobody reads what it prints, which is more than a pipe holds: so it is in the middle.
    long = [Process(pid, amounts=AMOUNTS, program=f"/{pid:04000}") for pid in range(1, 51)]
    halfway = begin("query", recorded(tmp_path / "long", *long), "--question", "programs",
                    "--format", "csv")
    assert halfway.stdout is not None and halfway.stdout.read(1)
    assert len(list(spilled.iterdir())) == 1
    halfway.send_signal(signal.SIGTERM)
    assert end(halfway).code == 128 + signal.SIGTERM
    assert list(spilled.iterdir()) == []
