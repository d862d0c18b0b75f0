"""Files that are cut, foreign, newer, or made to do harm are refused in a sentence."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pagewalk.model.errors import BadRecording, BadRequest
from pagewalk.snapshot.read import Recording, is_recording, open_recording, whole_numbers
from pagewalk.snapshot.schema import RECORDS
from pagewalk.snapshot.write import Writer, whole_file
from tests.history.by_hand import Process, Run, recorded
from tests.snapshot.by_hand import FACTS, META, PAGE


def made(path: Path, **meta: object) -> str:
    with whole_file(str(path)) as out:
        writer = Writer(out)
        writer.add("process", {"pid": [5], "mm": [5]})
        writer.add("page", {"pid": np.full(4, 5)})
        writer.close(META._replace(**meta), FACTS)
    return str(path)


def test_a_newer_schema_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadRecording, match=r"schema 99.*newer"):
        Recording(made(tmp_path / "a", schema=99))


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_cut_file_says_so(tmp_path: Path, part: float) -> None:
    path = Path(made(tmp_path / "a"))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(BadRecording, match=r"cut|damaged"):
        Recording(str(path))


def test_any_damage_is_a_sentence(tmp_path: Path) -> None:
    whole = bytearray(Path(made(tmp_path / "a")).read_bytes())
    rng = np.random.default_rng(7)
    for _ in range(300):
        broken = bytearray(whole)
        for at in rng.integers(4, len(whole), 3):
            broken[at] = rng.integers(256)
        path = tmp_path / "b"
        path.write_bytes(broken)
        try:
            recording = Recording(str(path))
            for record in sorted(recording.kinds):
                for part in recording.parts(record, ("pid", "mm", "name", "state")):
                    part.numbers("mm"), part.texts("name")
        except BadRecording:
            pass


def test_other_files_are_refused(tmp_path: Path) -> None:
    foreign, text, fifo = tmp_path / "a.parquet", tmp_path / "b", tmp_path / "c"
    pq.write_table(pa.table({"x": [1]}), foreign)
    text.write_text("hello, world, and more")
    os.mkfifo(fifo)
    for path, why in ((foreign, "none of pagewalk's"), (text, "does not begin"), (fifo, "regular"),
                      (tmp_path, "is a directory"), (tmp_path / "none", "no such file")):
        with pytest.raises(BadRecording, match=why):
            Recording(str(path))


def test_a_word_is_a_recording_by_its_first_bytes_or_its_ending(tmp_path: Path) -> None:
    assert is_recording(made(tmp_path / "a"))
    assert is_recording(str(tmp_path / "missing.pagewalk"))
    assert not is_recording("bash") and not is_recording(str(tmp_path)) and not is_recording("\0")


def test_its_rows_are_arrow(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a", Process(5, runs=(Run(9),)), Process(6, runs=(Run(9, 3),)))
    with open_recording(path) as recording:
        rows = pa.table(recording.rows("page"))
        assert set(rows.column_names) == set(RECORDS["page"])
        assert rows.select(["pid", "frame", "size"]).to_pylist() == [
            {"pid": 5, "frame": 9, "size": PAGE}, {"pid": 6, "frame": 9, "size": 3 * PAGE}]
        assert pa.table(recording.rows("process", 6)).column("pid").to_pylist() == [6]
        assert pa.table(recording.rows("ram")).num_rows == 0
        with pytest.raises(BadRequest, match="'pages'; there are process, vma, page"):
            recording.rows("pages")


@pytest.mark.parametrize("chunks", [
    [[1, None, -3], [None]], [[1, 2]], [[]], [[], [5]], [list(range(70)), [None] * 9 + [7]],
])
def test_numbers_are_what_pyarrow_makes_of_them(chunks: list[list[int | None]]) -> None:
    column = pa.chunked_array(chunks, pa.int64())
    for part in (column, column.slice(1), column.slice(1, max(len(column) - 2, 0))):
        wanted = [-1 if one is None else one for one in part.to_pylist()]
        assert whole_numbers(part, -1).tolist() == wanted


def test_reading_imports_no_pandas(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a", Process(5, runs=(Run(9),)), Process(6, runs=(Run(9, 3),)))
    code = ("import sys\nfrom pagewalk.snapshot.read import Recording\n"
            f"for part in Recording({path!r}).parts('page', ('vma', 'frame'), 6):\n"
            "    part.needed('vma'), part.numbers('frame')\n"
            "assert 'pandas' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)
