"""Groups that vanish while they are read, odd names, and words that mean no group or several."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pagewalk.proc.cgroups import find_hierarchy
from tests.live.charged import MIB, Group, anonymous, charging, explained, group
from tests.live.command import Ran, begin, end, one_sentence, pagewalk
from tests.machine import fewer, remove_group

pytestmark = pytest.mark.live
OWN = f"pagewalk-luck-{os.getpid()}"
OLD = find_hierarchy().version == 1
PARTS = fewer(10)  # of the time that a command takes


# ---- what vanishes or moves


@contextmanager
def churning(where: Group) -> Iterator[None]:
    """Make and remove groups below a group, and start and end processes in them, all the time."""
    stop = threading.Event()

    def work(number: int) -> None:
        path = where.directory / f"churn{number}"
        while not stop.is_set():
            path.mkdir()
            with subprocess.Popen(["sleep", "60"]) as process:
                (path / "cgroup.procs").write_text(str(process.pid))
                process.kill()
            remove_group(path)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def test_groups_and_processes_come_and_go_while_they_are_read() -> None:
    with group(OWN) as where, charging(where, "anon", 16 * MIB), churning(where):
        for _ in range(fewer(5)):
            found = explained(where)
            assert anonymous(found) >= 16 * MIB
            ran = pagewalk("cgroups", "--format", "json")
            assert ran.code == 0, ran.err
            [row] = [row for row in ran.json["cgroups"] if row["path"] == where.path]
            assert row["anon"] >= 16 * MIB


def test_a_group_that_is_removed_between_two_looks_ends_the_watch() -> None:
    with group(OWN) as where:
        watching = begin("explain", where.path, "--watch", "0.2", "--format", "json")
        assert watching.stdout is not None
        while watching.stdout.readline() != b"}\n":
            pass
        remove_group(where.directory)
        ran = end(watching)
    assert ran.code in (2, 5)
    assert where.path in ran.err.splitlines()[-1]


def test_it_is_gone_while_it_is_looked_at() -> None:
    with group(OWN) as where, charging(where, "anon", MIB):
        began = time.monotonic()
        pagewalk("explain", where.path)
        whole = time.monotonic() - began
    codes = set()
    for part in range(10 * PARTS):
        # It is removed a little later each time, from its start to its end.
        with group(OWN) as where, charging(where, "anon", MIB):
            looking = begin("explain", where.path)
            time.sleep(whole * (part % PARTS) / PARTS)
        ran = end(looking)
        assert ran.code in (0, 2, 5), ran.err
        assert not ran.code or where.path in one_sentence(ran)
        codes.add(ran.code)
        if part >= PARTS and 5 in codes:
            break
    assert 5 in codes  # it was found, and had gone before all was read


# ---- names


ODD = ("two words", "-dash", "--dashes", "\x1b[2J", "'quoted\"", "tab\there", "back\\slash",
       "new\u2028line", os.fsdecode(b"not-utf8-\xff\xfe"), "ü", "$(id)", "a:b", "..."
       )  # fmt: skip


TRIED = ODD[: fewer(len(ODD))]  # a name is no matter of the kernel's


@pytest.mark.parametrize("name", TRIED, ids=[f"odd{at}" for at in range(len(TRIED))])
def test_an_odd_name_is_found_and_does_no_harm(name: str) -> None:
    with group(f"{OWN}{name}") as where:
        found = explained(where)
        assert found["cgroup"]["path"] == where.path
        for ran in (pagewalk("explain", where.path), pagewalk("explain", str(where.directory)),
                    pagewalk("explain", "--cgroup", "--", f"{OWN}{name}")):
            assert ran.code == 0, ran.err
            safe(ran)
        safe(pagewalk("cgroups", "--limit", 100000))
        listed = pagewalk("cgroups", "--format", "json").json["cgroups"]
        assert where.path in [row["path"] for row in listed]


def safe(ran: Ran) -> None:
    """Check that nothing was written that a terminal would obey."""
    for text in (ran.out, ran.err):
        assert not [c for c in text if c != "\n" and (ord(c) < 32 or c in "\x7f\u2028")], text


def test_no_such_group_and_none_of_another_hierarchy() -> None:
    ran = pagewalk("explain", "--cgroup", "/no-such-group")
    assert ran.code == 2 and "no memory cgroup is called '/no-such-group'" in one_sentence(ran)
    ran = pagewalk("explain", "--cgroup", "")
    assert ran.code == 2


@pytest.mark.skipif(not OLD, reason="cgroup v2 has one hierarchy")
def test_a_group_of_another_hierarchy_is_named_as_such() -> None:
    others = [path for path in Path("/sys/fs/cgroup").iterdir()
              if path.is_dir() and path.name not in ("memory", "unified") and not path.is_symlink()]
    assert others
    path = others[0] / OWN
    path.mkdir()
    try:
        for words in ((str(path),), ("--cgroup", str(path))):
            ran = pagewalk("explain", *words)
            assert ran.code == 2
            assert "is a group of the hierarchy mounted at" in one_sentence(ran)
    finally:
        path.rmdir()


def test_a_name_that_two_groups_have_is_refused_with_both() -> None:
    with (group(OWN) as above, group("one", above) as first, group("two", above) as second,
          group(f"{OWN}-twin", first) as a, group(f"{OWN}-twin", second) as b):
        ran = pagewalk("explain", f"{OWN}-twin")
        assert ran.code == 2
        assert "2 cgroups are called" in ran.err and a.path in ran.err and b.path in ran.err
        assert explained(a)["cgroup"]["path"] == a.path


def test_a_process_comes_before_a_group_of_its_name() -> None:
    name = f"pw{os.getpid()}"  # at most 15 characters, as a process's name is
    program = ("import ctypes, sys, time; ctypes.CDLL(None).prctl(15, sys.argv[1].encode());"
               " print(flush=True); time.sleep(600)")
    with group(name) as where, subprocess.Popen([sys.executable, "-c", program, name],
                                                stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            ran = pagewalk("explain", name)
            assert "cgroup v" not in ran.out and str(process.pid) in ran.out
            ran = pagewalk("explain", "--cgroup", name)
            assert ran.code == 0 and where.path in ran.out
        finally:
            process.kill()


# ---- options that a group has no use for


def test_options_about_processes() -> None:
    with group(OWN) as where, charging(where, "anon", MIB):
        ran = pagewalk("explain", where.path, "--freeze")
        assert ran.code == 2 and "--freeze stops one process" in one_sentence(ran)
        assert explained(where, "--no-smaps", "--budget", "0.1")["processes"]


def test_a_source_that_cannot_see_all_of_ram_says_so() -> None:
    with group(OWN) as where:
        ran = pagewalk("explain", where.path, "--source", "procfs")
        assert ran.code == 1 and "it cannot read kernel memory" in one_sentence(ran)
        ran = pagewalk("explain", where.path, "--source", "kcore")
        if not os.path.exists("/proc/kcore"):
            assert ran.code in (1, 6) and "kcore" in one_sentence(ran)
        else:
            assert ran.code == 0, ran.err
