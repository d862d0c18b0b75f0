"""Who maps a page or a file, against pagemap and maps of every process that was started for it."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import kernel_says
from tests.kernel_says import PAGE, PFN, PRESENT
from tests.live.bracket import look_again, working_sources
from tests.live.command import pagewalk, pagewalk_here
from tests.machine import prepared
from tests.targets import TARGETS, start

pytestmark = pytest.mark.live
MIB = 1 << 20


def who(*words: object) -> dict[str, Any]:
    """Return what `who` says."""
    ran = pagewalk_here("who", *words, "--format", "json")
    assert ran.code in (0, 3), ran.err
    found: dict[str, Any] = ran.json
    return found


def frame_at(pid: int, addr: int) -> int:
    word = int(kernel_says.read_pagemap(pid, addr, addr + PAGE)[0])
    assert word & PRESENT
    return word & PFN


@pytest.mark.parametrize("source", working_sources())
@pytest.mark.parametrize(
    "name", ["plain", "fork_cow", "fork_three", "memfd", "thp_fork", "hugetlb_fork", "ksm"])
def test_everybody_who_maps_a_page_is_found(name: str, source: str) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:
        fact = next(one for one in running.facts.values() if "start" in one)
        pid = fact.get("pid", running.pid)

        def look() -> None:  # khugepaged and compaction move even a stopped process's pages
            rows = kernel_says.read_pagemap(pid, fact["start"], fact["end"])
            at = next(row for row, word in enumerate(rows.tolist()) if word & PRESENT)
            addr = fact["start"] + at * PAGE
            pfn = frame_at(pid, addr)
            found = who(pid, hex(addr), "--source", source)
            by_number = who("--pfn", pfn, "--source", source)
            assert frame_at(pid, addr) == pfn == found["frame"]["pfn"]
            assert found["mappers"] == by_number["mappers"]
            # Each is there by pagemap; and the kernel counts as many.
            for one in found["mappers"]:
                assert frame_at(one["pid"], int(one["addr"], 16)) == pfn
            assert len(found["mappers"]) == found["frame"]["mapcount"] >= 1
            assert found["partial"] == []
            assert (pid, hex(addr)) in [(one["pid"], one["addr"]) for one in found["mappers"]]

        look_again(look)


def test_a_file_is_found_wherever_it_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "a file\nof two lines"
    path.write_bytes(b"x" * MIB)
    code = ("import mmap, sys; file = open(sys.argv[1], 'r+b'); held = mmap.mmap(file.fileno(), 0);"
            " held.read(65536); print('ready', flush=True); sys.stdin.read()")
    pipe = subprocess.PIPE
    processes = [subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=pipe, stdout=pipe)
                 for _ in range(2)]
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        found = who("--file", path)
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), MIB, prot=mmap.PROT_READ) as mine:
            assert mine[PAGE] == ord("x")
            with_us = who("--file", path)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert sorted(one["pid"] for one in found["mappers"]) == sorted(p.pid for p in processes)
    assert sorted(one["pid"] for one in with_us["mappers"]) == sorted(
        [os.getpid(), *(p.pid for p in processes)])
    for one in found["mappers"]:
        assert (one["size"], one["offset"], one["perms"]) == (MIB, 0, "rw-s")
        assert 64 << 10 <= one["rss"] <= MIB


def test_a_segment_is_found_by_its_id() -> None:
    with start("sysv") as running:
        (shmid,) = {vma.inode for vma in kernel_says.read_maps(running.pid)
                    if vma.name.startswith("/SYSV")}
        found = who("--shm", shmid)
    assert {one["pid"] for one in found["mappers"]} == {*running.pids}


@pytest.mark.parametrize(("words", "said"), [
    ((), "name one thing"), (("1",), "name one thing"), (("--pfn", "1", "--shm", "2"), "one thing"),
    (("--pfn", "-1"), "--pfn: '-1'"), (("--phys", "xyz"), "--phys: 'xyz'"),
    (("--file", "/no/such"), "cannot look at /no/such: no such file"),
    ((os.getpid(), "10"), "has no memory of its own at 0x10"),
    ((os.getpid(), "ffffffffff600000"), "has no memory of its own at"),
])
def test_what_cannot_be_asked_gets_a_sentence(words: tuple[object, ...], said: str) -> None:
    ran = pagewalk("who", *words)
    assert (ran.code, ran.out) == (2, "") and said in ran.err


def test_a_user_may_not_see_frames() -> None:
    drop = ("setpriv", "--reuid=65534", "--clear-groups")
    ran = pagewalk("who", "--pfn", 4096, before=drop)
    assert ran.code == 6 and "run as root" in ran.err
