"""What is written is read again, and a file is there whole or not at all."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pagewalk.model.errors import BadRequest
from pagewalk.snapshot.read import Recording
from pagewalk.snapshot.schema import COLUMNS, RECORDS
from pagewalk.snapshot.write import GROUP, Labels, Writer, whole_file
from tests.snapshot.by_hand import FACTS, META

ROOT = Path(__file__).parents[2]


def test_rows_of_each_kind_come_back(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    with whole_file(path) as out:
        writer = Writer(out)
        writer.add("page", {"pid": np.array([5, 5]), "start": np.array([1 << 63, 4096], np.uint64),
                            "state": Labels(np.array([1, 0]), ("anon", "file"))})
        writer.add("process", {"pid": [5], "name": ["a\udcff\\x41"], "pss": [None]})
        writer.close(META, FACTS)
    recording = Recording(path)
    assert recording.meta == META and recording.facts.config == {"SWAP"}
    (part,) = recording.parts("page", ("start", "state", "frame"))
    assert part.needed("start").view(np.uint64).tolist() == [1 << 63, 4096]
    codes, names = part.codes("state")
    assert [names[code] for code in codes] == ["file", "anon"]
    assert part.numbers("frame") is None
    (part,) = recording.parts("process", ("name", "pss"))
    assert part.texts("name") == ["a\udcff\\x41"] and part.numbers("pss") is None
    (part,) = recording.parts("meta", ("name", "moment", "unit"))
    assert part.texts("name") == ["host"] and part.needed("unit").tolist() == [4096]
    assert part.needed("moment").tolist() == [META.time]
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_only_the_row_groups_of_a_process_are_read(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    with whole_file(path) as out:
        writer = Writer(out)
        for pid in (3, 4, 5):
            writer.add("page", {"pid": np.full(GROUP, pid), "start": np.arange(GROUP)})
        writer.close(META, FACTS)
    recording = Recording(path)
    assert [len(part) for part in recording.parts("page", ("start",), 4)] == [GROUP]
    assert list(recording.parts("page", ("start",), 6)) == []


def test_a_file_is_replaced_only_when_all_went_well(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("before")
    with pytest.raises(RuntimeError), whole_file(str(path)) as out:
        out.write(b"half")
        raise RuntimeError
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["a"]


def test_where_each_file_has_a_name_it_is_replaced_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on 9p or NFS."""
    real = os.open

    def without_nameless(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path)
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", without_nameless)
    path = tmp_path / "a"
    path.write_text("before")
    with pytest.raises(RuntimeError), whole_file(str(path)) as out:
        raise RuntimeError
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["a"]
    with whole_file(str(path)) as out:
        out.write(b"after")
        [partial] = set(os.listdir(tmp_path)) - {"a"}
    assert partial.endswith(".partial")
    assert path.read_text() == "after" and os.listdir(tmp_path) == ["a"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_where_it_may_not_be_given_a_name_it_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a seccomp filter, or without /proc/self/fd."""
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "a"
    with whole_file(str(path)) as out:
        out.write(b"after" * 1000)
    assert path.read_bytes() == b"after" * 1000 and os.listdir(tmp_path) == ["a"]


def test_a_folder_that_only_takes_files_takes_one(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir(mode=0o300)
    code = ("import os, sys\n"
            "from pagewalk.snapshot.write import whole_file\n"
            "with whole_file(sys.argv[1]) as out:\n"
            "    out.write(b'x')\n")
    if os.geteuid() == 0:
        code = "import os\nimport pagewalk.snapshot.write\nos.seteuid(65534)\n" + code
        os.chown(folder, 65534, -1)
    for above in folder.parents:
        if above != tmp_path.parents[-1] and above.stat().st_uid == os.geteuid():
            above.chmod(above.stat().st_mode | 0o011)
    subprocess.run([sys.executable, "-c", code, str(folder / "a")], check=True, cwd=ROOT)
    folder.chmod(0o700)
    assert (folder / "a").read_bytes() == b"x"


def test_half_a_file_has_no_name(tmp_path: Path) -> None:
    with whole_file(str(tmp_path / "a")) as out:
        out.write(b"half")
        assert os.listdir(tmp_path) == []
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_every_column_is_used_and_every_use_is_a_column() -> None:
    used = {name for names in RECORDS.values() for name in names} | {"record"}
    assert used == {column.name for column in COLUMNS}


def test_writing_imports_no_pandas(tmp_path: Path) -> None:
    """It takes a fifth of a second to import, and pyarrow asks for it."""
    code = (
        "import sys, numpy as np\n"
        "from pagewalk.snapshot.write import Labels, Writer, whole_file\n"
        "from tests.snapshot.by_hand import FACTS, META\n"
        "with whole_file(sys.argv[1]) as out:\n"
        "    writer = Writer(out)\n"
        "    state = Labels(np.array([0]), ('anon',))\n"
        "    writer.add('page', {'pid': np.array([5]), 'state': state})\n"
        "    writer.add('process', {'pid': [5], 'name': ['a'], 'pss': [None]})\n"
        "    writer.add('ram', {'state': ['cache', None], 'name': ['file', None]})\n"
        "    writer.close(META, FACTS)\n"
        "assert 'pandas' not in sys.modules")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=True, cwd=ROOT)
    found = pq.read_table(tmp_path / "a").select(["record", "state", "pss"]).to_pylist()
    assert [row["state"] for row in found if row["record"] == "ram"] == ["cache", None]
    assert len(found) == 5


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(BadRequest, match="'': the name is empty"), whole_file(""):
        raise AssertionError
