"""Several recordings as one table: only the columns and rows that are needed are read."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pagewalk.model.errors import BadRecording, BadRequest
from pagewalk.snapshot.relation import footers, relation
from pagewalk.snapshot.schema import NAMES
from tests.history.by_hand import Process, recorded
from tests.snapshot.by_hand import META


def test_all_rows_with_host_and_time(tmp_path: Path) -> None:
    a = recorded(tmp_path / "a", Process(5), host="a", time=7000)
    b = recorded(tmp_path / "b", Process(6), host="b", time=8999)
    table = relation(footers([a, b])).to_table(filter=ds.field("record") == "process")
    assert table.column_names == [*NAMES, "host", "time"]
    assert table.select(["host", "pid"]).to_pylist() == [
        {"host": "a", "pid": 5}, {"host": "b", "pid": 6}]
    assert table.column("time").cast(pa.int64()).to_pylist() == [7, 8]


def test_a_host_that_is_not_asked_for_is_not_opened(tmp_path: Path) -> None:
    a = recorded(tmp_path / "a", Process(5), host="a")
    b = recorded(tmp_path / "b", Process(6), host="b")
    found = relation(footers([a, b]))
    Path(b).unlink()
    assert found.to_table(["pid"], filter=ds.field("host") == "a").num_rows == 4


def rewritten(path: str, without: list[str], **footer: object) -> str:
    """Write the recording at ``path`` anew, with less columns, or something else in its footer."""
    said = pq.read_metadata(path).metadata
    said[b"pagewalk"] = json.dumps({**json.loads(said[b"pagewalk"]), **footer}).encode()
    table = pq.read_table(path).drop_columns(without).replace_schema_metadata(said)
    with pq.ParquetWriter(path, table.schema) as writer:
        for kind in ("meta", "process", "vma"):  # a row group has rows of one kind
            writer.write_table(table.filter(ds.field("record") == kind))
    return path


def test_a_column_that_an_older_file_lacks_is_null(tmp_path: Path) -> None:
    path = rewritten(recorded(tmp_path / "a", Process(5)), ["pss", "text"])
    found = relation(footers([path])).to_table(["pid", "pss"])
    assert found.column("pss").null_count == len(found) == 4


def test_a_file_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a", Process(5))
    (tmp_path / "link").symlink_to(path)
    assert len(footers([path, str(tmp_path / "link"), path])) == 1


def test_two_of_the_same_host_and_time_are_refused(tmp_path: Path) -> None:
    paths = [recorded(tmp_path / name, Process(5)) for name in ("a", "b\n")]
    with pytest.raises(BadRequest, match=r"a and .*b\\n .*same host") as error:
        footers(paths)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("time", [-1, 1 << 80])
def test_a_time_that_no_calendar_has_is_refused(tmp_path: Path, time: int) -> None:
    with pytest.raises(BadRecording, match="odd time"):
        footers([rewritten(recorded(tmp_path / "a", Process(5)), [], time=time)])


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a\udcff", Process(5), time=META.time)
    with pytest.raises(BadRecording, match="not UTF-8"):
        relation(footers([path]))


def test_what_was_removed_since_its_folder_was_listed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the armed recorder does with its oldest; what was named itself has to be there."""
    path, gone = recorded(tmp_path / "a.pagewalk", Process(5)), str(tmp_path / "gone.pagewalk")
    monkeypatch.setattr("pagewalk.snapshot.relation.recordings_directly_in",
                        lambda folder: [gone, path] if folder == str(tmp_path) else [])
    assert [one.path for one in footers([str(tmp_path)])] == [path]
    with pytest.raises(BadRecording, match="no such file"):
        footers([gone])
