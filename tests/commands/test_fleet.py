"""pagewalk fleet as it is typed: what is withheld, and what is no data set."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from pagewalk.commands.fleet import NAMES
from pagewalk.history.kept import called, file_name
from pagewalk.history.statements import REPORTS
from pagewalk.history.trigger import KILL
from tests.documents import ROOT
from tests.history.by_hand import Process, recorded
from tests.history.fleet_by_hand import HIDDEN_BY, OF_TWO, at, many_hosts, two_hosts
from tests.live.command import one_sentence, pagewalk_here
from tests.snapshot.by_hand import META

SQL = "select host, time from moments where host = 'a'"


def test_every_report_can_be_asked_for() -> None:
    assert NAMES == REPORTS


def test_json_is_documented(tmp_path: Path) -> None:
    found = pagewalk_here("fleet", "hosts", many_hosts(tmp_path), "--format", "json").json
    section = re.search(r"^## fleet\n(.*?)^## ", (ROOT / "docs/json.md").read_text(), re.M | re.S)
    assert section is not None
    documented = set(re.findall(r"`(\w+)`", section[1]))
    assert set(found) | {"query"} == documented | {"schema", "pagewalk"}
    assert (found["report"], found["hosts"], found["recordings"]) == ("hosts", 4, 9)


@pytest.mark.parametrize("name", ["programs", "mappings", "libraries", "outliers"])
def test_hosts_that_hid_their_frames_are_named(name: str, tmp_path: Path) -> None:
    root = two_hosts(tmp_path)
    ran = pagewalk_here("fleet", name, root)
    assert ran.code == 3
    assert "the frames of 2 processes on 1 host (b) were not visible" in ran.err
    said = pagewalk_here("fleet", name, root, "--format", "json")
    assert said.code == 3 and "1 host (b)" in said.json["partial"][0]
    assert HIDDEN_BY == {"b": 2}
    if name in OF_TWO:
        rows = [tuple(row.values()) for row in json.loads(said.out)["rows"]]
        assert rows == OF_TWO[name]


def test_hosts_whose_processes_could_not_all_be_recorded_are_named(tmp_path: Path) -> None:
    for host, refused in (("a", 0), ("b", 2), ("c", 1)):
        at(tmp_path, host, 0, Process(5), refused=refused)
    ran = pagewalk_here("fleet", "programs", tmp_path)
    assert ran.code == 3
    assert "some processes: 3 processes on 2 hosts (b, c) could not be recorded" in ran.err
    assert pagewalk_here("fleet", "limits", tmp_path).code == 0  # cgroups are not processes


@pytest.mark.parametrize("name", ["hosts", "limits", "growth"])
def test_what_needs_no_frames_is_whole(name: str, tmp_path: Path) -> None:
    assert pagewalk_here("fleet", name, two_hosts(tmp_path)).code == 0


def test_hosts_that_show_their_frames_are_whole(tmp_path: Path) -> None:
    ran = pagewalk_here("fleet", "programs", many_hosts(tmp_path))
    assert (ran.code, ran.err) == (0, "")


def test_a_file_is_no_data_set_and_a_data_set_no_file(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.pagewalk", Process(5))
    said = one_sentence(pagewalk_here("fleet", "hosts", path))
    assert "it is a file" in said and "show, query and diff take a single recording" in said
    root = many_hosts(tmp_path / "fleet")
    for words in (["show"], ["maps"], ["ram"], ["top", "--once"], ["share"], ["diff", path]):
        said = one_sentence(pagewalk_here(*words, root))
        assert "a directory of many: name one of them, such as" in said, words
        assert f"{root}/host=" in said


def test_a_folder_of_recordings_is_no_recording_and_query_takes_it(tmp_path: Path) -> None:
    folder = tmp_path / "armed"
    folder.mkdir()
    old, new = (str(folder / file_name(called("/app"), KILL, moment)) for moment in (
        META.time, META.time + 10**9))
    for path, moment in ((new, META.time + 10**9), (old, META.time)):
        recorded(Path(path), Process(5), time=moment)
        os.utime(path, ns=(moment, moment))
    for words in (["show"], ["explain"], ["maps"], ["ram"], ["cgroups"], ["top", "--once"],
                  ["share"], ["processes"], ["diff", new]):
        said = one_sentence(pagewalk_here(*words, folder))
        assert f"{folder} as a recording: it is a folder of recordings" in said, words
        assert f"name one of them, such as {new}," in said, words
    assert "name two of its files" in one_sentence(pagewalk_here("diff", folder))
    said = one_sentence(pagewalk_here("fleet", "hosts", folder))
    assert "without host=*/time=*" in said and f"such as {new}: give the directory to query" in said
    ran = pagewalk_here("query", folder, "select count(distinct time) n from processes", "--json")
    assert ran.json["rows"] == [{"n": 2}]


def test_time_is_that_of_the_place_for_query_too(tmp_path: Path) -> None:
    root = many_hosts(tmp_path)
    place = next(tmp_path.glob("host=a/time=*"))
    later = place.rename(place.with_name("time=2030-01-02T03-04-05.000006Z"))
    wanted = [{"host": "a", "time": "2030-01-02T03:04:05.000006Z"}]
    for word in (root, later / "snapshot.parquet"):
        ran = pagewalk_here("query", word, SQL, "--json")
        assert ran.json["rows"] == wanted
    fleet = pagewalk_here("fleet", "hosts", root, "--format", "json").json["rows"]
    assert [row["latest"] for row in fleet if row["host"] == "a"] == [wanted[0]["time"]]
