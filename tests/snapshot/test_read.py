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
from pagewalk.snapshot.read import Recording, open_recording
from pagewalk.snapshot.schema import RECORDS
from pagewalk.snapshot.write import Writer, whole_file
from tests.history.by_hand import Process, Run, recorded
from tests.snapshot.by_hand import FACTS, META, PAGE


def made(path: Path) -> str:
    with whole_file(str(path)) as out:
        writer = Writer(out)
        writer.add("process", {"pid": [5], "mm": [5]})
        writer.add("page", {"pid": np.full(4, 5)})
        writer.close(META, FACTS)
    return str(path)


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


def test_reading_imports_no_pandas(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a", Process(5, runs=(Run(9),)), Process(6, runs=(Run(9, 3),)))
    code = ("import sys\nfrom pagewalk.snapshot.read import Recording\n"
            f"for part in Recording({path!r}).parts('page', ('vma', 'frame'), 6):\n"
            "    part.needed('vma'), part.numbers('frame')\n"
            "assert 'pandas' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)
