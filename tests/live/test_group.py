"""`explain CGROUP` and `cgroups` on this kernel: what a group is charged for closes to the page."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.charges import inside, member
from tests.kernel_says import read_cached
from tests.live.bracket import look_again, looking_again
from tests.live.command import pagewalk
from tests.machine import memory_cgroup

pytestmark = pytest.mark.live
MIB = 1 << 20
REMOVED = 60  # groups: what they leave is more than CPUs have in stock
STOCKS = 7  # groups that a CPU has charged in advance for (NR_MEMCG_STOCK; 1 before)
# Writes a file of 24 MiB, keeps a deleted one of 16 MiB on a tmpfs open, and touches 40 MiB.
LOAD = """
import mmap, os, sys, time
with open(sys.argv[1], "w") as procs:
    procs.write(str(os.getpid()))
with open(sys.argv[2], "wb") as file:
    file.write(os.urandom(1 << 20) * 24)
    file.flush()
    os.fsync(file.fileno())
held = open("/dev/shm/pagewalk-deleted", "wb+")
os.unlink(held.name)
held.write(bytes(range(256)) * (1 << 16))
held.flush()
area = mmap.mmap(-1, 40 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, len(area), 4096):
    area[at] = 1
print("ready", flush=True)
time.sleep(3600)
"""


@contextmanager
def loaded(path: Path, file: Path) -> Iterator[int]:
    """Run a process that charges ``path`` in a known way; yield its pid."""
    program = [sys.executable, "-c", LOAD, path / "cgroup.procs", file]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process.pid
        finally:
            process.kill()


def explained(*target: str | int) -> dict[str, Any]:
    ran = pagewalk("explain", *target, "--format", "json")
    assert ran.code == 0, ran.err
    document: dict[str, Any] = ran.json
    return document


def idle(name: str) -> dict[str, Any]:
    """Return what is said of a group whose processes wait: nothing of it changed meanwhile."""
    document = explained(f"/{name}")
    assert [line for line in document["ledger"] if line["unexplained"]] == []
    assert document["changed_meanwhile"] == 0
    told = ("pages", "kernel_pages", "kernel_objects", "counted_by_the_kernel",
            "charged_in_advance", "percpu_not_told", "second_pages")
    assert sum(document[key] for key in told) == document["charged"]
    return document


@contextmanager
def steady(file: Path) -> Iterator[int]:
    """Yield what of ``file`` is in the page cache, which must not change in the block.

    Reclaim may drop pages of it while others read much.
    """
    before = read_cached(file)
    yield before
    assert read_cached(file) == before > 0


def test_a_group_closes_and_is_found_by_all_its_names(disk: Path) -> None:
    with memory_cgroup("explain") as path, loaded(path, disk / "written") as pid:
        name = path.name

        def look() -> dict[str, Any]:
            with steady(disk / "written") as cached:
                document = idle(name)
            assert [file["cached"] for file in document["files"]
                    if (file["path"] or "").endswith("/written")] == [cached]
            return document

        document = look_again(look)
        files = {file["path"]: file for file in document["files"]}
        deleted = files["/dev/shm/pagewalk-deleted"]
        assert (deleted["sort"], deleted["cached"]) == ("deleted", 16 * MIB)
        assert [holder["pid"] for holder in deleted["kept_by"]] == [pid]
        mapped = {row["kind"]: row["bytes"] for row in document["mapped"]}
        assert mapped["anon"] == sum(document["kinds"][kind] for kind in ("anon", "anon_huge")
                                     if kind in document["kinds"]) >= 40 * MIB
        assert mapped["file"] == mapped["shmem"] == 0
        for words in ((name,), (str(path),), ("--cgroup", pid)):
            assert explained(*words)["cgroup"]["path"] == f"/{name}"


def test_what_stays_charged_after_its_processes_have_ended(disk: Path) -> None:
    with memory_cgroup("ended") as path:
        name = path.name
        with loaded(path, disk / "written"):
            pass

        def look() -> str:
            with steady(disk / "written") as cached:
                document = explained(f"/{name}")
                text = pagewalk("explain", f"/{name}").out
            assert document["processes"] == []
            [written] = [file for file in document["files"]
                         if (file["path"] or "").endswith("/written")]
            assert written["cached"] == cached
            assert f"{cached >> 10} KiB of it one file, {written['path']}" in text.replace(
                "\n  ", " ")
            return text

        assert "No process is in it" in look_again(look)


@looking_again  # reclaim may drop all of it: nothing uses the group any more
def test_a_removed_group_lives_on_by_its_file(disk: Path) -> None:
    with memory_cgroup("removed") as path, loaded(path, disk / "written"):
        name = path.name
    with steady(disk / "written") as cached:
        ran = pagewalk("cgroups", "--dying", "--format", "json")
    assert ran.code == 0, ran.err
    rows = [row for row in ran.json["cgroups"] if row["path"] == f"/{name}"]
    kept = [row["kept_by"] for row in ran.json["dying"] if row["path"] == f"/{name}"]
    assert len(rows) == len(kept) == 1
    assert rows[0]["removed"] and rows[0]["file"] + rows[0]["shmem"] >= cached
    assert "/written" in kept[0]


def test_what_removed_groups_have_left_of_pages_is_found() -> None:
    directory = Path(f"/dev/shm/pagewalk-{os.getpid()}-left")
    directory.mkdir()
    try:
        with memory_cgroup("left") as path:
            with inside(path):
                each = look_again(lambda: idle(path.name))["percpu_not_told"]
            for number in range(REMOVED):
                with inside(path) as inner, member(inner, str(directory / str(number)), 0):
                    pass
            document = look_again(lambda: idle(path.name))
            first = document["ledger"][0]
            [left] = [one for one in first["causes"] if one["cause"] == "object_stock"]
            # Of a page each, an inode and a name are used: its group keeps the rest.
            assert left["exact"] and -left["bytes"] > REMOVED * 2048
            assert document["charged_in_advance"] >= -left["bytes"]
            # One that a CPU has charged in advance for, and that missed being drained, is not gone.
            assert document["percpu_not_told"] <= STOCKS * (os.cpu_count() or 1) * each
            told = {row["field"]: row["why"] for row in document["not_compared"]}
            assert {row["against"].partition(" ")[2] for row in document["ledger"][2:]}.isdisjoint(
                told)
            assert all(told.values())
    finally:
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()


def test_a_group_that_does_not_exist() -> None:
    ran = pagewalk("explain", "/no-such-group")
    assert ran.code == 2
    assert "no memory cgroup is called that either" in ran.err
    assert pagewalk("explain", "--cgroup", "/no-such-group").code == 2
