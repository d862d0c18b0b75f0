"""Which process of a recording a word names, and what is said where it names none, or several."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagewalk.model.errors import BadRecording, BadTarget
from pagewalk.snapshot.read import Recording
from pagewalk.snapshot.write import Writer, whole_file
from pagewalk.sources import recorded_target
from pagewalk.sources.recorded_target import (
    Recorded,
    named_recording,
    no_process,
    one_of,
    processes_of,
)
from tests.history.by_hand import Process, recorded
from tests.snapshot.by_hand import FACTS, META

WORKERS = (Process(7, "server", program="/bin/server"), Process(9, "worker", program="/bin/a b"),
           Process(8, "worker"), Process(10, "thread", mm=9))


@pytest.fixture
def several(tmp_path: Path) -> Recording:
    return Recording(recorded(tmp_path / "a:1", *WORKERS))


def test_a_word_is_a_file_or_a_file_and_a_process(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a:1", *WORKERS)
    assert named_recording(path) == (path, "")
    assert named_recording(f"{path}:worker") == (path, "worker")
    for word in (f"{path}:", f"{tmp_path}/a", "7", "worker:7", ":7"):
        assert named_recording(word) is None


def test_processes_are_listed_once_for_each_address_space(several: Recording) -> None:
    assert processes_of(several) == [
        Recorded(7, "server", "/bin/server", ""), Recorded(8, "worker", "/bin/one", ""),
        Recorded(9, "worker", "/bin/a b", "")]


@pytest.mark.parametrize(("process", "pid"), [
    ("7", 7), ("server", 7), ("/bin/server", 7), ("a b", 9), ("one", 8), ("/bin/one", 8)])
def test_a_process_is_named_by_pid_name_or_program(
    process: str, pid: int, several: Recording
) -> None:
    assert one_of(several, process) == pid


@pytest.mark.parametrize(("process", "said"), [
    ("", "has 3 processes; name one as FILE:PID:"),
    ("worker", "has 2 processes called worker; name one as FILE:PID:"),
])
def test_several_are_told_apart(process: str, said: str, several: Recording) -> None:
    with pytest.raises(BadTarget) as raised:
        one_of(several, process)
    assert said in str(raised.value) and [pid for pid, _ in raised.value.candidates][-2:] == [8, 9]
    listed = [int(line.split()[0]) for line in str(raised.value).splitlines()[1:]]
    assert listed == ([8, 9] if process else [7, 8, 9])  # no others than those that it may mean


def test_what_it_does_have_is_listed_where_none_is_called_so(several: Recording) -> None:
    with pytest.raises(BadTarget, match=r"is called 'x\\ny'; it has:\n +7  /bin/server\n +8"):
        one_of(several, "x\ny")


def test_a_name_does_not_begin_a_line_of_its_own(tmp_path: Path) -> None:
    hostile = (Process(5, program="/a\n       6  /b"), Process(7, "x", program="/x"))
    with pytest.raises(BadTarget) as raised:
        one_of(Recording(recorded(tmp_path / "a", *hostile)), "")
    assert str(raised.value).count("\n") == 2


def test_the_only_process_needs_no_name(tmp_path: Path) -> None:
    assert one_of(Recording(recorded(tmp_path / "a", Process(5))), "") == 5


@pytest.mark.parametrize(("reason", "said"), [
    ("", "it is a recording of by hand"), ("oom", "or none that it could read; pagewalk explain")])
def test_without_a_process_it_says_what_it_is(reason: str, said: str, tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    with whole_file(path) as out:
        writer = Writer(out)
        writer.add("ram", {"size": [1]})
        writer.close(META._replace(reason=reason), FACTS)
    recording = Recording(path)
    assert said in str(no_process(recording))
    with pytest.raises(BadTarget, match=said):
        one_of(recording, "5")


def test_more_processes_than_a_kernel_can_have_are_refused(
    several: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_target, "MOST_PROCESSES", 3)
    with pytest.raises(BadRecording, match="has more than 3 processes"):
        processes_of(several)
