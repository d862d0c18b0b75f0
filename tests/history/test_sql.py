"""SQL over recordings: what the views say is what is recorded, and nothing else can be reached."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from pagewalk.history.sql import Database
from pagewalk.history.statements import VIEWS, question, questions
from pagewalk.model.errors import BadRequest, PagewalkError
from pagewalk.snapshot.relation import footers
from pagewalk.snapshot.write import Labels
from tests.history.by_hand import STATES, Process, Run, recorded
from tests.snapshot.by_hand import META, PAGE

HUGE = 2 << 20
SECOND = 1_000_000_000


def opened(*paths: str, memory: int = 1 << 30) -> Database:
    return Database(footers(paths), memory, 2)


def asked(sql: str, *paths: str) -> list[tuple[Any, ...]]:
    """Return all rows of the answer."""
    return list(opened(*paths).ask(sql).rows)


# ---- views


def test_amounts_of_an_address_space_that_several_have_are_in_one_row(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a", Process(5, amounts={"rss": 7, "pss": None}),
                    Process(6, mm=5, amounts={"rss": 7}))
    rows = asked("select pid, mm, rss, pss from processes order by pid", path)
    assert rows == [(5, 5, 7, None), (6, 5, None, None)]


def test_a_mapping_is_as_maps_prints_it(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a", Process(5, "it's"))
    rows = asked("select process, address, start, stop, perms, file_offset, backing, name, rss"
                 " from vmas order by vma", path)
    assert rows == [
        ("it's", "1000-2000", PAGE, 2 * PAGE, "rw-p", 0, "anonymous", "[anon]", PAGE),
        ("it's", "8000000000000000-8000000000001000", -(1 << 63), -(1 << 63) + PAGE, "r-xs", PAGE,
         "file", "/lib/x", None)]


def test_a_frame_that_two_processes_map_is_shared(tmp_path: Path) -> None:
    # Frames 10 to 13 of one, 12 to 15 of the other, which has 15 twice; 12 and 13 are shared.
    path = recorded(
        tmp_path / "a", Process(5, runs=(Run(10, 4, mapcount=3),)),
        Process(6, runs=(Run(12, 4, "file", mapcount=3, vma=1), Run(15, 1, vma=1))))
    rows = asked("select frame, size, mappings, processes, mapcount, first_pid, last_pid, pids"
                 " from sharing order by frame", path)
    assert rows == [(12, PAGE, 2, 2, 3, 5, 6, [5, 6]), (13, PAGE, 2, 2, 3, 5, 6, [5, 6])]
    rows = asked("select frame, pid, name from sharers order by frame, pid", path)
    assert rows == [(12, 5, "[anon]"), (12, 6, "/lib/x"), (13, 5, "[anon]"), (13, 6, "/lib/x")]


def test_a_huge_page_is_shared_in_part(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a", Process(5, runs=(Run(512, 2, unit=HUGE),)),
                    Process(6, runs=(Run(1535, 1), Run(1536, 1))))
    assert asked("select frame, address from frames where frame in (1024, 1535) and pid = 5"
                 " order by frame", path) == [(1024, 512 * PAGE), (1535, 1023 * PAGE)]
    assert asked("select frame from sharing", path) == [(1535,)]
    assert asked("select count(*), sum(size) from frames where pid = 5", path) == [(1024, 2 * HUGE)]


@pytest.mark.parametrize("run", [Run(3, state="zero"), Run(3, state="swapped"),
                                 Run(3, state="special"), Run(None)])
def test_what_has_no_frame_of_its_own_is_not_shared(tmp_path: Path, run: Run) -> None:
    path = recorded(tmp_path / "a", Process(5, runs=(run,)), Process(6, runs=(run,)))
    assert asked("select * from sharing", path) == []
    assert asked("select count(*) from pages", path) == [(2,)]


def test_the_same_number_in_two_recordings_is_not_the_same_frame(tmp_path: Path) -> None:
    paths = [recorded(tmp_path / f"{pid}", Process(pid, runs=(Run(9),)),
                      time=META.time + pid * SECOND) for pid in (5, 6)]
    assert asked("select count(*) from sharing", *paths) == [(0,)]


def test_pages_of_a_process_that_has_no_row_do_not_count(tmp_path: Path) -> None:
    # A process that ended while it was recorded leaves its pages, and no row of its own.
    path = recorded(tmp_path / "a", Process(5, runs=(Run(9),)),
                    page={"pid": [6], "state": Labels(np.zeros(1, np.int64), STATES),
                          "frame": [9], "size": [PAGE], "unit": [PAGE], "step": [1], "start": [0],
                          "vma": [0]}, vma={"pid": [6], "vma": [0]})
    assert asked("select distinct pid from pages", path) == [(5,)]
    assert asked("select distinct pid from vmas", path) == [(5,)]


def test_what_grew_is_by_process_from_one_time_to_the_next(tmp_path: Path) -> None:
    def at(second: int, *processes: Process, host: str = "a") -> str:
        return recorded(tmp_path / f"{host}{second}", *processes, host=host,
                        time=META.time + second * SECOND)

    paths = [
        at(0, Process(5, amounts={"rss": 100, "pss": 9}), Process(6, amounts={"rss": 30})),
        at(1, Process(5, amounts={"rss": 150}), Process(6, started=8, amounts={"rss": 40})),
        at(2, Process(5, amounts={"rss": 149, "pss": 9})),
        at(2, Process(5, amounts={"rss": 7000}), host="b"),
    ]
    rows = asked("select second(time) - second(earlier), pid, change, rss, pss from growth"
                 " order by time, pid, change desc", *reversed(paths))
    assert rows == [(1, 5, "stayed", 50, None), (1, 6, "started", 40, None),
                    (1, 6, "ended", -30, None), (1, 5, "stayed", -1, None),
                    (1, 6, "ended", -40, None)]


def test_what_grew_is_called_as_it_was_started(tmp_path: Path) -> None:
    paths = []
    for second in (0, 1):
        path = tmp_path / str(second)
        paths.append(recorded(
            path, Process(5, "python3", program="/srv/app.py", amounts={"rss": second * 100}),
            Process(6, "worker", program=None, amounts={"rss": second}),
            Process(7, "idle", program=None, amounts={"rss": 9, "swap": 0}), uptime=second,
            time=META.time + second * SECOND))
    for name in ("grew", "grew-programs"):
        answer = opened(*paths).ask(question(name).sql)
        program = answer.columns.index("program")
        # who stayed as large is no answer
        assert [row[program] for row in answer.rows] == ["/srv/app.py", "worker"]


def test_nearest_to_its_limit_is_by_what_share_of_it_is_taken(tmp_path: Path) -> None:
    groups = {"cgroup": ["/a", "/b", "/c"], "size": [900, 50, 0], "allowed": [1000, 60, 0]}
    path = recorded(tmp_path / "a", Process(5), group=groups)
    answer = opened(path).ask(question("limits").sql)
    percent, name = (answer.columns.index(one) for one in ("percent", "cgroup"))
    assert [(row[name], row[percent]) for row in answer.rows] == [
        ("/a", 90), ("/b", 83), ("/c", None)]


def test_recordings_are_in_the_order_of_a_clock_that_nobody_sets(tmp_path: Path) -> None:
    # The clock was set back between the first and the second; then the machine was booted.
    for name, second, uptime, boot in (("a", 9, 1, "x"), ("b", 3, 2, "x"), ("c", 10, 1, "y")):
        recorded(tmp_path / name, Process(5, amounts={"rss": uptime}), boot=boot, uptime=uptime,
                 time=META.time + second * SECOND)
    rows = asked("select second(earlier), second(time), rss from growth", *(
        str(tmp_path / name) for name in "abc"))
    assert rows == [(29, 23, 1)]


def test_host_and_time_are_those_of_the_footer(tmp_path: Path) -> None:
    odd = "h'o\"s\\t; drop table recordings --\n\u202e"
    path = recorded(tmp_path / "it's; \"odd\" * [a-z]?.pagewalk", Process(5, odd), host=odd,
                    time=1_700_000_000_123_456_789)
    assert asked("select host, epoch_us(time), name from processes", path) == [
        (odd, 1_700_000_000_123_456, odd)]


def test_a_data_set_is_all_its_recordings(tmp_path: Path) -> None:
    for host in ("a", "b"):
        for second in (0, 1):
            when = f"2026-11-27T06-33-{second:02}.000000Z"
            folder = tmp_path / "set" / f"host={host}" / f"time={when}"
            folder.mkdir(parents=True)
            recorded(folder / "snapshot.parquet", Process(5, amounts={"rss": 1}), host=host,
                     time=META.time + second * SECOND)
    rows = asked("select host, count(*), sum(rss) from processes group by host order by host",
                 str(tmp_path / "set"))
    assert rows == [("a", 2, 2), ("b", 2, 2)]


def test_processes_that_could_not_be_recorded_are_missing(tmp_path: Path) -> None:
    told = Process(5, amounts={"rss": 1, "pss": 1, "uss": 1})
    paths = [recorded(tmp_path / name, told, host=name, refused=refused)
             for name, refused in (("a", 0), ("b", 2), ("c", 3))]
    assert opened(paths[0]).withheld() == []
    assert opened(paths[0], paths[1]).withheld() == [
        f"some processes: 2 could not be recorded, and are not in {paths[1]}"]
    assert opened(*paths).withheld() == [
        f"some processes: 5 could not be recorded, and are not in {paths[1]} and 1 more"]


def test_withheld_is_told_of_each_recording(tmp_path: Path) -> None:
    whole = recorded(tmp_path / "a", Process(5, amounts={"pss": 1}))
    hidden = recorded(tmp_path / "b", Process(5), Process(6), time=META.time + SECOND)
    (said,) = opened(whole, hidden).withheld()
    assert hidden in said and "2 of its processes" in said


# ---- nothing else can be reached


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Return a recording that is named, and one that is not."""
    return (recorded(tmp_path / "named", Process(5)),
            recorded(tmp_path / "other", Process(6), time=META.time + SECOND))


REFUSED = (
    "copy (select 1) to '{new}'",
    "copy (select * from processes) to '{named}'",
    "export database '{new}'",
    "attach '{new}' as other",
    "attach '{other}' as other (read_only)",
    "install httpfs",
    "load httpfs",
    "set enable_external_access = true",
    "reset lock_configuration",
    "pragma enable_profiling",
    "call enable_logging()",
    "create table t as select 1",
    "drop view processes",
    "create or replace view processes as select 1",
    "checkpoint",
    "select 1; select 2",
    "explain analyze copy (select 1) to '{new}'",
    "from read_csv('/etc/passwd')",
    "from read_text('/etc/passwd')",
    "from read_blob('/etc/passwd')",
    "from read_json('/etc/passwd')",
    "from sniff_csv('/etc/passwd')",
    "from '/etc/passwd'",
    "from glob('/etc/*')",
    "from read_parquet('{other}')",
    "from read_parquet('{named}')",
    "from '{other}'",
    "from parquet_metadata('{other}')",
    "from 'https://example.org/a.parquet'",
    "from read_parquet('s3://bucket/a.parquet')",
    "select getenv('HOME')",
    "from query('copy (select 1) to ''{new}''')",
    "from duckdb_secrets()",
    "from enable_logging()",
    "select * from SENTINEL",
)
SENTINEL = {"a": [1]}  # a variable of Python's, which DuckDB could find


@pytest.mark.parametrize("sql", REFUSED)
def test_nothing_but_the_recordings_can_be_read_or_written(
    sql: str, files: tuple[str, str], tmp_path: Path
) -> None:
    named, other = files
    before = {path: (tmp_path / path).read_bytes() for path in os.listdir(tmp_path)}
    database = opened(named)
    with pytest.raises(PagewalkError) as refused:
        list(database.ask(sql.format(named=named, other=other, new=tmp_path / "new")).rows)
    assert "\n" not in str(refused.value)
    assert before == {path: (tmp_path / path).read_bytes() for path in os.listdir(tmp_path)}
    assert list(database.ask("select pid from processes").rows) == [(5,)]


def test_a_file_called_as_the_database_is_cannot_be_read(
    files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (":memory:", ":memory:.wal", ":memory:.wal.recovery", ":memory:.wal.checkpoint"):
        (tmp_path / name).symlink_to("/etc/passwd")
        for word in (name, tmp_path / name):
            with pytest.raises(PagewalkError, match="Permission"):
                list(opened(*files).ask(f"select * from read_text('{word}')").rows)


def test_any_number_of_rows_may_be_the_most(files: tuple[str, str]) -> None:
    answer = opened(*files).ask("select 1").first(1 << 80)
    assert list(answer.rows) == [(1,)]


def test_duckdb_itself_refuses_what_is_no_select(files: tuple[str, str], tmp_path: Path) -> None:
    # Two locks: even what got past ours could neither write nor change the configuration.
    database = opened(files[0])
    for sql in (f"copy (select 1) to '{tmp_path / 'new'}'", f"copy (select 1) to '{files[0]}'",
                f"attach '{files[1]}'", "install httpfs", "set enable_external_access = true",
                "set memory_limit = '100GB'", "set threads = 100", "set temp_directory = '/tmp'"):
        with pytest.raises(duckdb.Error):
            database._connection.execute(sql)
    assert sorted(os.listdir(tmp_path)) == ["named", "other"]


@pytest.mark.parametrize(("sql", "says"), [
    ("", "one SELECT"), ("selec 1", "syntax error"), ("select x from processes", "\"x\""),
    ("from nowhere", "nowhere"), ("select 1/0 +", "syntax error"), ("\0", ""),
    ("select '\udcff'", ""), ("select error('a\nb')", "a b"),
    ("select cast(name as int) from processes", "one"), ("(" * 5000, ""),
])
def test_an_error_is_one_sentence(sql: str, says: str, files: tuple[str, str]) -> None:
    with pytest.raises(BadRequest) as error:
        list(opened(files[0]).ask(sql).rows)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_memory_is_bounded_and_nothing_is_put_on_the_disk(
    files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    database = opened(files[0], memory=64 << 20)
    with pytest.raises(PagewalkError, match="--memory"):
        list(database.ask(MANY).rows)
    assert sorted(os.listdir(tmp_path)) == ["named", "other"]


MANY = "select count(*) from (select i, count(*) from range(20_000_000) r(i) group by i)"


def test_sql_of_ours_may_use_a_directory_that_is_removed_again(
    files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spilled = tmp_path / "spilled"
    spilled.mkdir()
    monkeypatch.setenv("TMPDIR", str(spilled))
    assert opened(files[0], memory=128 << 20)._folder is None  # what others write has none
    database = Database(footers(files[:1]), 128 << 20, 2, spill=True)
    (folder,) = spilled.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    seen: list[int] = []
    asked = threading.Thread(target=lambda: seen.extend(next(database.ask(MANY).rows)))
    asked.start()
    most = 0
    while asked.is_alive():
        with contextlib.suppress(FileNotFoundError):
            most = max(most, *(one.stat().st_size for one in folder.iterdir()), 0)
    assert seen == [20_000_000] and most > 1 << 20
    assert database._folder is not None
    database._folder.cleanup()  # as when it is dropped, or the program ends
    assert list(spilled.iterdir()) == []


def test_without_a_place_for_files_memory_is_the_bound(
    files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/proc")
    monkeypatch.setattr("pagewalk.history.sql.PLACES", ("/proc/none",))
    database = Database(footers(files[:1]), 64 << 20, 2, spill=True)
    with pytest.raises(PagewalkError, match="--memory"):
        list(database.ask(MANY).rows)


def test_an_answer_comes_as_it_is_found(files: tuple[str, str]) -> None:
    # A trillion rows, of which three are wanted.
    rows = opened(files[0]).ask("select 7 from range(1_000_000) a, range(1_000_000) b").rows
    assert [next(rows) for _ in range(3)] == [(7,)] * 3


# ---- questions


@pytest.mark.parametrize("question", questions(), ids=lambda one: one.name)
def test_every_question_has_an_answer(question: Any, files: tuple[str, str]) -> None:
    answer = opened(*files).ask(question.sql)
    assert answer.columns[0] == "host" and len(set(answer.columns)) == len(answer.columns)
    list(answer.rows)


def test_what_everybody_shares_comes_first(tmp_path: Path) -> None:
    names = ("[heap]", "/lib/libc.so.6")
    path = recorded(tmp_path / "a", *(
        Process(pid, names=names, runs=(Run(7, 3, "file", vma=1), Run(100, 9 if pid < 7 else 1)))
        for pid in (5, 6, 7)))
    (one,) = [one for one in questions() if one.name == "shared-mappings"]
    rows = [row[2:] for row in opened(path).ask(one.sql).rows]
    assert rows == [(3, 3, 9 * PAGE, "[heap]"), (3, 3, 3 * PAGE, "/lib/libc.so.6")]


# ---- Parquet


def test_an_answer_is_a_parquet_file(files: tuple[str, str], tmp_path: Path) -> None:
    opened(*files).write_parquet("select pid, time, [pid] as pids from processes order by pid",
                                 str(tmp_path / "new"))
    found = pq.read_table(tmp_path / "new")
    assert found.column("pid").to_pylist() == [5, 6]
    assert found.column("pids").to_pylist() == [[5], [6]]
    assert os.stat(tmp_path / "new").st_mode & 0o777 == 0o600


def test_an_answer_that_fails_replaces_nothing(files: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "new").write_text("before")
    with pytest.raises(BadRequest):
        opened(files[0]).write_parquet("select error('no') from processes", str(tmp_path / "new"))
    assert (tmp_path / "new").read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["named", "new", "other"]


def test_every_view_can_be_asked_alone(files: tuple[str, str]) -> None:
    for view in VIEWS:
        answer = opened(files[0]).ask(f"select * from {view}")
        assert answer.columns[:2] == ["host", "time"]
        list(answer.rows)
