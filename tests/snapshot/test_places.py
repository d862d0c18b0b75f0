"""Where recordings are: names that come back, and nothing but whole files."""

import os
from pathlib import Path

import pytest

from pagewalk.history.kept import called, file_name
from pagewalk.history.trigger import ARMED, KILL, NEAR
from pagewalk.model.errors import BadRecording
from pagewalk.snapshot.places import (
    NAME,
    Entry,
    entry_of,
    is_dataset,
    is_recording,
    is_url,
    may_be_recording,
    place_of,
    recordings_directly_in,
    recordings_in,
    unquoted,
    written,
)
from tests.history.by_hand import Process, recorded

MOMENT = 1_700_000_000_123_456_000


@pytest.mark.parametrize("host", ["web1", "a/b", "..", "x=y", "ü ", "host=a", "%2F"])
@pytest.mark.parametrize("root", ["data", "s3://bucket/prefix"])
def test_host_and_time_come_back_from_the_place(host: str, root: str) -> None:
    path = place_of(root, host, MOMENT)
    assert path.count("/") == root.count("/") + 3
    assert entry_of(path) == Entry(host, MOMENT, path)


def test_a_data_set_has_only_what_is_complete_and_where_it_belongs(tmp_path: Path) -> None:
    root = str(tmp_path / "set")
    for host, time in (("b", MOMENT), ("a", MOMENT + 1_000_000), ("a", MOMENT)):
        with written(place_of(root, host, time)) as out:
            out.write(b"x")
    with pytest.raises(RuntimeError), written(place_of(root, "c", MOMENT)) as out:
        out.write(b"half")
        raise RuntimeError
    partial = tmp_path / "set/host=a" / Path(place_of(root, "a", MOMENT)).parts[-2]
    (partial / ".pagewalk.0123.partial").write_bytes(b"half")
    (tmp_path / "set/host=d/time=yesterday").mkdir(parents=True)
    (tmp_path / "set/host=d/time=yesterday" / NAME).write_bytes(b"x")
    unread: list[str] = []
    found = recordings_in(root, unread)
    assert [(one.host, one.time) for one in found] == [
        ("a", MOMENT), ("a", MOMENT + 1_000_000), ("b", MOMENT)]
    [said] = unread
    assert "time=yesterday" in said and "not called by a time" in said
    with pytest.raises(BadRecording, match="not called by a time"):
        recordings_in(root)
    assert sorted(os.listdir(root)) == ["host=a", "host=b", "host=d"]
    assert is_dataset(root) and not is_dataset(str(tmp_path)) and not is_dataset("none")


def test_what_is_there_in_another_form_is_not_passed_over(tmp_path: Path) -> None:
    """A host that is elsewhere counts; what is no file is told by whoever opens it."""
    root, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    for host in ("a", "b"):
        with written(place_of(str(root), host, MOMENT)) as out:
            out.write(b"x")
    (root / "host=b").rename(elsewhere)
    (root / "host=b").symlink_to(elsewhere)
    time = next((root / "host=a").iterdir()).name
    for host, make in (("c", os.mkdir), ("d", os.mkfifo), ("e", lambda to: os.symlink("none", to))):
        (root / f"host={host}" / time).mkdir(parents=True)
        make(root / f"host={host}" / time / NAME)
    (root / "host=f").write_text("a file")
    assert [one.host for one in recordings_in(str(root))] == ["a", "b", "c", "d", "e"]


def test_two_hosts_whose_names_are_not_utf_8_stay_two() -> None:
    hosts = {unquoted(name) for name in ("bad%ff", "bad%fe", "good%20one")}
    assert hosts == {"bad%ff", "bad%fe", "good one"}


def test_an_empty_data_set_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "host=a").mkdir()
    with pytest.raises(BadRecording, match="without host="):
        recordings_in(str(tmp_path))


def test_what_is_in_an_object_store() -> None:
    assert is_url("s3://b/k") and is_url("gs://b") and not is_url("a:b") and not is_url("/x://y")
    assert is_dataset("s3://b/k?region=x") and not is_dataset("s3://b/k.parquet?region=x")


def test_a_word_is_a_recording_by_its_first_bytes_or_its_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recorded(tmp_path / "a", Process(5))
    assert is_recording(path) and is_recording(str(tmp_path / "missing.pagewalk"))
    assert not is_recording("bash") and not is_recording(str(tmp_path)) and not is_recording("\0")
    monkeypatch.chdir(tmp_path)
    recorded(tmp_path / "123", Process(5))
    assert not is_recording("123") and is_recording("./123")  # a number is a pid


def test_a_folder_has_the_recordings_that_are_called_so_the_newest_last(tmp_path: Path) -> None:
    names = [file_name(called("/a/b", inode), reason, MOMENT + at) for inode, reason, at in (
        (None, KILL, 1_000_000), (None, ARMED, 0), (7, NEAR, 2_000_000))]
    for at, name in enumerate([names[2], "z.pagewalk", names[0], names[1]]):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, ns=(MOMENT, MOMENT + at))
    for name in ("data.parquet", ".pagewalk.0123.partial", f"{names[0]}.old"):
        (tmp_path / name).write_bytes(b"PAR1")
    (tmp_path / "folder.pagewalk").mkdir()
    assert [Path(path).name for path in recordings_directly_in(str(tmp_path))] == [
        names[2], "z.pagewalk", names[0], names[1]]
    assert is_recording(str(tmp_path))  # whoever opens it is told what to name instead
    for name in names:
        (tmp_path / name).unlink()
    (tmp_path / "z.pagewalk").unlink()
    assert recordings_directly_in(str(tmp_path)) == [] and not is_recording(str(tmp_path))
    assert recordings_directly_in(str(tmp_path / "none")) == recordings_directly_in("\0") == []


def test_a_process_of_a_recording_may_be_named(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a:b", Process(5))
    assert may_be_recording(path) and may_be_recording(f"{path}:5") and may_be_recording(f"{path}:")
    assert not may_be_recording(f"{path}5") and not may_be_recording("bash:5")


def test_what_does_not_begin_as_a_recording_is_one_only_by_its_ending(tmp_path: Path) -> None:
    for name, is_one in (("a", False), ("a.parquet", False), ("a.pagewalk", True)):
        (tmp_path / name).write_text("hello, world")
        assert is_recording(str(tmp_path / name)) is is_one
    assert is_recording("s3://b/a.parquet?region=x") and not is_recording("s3://b/a.csv")
