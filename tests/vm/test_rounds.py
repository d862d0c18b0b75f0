"""What a round in another kernel came to: told in the guest, counted and recorded on the host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from vmtest.kernels import KERNELS
from vmtest.rounds import (
    HEADING,
    NAME,
    RESULTS,
    SIZES,
    Round,
    count,
    failures,
    load,
    read_parts,
    read_rows,
    save,
    table,
    with_table,
)

TESTS = """
import os
import pytest

def test_passes(): pass
@pytest.mark.parametrize("n", [1, 2])
def test_fails(n): assert n == 2
def test_skips(): pytest.skip("not here")
@pytest.fixture
def broken():
    yield
    raise OSError("cannot clean up")
def test_passes_and_cannot_clean_up(broken): pass
@pytest.fixture
def missing(): raise OSError("cannot set up")
def test_cannot_be_set_up(missing): pass
def test_never_ends():
    if "DIE" in os.environ: os._exit(9)
"""


def told(folder: Path, part: str = "1", tests: str = TESTS, **env: str) -> Path:
    """Run ``tests`` as a guest does; return the file that the plugin wrote."""
    (folder / "test_it.py").write_text(tests)
    output = folder / part
    output.mkdir()
    words = [sys.executable, "-m", "pytest", "-q", "-p", "vmtest.told", "-p", "no:cacheprovider",
             str(folder / "test_it.py"), "--rootdir", str(folder)]
    told_by = {"VMTEST_OUTPUT": str(output), "VMTEST_PARTS": str(folder),
               "VMTEST_COMMIT": f"commit{part}"}
    subprocess.run(words, env={**os.environ, **told_by, **env}, check=False, capture_output=True,
                   cwd=RESULTS.parents[1])
    return output / NAME


def ids(*names: str) -> tuple[str, ...]:
    return tuple(f"test_it.py::test_{name}" for name in names)


def test_each_test_is_counted_once_by_its_worst(tmp_path: Path) -> None:
    rows = read_rows(told(tmp_path))
    found = count(rows, "")
    assert (found.release, found.collected, found.cpus) == (os.uname().release, 7, os.cpu_count())
    assert (found.passed, found.skipped) == (3, 1)
    assert found.failed == ids("cannot_be_set_up", "fails[1]", "passes_and_cannot_clean_up")
    assert found.complete and "3 failed" in str(found)
    assert any("assert 1 == 2" in row["text"] for row in failures(rows))


def test_what_ran_before_a_guest_died_is_told(tmp_path: Path) -> None:
    path = told(tmp_path, DIE="1")
    with open(path, "a") as file:
        file.write('{"test": "cut sh')
    found = count(read_rows(path), "the guest did not finish within 9 s")
    assert (found.passed, found.ran, found.collected) == (2, 6, 7)
    assert not found.complete
    assert str(found).startswith("not complete (the guest did not finish within 9 s): 6 of 7 run")


def test_the_next_part_runs_what_has_not_passed(tmp_path: Path) -> None:
    first = read_rows(told(tmp_path, DIE="1"))
    assert count(first, "").commits == ("commit1",)
    second = read_rows(told(tmp_path, "2"))
    ran = {row["test"] for row in second if "test" in row}
    assert ran == {*ids("cannot_be_set_up", "fails[1]", "passes_and_cannot_clean_up", "never_ends")}
    found = count(read_parts(tmp_path), "")
    assert (found.passed, found.skipped, len(found.failed), found.collected) == (3, 1, 3, 7)
    assert found.commits == ("commit1", "commit2")
    assert found.complete and "; in 2 parts, on commit1, commit2" in str(found)
    assert str(found._replace(cpus=1)).endswith("; with one CPU")


def test_what_failed_is_mended_or_gone_in_the_next_part(tmp_path: Path) -> None:
    told(tmp_path)
    mended = TESTS.replace("n == 2", "n > 0").replace("def test_cannot_be_set_up", "def unused")
    told(tmp_path, "2", mended)
    found = count(read_parts(tmp_path), "")
    assert found.failed == ids("passes_and_cannot_clean_up")
    assert (found.passed, found.skipped, found.collected) == (4, 1, 6)


def test_a_guest_that_told_nothing_is_not_complete(tmp_path: Path) -> None:
    assert not count(read_rows(tmp_path / NAME), "").complete


WHOLE = Round("6.1.0-50-amd64", "2026-11-26", 12, 10, 2, (), "")
SHORT = Round("6.1.0-50-amd64", "2026-11-25", 5, 3, 0, ("a", "b"), "")


@pytest.fixture
def record() -> dict[str, dict[str, Round]]:
    return {"6.1": dict(zip(SIZES, (WHOLE, SHORT), strict=True))}


def test_a_record_is_read_as_it_was_written(
    record: dict[str, dict[str, Round]], tmp_path: Path
) -> None:
    save(record, tmp_path / "results.json")
    assert load(tmp_path / "results.json") == record


def test_the_table_has_a_row_for_each_kernel(record: dict[str, dict[str, Round]]) -> None:
    first, _, *rows = table(record).splitlines()
    assert first == HEADING
    assert [line.split(" | ")[0].removeprefix("| ") for line in rows] == [*KERNELS]
    assert "6.1.0-50-amd64, 2026-11-26: 10 passed, 2 skipped |" in rows[0]
    assert "6.1.0-50-amd64, 2026-11-25: 3 passed, 2 failed |" in rows[0]
    assert all(line.endswith("| not run | not run |") for line in rows[1:])


def test_the_rest_of_the_page_stays(record: dict[str, dict[str, Round]]) -> None:
    page = f"# Support\n\nBefore.\n\n{table({})}\nAfter.\n\nMore.\n"
    assert with_table(page, record) == f"# Support\n\nBefore.\n\n{table(record)}\nAfter.\n\nMore.\n"


def test_the_record_names_kernels_of_the_table() -> None:
    assert load().keys() <= KERNELS.keys()
