"""Which processes a set means, in a /proc of plain files and in the real one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pagewalk.model.errors import BadTarget, ProcessGone
from pagewalk.proc.chosen import Wanted, among, choose

STAT = b"%d (%s) S %d 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 %d 3 0\n"
STATUS = b"Name:\tx\nUid:\t%d\t0\t0\t0\n"
# pid: comm, parent, real uid, bytes of address space
TABLE = {
    10: (b"server", 1, 7, 8192), 11: (b"worker", 10, 7, 8192), 12: (b"worker", 10, 8, 8192),
    13: (b"helper", 12, 8, 8192), 14: (b"other", 1, 8, 8192), 15: (b"kthread", 2, 0, 0),
}


@pytest.fixture
def root(tmp_path: Path) -> str:
    for pid, (comm, parent, uid, vsize) in TABLE.items():
        base = tmp_path / str(pid)
        base.mkdir()
        (base / "stat").write_bytes(STAT % (pid, comm, parent, vsize))
        (base / "statm").write_bytes(b"9 3 1 1 0 1 0\n")
        (base / "cmdline").write_bytes(b"/bin/" + comm + b"\0")
        (base / "status").write_bytes(STATUS % uid)
    return str(tmp_path)


@pytest.mark.parametrize(("wanted", "pids"), [
    (Wanted(words=("10",)), [10]),
    (Wanted(words=("worker",)), [11, 12]),
    (Wanted(words=("w*", "13")), [11, 12, 13]),
    (Wanted(trees=("10",)), [10, 11, 12, 13]),
    (Wanted(trees=("12",), words=("worker",)), [11, 12, 13]),
    (Wanted(users=("7",)), [10, 11]),
    (Wanted(users=("8",), words=("11",)), [11, 12, 13, 14]),
    (Wanted(pids=(14, 99, 15)), [14]),
    (Wanted(everyone=True), [10, 11, 12, 13, 14]),
])  # fmt: skip
def test_what_any_word_names_is_in_the_set_once(
    wanted: Wanted, pids: list[int], root: str
) -> None:
    assert [one.process.pid for one in choose(wanted, among(root))] == pids


def test_each_is_told_its_parent(root: str) -> None:
    assert {one.process.pid: one.parent for one in choose(Wanted(trees=("10",)), among(root))} == {
        10: 1, 11: 10, 12: 10, 13: 12}


@pytest.mark.parametrize(("wanted", "said"), [
    (Wanted(words=("no such",)), "no process is called 'no such'"),
    (Wanted(words=("worker", "no such")), "no process is called 'no such'"),
    (Wanted(words=("0",)), "'0' is not a valid pid"),
    (Wanted(trees=("worker",)), "'worker' is not a valid pid"),
    (Wanted(users=("no-such-user",)), "there is no user 'no-such-user'"),
    (Wanted(users=("9" * 5000,)), "there is no user '9999"),
    (Wanted(words=("a\nb",)), r"no process is called 'a\\nb'"),
    (Wanted(words=("15",)), "has an address space"),
    (Wanted(), "has an address space"),
])  # fmt: skip
def test_what_names_nobody_is_an_error(wanted: Wanted, said: str, root: str) -> None:
    with pytest.raises(BadTarget, match=said):
        choose(wanted, among(root))


def test_a_pid_that_no_process_has_is_gone(root: str) -> None:
    with pytest.raises(ProcessGone, match="process 2147483647 does not exist"):
        choose(Wanted(words=("10", "2147483647")), among(root))


def test_this_process_is_in_a_set_only_by_its_pid() -> None:
    own = os.getpid()
    assert own not in {one.process.pid for one in choose(Wanted(everyone=True))}
    assert own not in {one.process.pid for one in choose(Wanted(pids=(own, os.getppid())))}
    assert [one.process.pid for one in choose(Wanted(words=(str(own),)))] == [own]


def test_a_file_is_named_where_processes_of_this_machine_were_meant(
    root: str, tmp_path: Path
) -> None:
    (tmp_path / "data.bin").write_bytes(b"data")
    wanted = Wanted(words=(str(tmp_path / "data.bin"),))
    with pytest.raises(BadTarget, match="and the file of that name is no recording"):
        choose(wanted, among(root))
    with pytest.raises(BadTarget) as raised:  # as of a recording
        choose(wanted, among(root)._replace(root=""))
    assert "is no recording" not in str(raised.value)


def test_a_user_is_named_by_name_too() -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            name = subprocess.run(["id", "-un"], check=True, capture_output=True, text=True).stdout
            pids = {one.process.pid for one in choose(Wanted(users=(name.strip(),)))}
            assert process.pid in pids
        finally:
            process.kill()
