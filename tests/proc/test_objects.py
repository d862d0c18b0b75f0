"""Memory objects that a process holds: in this process, and from hand-made lines."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from pagewalk.model.columns import READ, Backing
from pagewalk.proc import objects
from pagewalk.proc.objects import SHM_DEST, Object, ends, mount_of, read_objects
from pagewalk.proc.target import Target, open_target
from tests import by_hand
from tests.kernel_says import read_maps

PAGE = 4096
NOTHING = by_hand.vmas([(0x1000, 1, READ, 0, Backing.ANON, "")])
HEAD = (b"       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid"
        b"  cgid      atime      dtime      ctime                   rss                  swap\n")
SEGMENTS = HEAD + (
    b"         0      32768  1600               4194304  4711  4711      2     0     0     0"
    b"     0 1764140000          0 1764140000               2097152                     0\n"
    b"-559038737          9   600                  4096     1     1      1     0     0     0"
    b"     0 1764140000          0 1764140000                  4096                     0\n"
)


@contextmanager
def target() -> Iterator[Target]:
    held = open_target(os.getpid())
    try:
        yield held
    finally:
        held.close()


def test_a_memfd_is_found_with_its_name_and_its_bytes_in_ram() -> None:
    fd = os.memfd_create("a b\nc")
    os.ftruncate(fd, 9 * PAGE)
    os.write(fd, b"x" * (2 * PAGE + 1))
    with target() as held:
        found, missing = read_objects(held, NOTHING)
    told = os.fstat(fd)
    os.close(fd)
    (row,) = [row for row in found if row.inode == told.st_ino]
    assert row.name == "/memfd:a b\nc (deleted)"
    assert (row.resident, row.linked) == (3 * PAGE, False)
    assert missing == []


MOVED = """
import ctypes, os, sys, tempfile
held = tempfile.TemporaryFile(dir="/dev/shm")
held.write(b"x" * 8192)
held.flush()
# CLONE_NEWUSER | CLONE_NEWNS, include/uapi/linux/sched.h
moved = ctypes.CDLL(None).unshare(0x10020000) == 0
print(os.fstat(held.fileno()).st_ino if moved else 0, flush=True)
sys.stdin.read()
"""


def test_a_file_opened_in_an_earlier_mount_namespace_is_found() -> None:
    with subprocess.Popen([sys.executable, "-c", MOVED], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdin is not None
        inode = int(child.stdout.readline())
        if not inode:
            child.stdin.close()
            pytest.skip("user namespaces are not allowed here")
        held = open_target(child.pid)
        try:
            found, missing = read_objects(held, NOTHING)
        finally:
            held.close()
            child.stdin.close()
    assert [row.resident for row in found if row.inode == inode] == [2 * PAGE]
    assert missing == []


def test_files_on_other_file_systems_are_not_queried(monkeypatch: pytest.MonkeyPatch) -> None:
    # A FUSE or NFS server may never answer: its files are not even looked at.
    asked: list[str] = []
    monkeypatch.setattr(objects, "add", lambda _t, link, *_: asked.append(link))
    with open(__file__, "rb") as file, target() as held:
        read_objects(held, NOTHING)
        here = f"fd/{file.fileno()}"
    kind = os.stat(__file__).st_dev == os.stat("/dev/shm").st_dev
    assert kind or here not in asked


def test_a_refused_look_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(objects, "add_open", refuse)
    with target() as held:
        found, (why,) = read_objects(held, NOTHING)
    assert found == []
    assert (why.what, why.partial) == ("unmapped", True)
    assert why.why == "cannot look at its open files: permission denied"


def test_a_kernel_without_cachestat_is_told_once_and_is_no_refusal(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(objects, "swap_in_use", lambda: True)
    monkeypatch.setattr(objects, "evicted", missing)
    mapped = mmap.mmap(-1, PAGE)
    (vma,) = (vma for vma in read_maps(os.getpid()) if "/dev/zero" in vma.name)
    shared = by_hand.vmas([(vma.start, 1, READ, 0, Backing.SHMEM, vma.name)])
    with open(os.memfd_create("held"), "wb"), target() as held:
        _, (why,) = read_objects(held, shared)
    mapped.close()
    assert (why.what, why.partial) == ("unmapped", False)
    assert "since Linux 6.5" in why.why


def test_the_mount_is_read_from_fdinfo() -> None:
    assert mount_of(b"pos:\t0\nflags:\t0100002\nmnt_id:\t31\nino:\t77\n") == 31
    assert mount_of(b"pos:\t0\n") == -1


def answers(found: list[Object], segments: bytes, monkeypatch: pytest.MonkeyPatch,
            attached: int = 2) -> list[bool | None]:
    of = by_hand.vmas([(0x1000 * (1 + i), 1, READ, 0, Backing.SHMEM, "") for i in range(attached)])
    dev, inode = (np.full(attached, value, np.uint64) for value in (found[0].dev, found[0].inode))
    mapped = by_hand.VMAs(**{**of.__dict__, "dev": dev, "inode": inode})
    monkeypatch.setattr(objects, "read_bytes", lambda _: segments)
    with target() as held:
        return ends(held, mapped, found, lambda keys: [None for _ in keys])


@pytest.mark.parametrize(
    ("number", "attached", "expected"),
    [(32768, 2, True), (32768, 1, False), (9, 1, False), (10, 1, None)],
)
def test_a_segment_ends_if_it_is_removed_and_no_other_process_has_it(
    number: int, attached: int, expected: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SHM_DEST == 0o1000
    segment = Object(1, number, "/SYSV00000000 (deleted)", PAGE, linked=False)
    assert answers([segment], SEGMENTS, monkeypatch, attached) == [expected]


def test_a_named_object_stays_and_the_source_is_asked_about_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = Object(1, 5, "/dev/shm/x", PAGE, linked=True)
    like_a_segment = Object(1, 5, "/SYSV00000000", PAGE, linked=True)
    memfd = Object(1, 6, "/memfd:x (deleted)", PAGE, linked=False)
    found = answers([named, like_a_segment, memfd], HEAD, monkeypatch)
    assert found == [False, False, None]
