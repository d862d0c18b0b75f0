"""pagewalk diff as it is typed: budgets of growth, and what cannot be compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.history.by_hand import Process, recorded
from tests.history.test_diff_machine import AFTER, BEFORE, MIB, made
from tests.live.command import PAGEWALK, one_sentence, pagewalk_here

GROWN = {**BEFORE, ("processes", "anon"): 17}  # 7 MiB more than before


GROWS = """
import sys
kept = [bytearray(int(sys.argv[1]))]
while print(flush=True) or sys.stdin.readline():
    kept.append(bytearray(4 << 20))
"""


@contextmanager
def grows(start: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that has ``start`` bytes, and takes 4 MiB more for each line it is given."""
    words = [sys.executable, "-c", GROWS, str(start)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def taken(process: subprocess.Popen[bytes], path: Path) -> str:
    """Return a recording of ``process``."""
    assert pagewalk_here("record", process.pid, "-o", path).code in (0, 3)
    return str(path)


@pytest.fixture
def charges(tmp_path: Path) -> tuple[str, str]:
    """Return two recordings of a cgroup whose charge grew by 7 MiB."""
    return (made(tmp_path / "a", BEFORE, 0, "/web").path,
            made(tmp_path / "b", GROWN, 1, "/web").path)


@pytest.mark.parametrize("by", ["kind", "file", "cache", "cgroup"])
def test_the_charge_of_a_cgroup_has_a_budget(by: str, charges: tuple[str, str]) -> None:
    over = pagewalk_here("diff", *charges, "--by", by, "--ram", "--max-growth", f"{7 * 1024 - 1}K")
    assert over.code == 4
    assert "grew by 7.0M, 1K more than the budget of 7.0M; most of all:" in over.err
    assert pagewalk_here("diff", *charges, "--by", by, "--max-growth", "7M", "--ram").code == 0


def test_without_rows_the_kind_that_grew_most_is_named(tmp_path: Path) -> None:
    sides = [made(tmp_path / name, ram, 0, "/web").path for name, ram in (("a", BEFORE),
                                                                          ("b", GROWN))]
    ran = pagewalk_here("diff", *sides, "--by", "file", "--max-growth", "1M")
    assert ran.code == 4 and "most of all: processes: anon, by 7.0M" in ran.err


def test_all_of_ram_has_no_budget(tmp_path: Path) -> None:
    sides = [made(tmp_path / name, ram, 0).path for name, ram in (("a", BEFORE), ("b", AFTER))]
    assert pagewalk_here("diff", *sides).code == 0
    for by in ("kind", "cgroup"):
        ran = pagewalk_here("diff", *sides, "--by", by, "--max-growth", "1M")
        assert ran.code == 2 and "all of RAM does not grow" in one_sentence(ran)


@pytest.mark.parametrize("words", [["--ram"], ["--by", "cache"], ["--ram", "--max-growth", "1M"]])
def test_ram_that_was_not_recorded_is_not_gone(words: list[str], tmp_path: Path) -> None:
    ram, program = made(tmp_path / "a", BEFORE, 0).path, recorded(tmp_path / "b", Process(5))
    for sides in ((ram, program), (program, ram), (program, program)):
        ran = pagewalk_here("diff", *sides, *words)
        assert ran.code not in (0, 3, 4)
        assert "b does not have what RAM is used for: record it with --ram" in one_sentence(ran)
    for sides in ((ram, program), (program, ram)):  # what is compared without being asked for
        ran = pagewalk_here("diff", *sides)
        assert "does not have what RAM is used for" in one_sentence(ran)


def test_a_process_has_a_budget(tmp_path: Path) -> None:
    with grows(0) as process:
        one = taken(process, tmp_path / "a")
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"more\n")
        process.stdin.flush()
        assert process.stdout.readline()
        other = taken(process, tmp_path / "b")
    for limit, codes in (("1G", (0, 3)), ("3M", (4,))):
        said = pagewalk_here("diff", one, other, "--max-growth", limit)
        assert said.code in codes and re.match(r"RSS grew by \d+ KiB in \d", said.out)
    assert "more than the budget of 3.0M" in said.err
    said = pagewalk_here("diff", one, other, "--max-growth", "0", "--by", "vma")
    assert said.code == 4
    assert re.search(r"grew by [\d.]+M; the budget allows none; most of all: \[\w+\] at"
                     r" [0-9a-f]+-[0-9a-f]+, by ", said.err)


def test_two_runs_are_not_said_to_have_grown_in_some_time(tmp_path: Path) -> None:
    with grows(0) as process:
        one = taken(process, tmp_path / "a")
    with grows(8 * MIB) as process:
        other = taken(process, tmp_path / "b")
    said = pagewalk_here("diff", one, other)
    assert re.match(r"RSS grew by \d+ KiB between two runs, [\d.]+ (s|min) apart: \+\d", said.out)
    assert "n/a: moved" not in said.out and "or moved" not in said.out
    assert "not the same process" in said.out


def test_a_budget_without_its_unit_is_refused(charges: tuple[str, str]) -> None:
    ran = pagewalk_here("diff", *charges, "--max-growth", "50")
    assert "a budget of '50' is less than a page: give a size with a unit" in one_sentence(ran)


def test_a_budget_counts_though_nobody_reads_what_grew(charges: tuple[str, str]) -> None:
    """As in `pagewalk diff A B --max-growth 1M | head -1`."""
    reads, writes = os.pipe()
    os.close(reads)
    words = [*PAGEWALK, "diff", *charges, "--ram", "--max-growth", "1M"]
    ran = subprocess.run(words, stdout=writes, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writes)
    assert ran.returncode == 4 and "grew by 7" in ran.stderr
