"""The processes that map a file, by its own tree, against a walk of all processes."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pagewalk.kernel.open import open_bpf
from pagewalk.kernel.running import open_running
from pagewalk.kernel.structs.i_mmap import mapped_by, page_cache_of, page_cache_of_segment
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.proc.files import named
from pagewalk.proc.maps import MFD_HUGETLB
from pagewalk.system import file_users
from tests.kernel_says import PAGE
from tests.live.bracket import look_again, working_sources
from tests.live.command import pagewalk, pagewalk_here
from tests.live.test_inodes import overlaid
from tests.machine import prepared

READERS = [name for name in working_sources() if name != "procfs"]
pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not READERS, reason="nothing reads kernel memory here"),
]
PAGES = 16
IPC_PRIVATE, IPC_CREAT, IPC_RMID = 0, 0o1000, 0  # include/uapi/linux/ipc.h

# Maps parts of a file in several ways, reads a page of each, says so, and waits.
MAPPER = """
import mmap, sys
path, *kinds = sys.argv[1:]
kept = []
with open(path, "r+b") as file:
    for kind in kinds:
        first, pages, flags = (int(word) for word in kind.split(","))
        kept.append(mmap.mmap(file.fileno(), pages * 4096, flags=flags, offset=first * 4096))
        kept[-1][:1]
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def mapping(path: Path, *kinds: str) -> Iterator[int]:
    """Run a process that maps ``path``: "FIRST,PAGES,FLAGS" for each mapping; yield its pid."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", MAPPER, str(path), *kinds], stdin=pipe,
                          stdout=pipe) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            yield process.pid
        finally:
            process.kill()


@pytest.fixture
def file() -> Iterator[Path]:
    """A file in memory, where no overlay is."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder, "a model")
        path.write_bytes(b"x" * PAGES * PAGE)
        yield path


def who(*words: object) -> dict[str, Any]:
    """Return what `who` says."""
    ran = pagewalk_here("who", *words, "--format", "json")
    assert ran.code in (0, 3), ran.err
    found: dict[str, Any] = ran.json
    return found


SHARED, PRIVATE = mmap.MAP_SHARED, mmap.MAP_PRIVATE


@pytest.mark.vmshort
@pytest.mark.parametrize("source", READERS)
def test_it_finds_what_a_walk_finds(file: Path, source: str) -> None:
    with ExitStack() as stack:
        # all of it, two parts of it apart, twice the same part, the last page
        pids = [stack.enter_context(mapping(file, *kinds)) for kinds in (
            (f"0,{PAGES},{SHARED}",), (f"0,2,{PRIVATE}", f"9,3,{SHARED}"),
            (f"4,4,{SHARED}", f"4,4,{PRIVATE}"), (f"{PAGES - 1},1,{SHARED}",))]
        quick, walked = (who("--file", file, "--source", each) for each in (source, "procfs"))
    assert (quick["found_by"], walked["found_by"]) == ("reverse map", "walk")
    assert quick["mappers"] == walked["mappers"]
    assert [one["pid"] for one in quick["mappers"]] == sorted([*pids, pids[1], pids[2]])
    assert quick["not_looked"] == []


def test_a_file_that_nobody_maps(file: Path) -> None:
    found = who("--file", file)
    assert (found["found_by"], found["mappers"], found["partial"]) == ("reverse map", [], [])


@pytest.mark.vmshort
@pytest.mark.parametrize("name", ["old", "new", "two\nlines"])
def test_a_file_on_an_overlay_is_found_by_the_one_below(tmp_path: Path, name: str) -> None:
    with overlaid(tmp_path) as (_, merged):
        if name != "old":  # else it is written, which copies it
            (merged / name).write_bytes(b"x" * PAGE)
        with mapping(merged / name, f"0,1,{PRIVATE}") as pid:
            quick, walked = (who("--file", merged / name, "--source", each)
                             for each in (READERS[0], "procfs"))
    assert (quick["found_by"], walked["found_by"]) == ("reverse map", "walk")
    assert quick["mappers"] == walked["mappers"]
    assert [one["pid"] for one in quick["mappers"]] == [pid]


def test_more_vmas_than_are_looked_at_are_found_by_a_walk(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_users, "MOST", 1)
    with mapping(file, f"0,2,{SHARED}", f"4,2,{SHARED}") as pid:
        found = who("--file", file)
    assert found["found_by"] == "walk"
    assert [one["pid"] for one in found["mappers"]] == [pid, pid]


@pytest.mark.parametrize(("needs", "flags", "size"), [
    ((), 0, PAGE), (("hugetlb",), MFD_HUGETLB, 2 << 20)])
def test_a_memfd_is_found_by_a_descriptor_of_it(
    needs: tuple[str, ...], flags: int, size: int
) -> None:
    with prepared(*needs), ExitStack() as stack:
        fd = os.memfd_create("pagewalk", flags)
        stack.callback(os.close, fd)
        os.ftruncate(fd, size)
        mine = stack.enter_context(mmap.mmap(fd, size))
        mine[0] = 1
        found = who("--file", f"/proc/{os.getpid()}/fd/{fd}")
        assert found["found_by"] == "reverse map"
        (one,) = found["mappers"]
        assert (one["pid"], one["size"], one["mapping"]) == (
            os.getpid(), size, "/memfd:pagewalk (deleted)")


def test_a_segment_is_that_of_our_ipc_namespace() -> None:
    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_void_p
    shmid = libc.shmget(IPC_PRIVATE, PAGE, IPC_CREAT | 0o600)
    assert shmid >= 0
    try:
        kept = libc.shmat(shmid, None, 0)
        assert kept not in (None, ctypes.c_void_p(-1).value)
        # the same id in another namespace is another segment
        attach = ("import ctypes, sys; libc = ctypes.CDLL(None);"
                  " libc.unshare(0x08000000) == 0 or sys.exit(1);"
                  " libc.shmat.restype = ctypes.c_void_p;"
                  f" path = open('/proc/sys/kernel/shm_next_id', 'w'); path.write('{shmid}');"
                  " path.close(); shmid = libc.shmget(0, 4096, 0o1600);"
                  " libc.shmat(shmid, None, 0); print(shmid, flush=True); sys.stdin.read()")
        pipe = subprocess.PIPE
        with subprocess.Popen([sys.executable, "-c", attach], stdin=pipe, stdout=pipe) as other:
            try:
                assert other.stdout is not None
                assert int(other.stdout.readline()) == shmid
                found = who("--shm", shmid)
            finally:
                other.kill()
        assert found["found_by"] == "reverse map"
        assert [(one["pid"], one["size"]) for one in found["mappers"]] == [(os.getpid(), PAGE)]
    finally:
        libc.shmctl(shmid, IPC_RMID, None)
        libc.shmdt(ctypes.c_void_p(kept))


def test_processes_that_this_proc_does_not_show_are_told(file: Path) -> None:
    with mapping(file, f"4,4,{SHARED}") as pid:
        before = ("unshare", "--pid", "--fork", "--mount-proc")
        told = pagewalk("who", "--file", file, "--format", "json", before=before)
        text = pagewalk("who", "--file", file, before=before)
    assert told.code == 3 and "rss and pss of 1 of the mappings" in told.err
    (one,) = told.json["mappers"]
    assert (one["pid"], one["on_host"], one["name"]) == (None, [pid], "python")
    assert (one["size"], one["offset"], one["perms"]) == (4 * PAGE, 4 * PAGE, "rw-s")
    assert (one["rss"], one["pss"]) == (None, None)
    assert one["mapping"] == str(file).removeprefix("/dev/shm")
    assert "1 of these processes is not in this /proc" in " ".join(text.out.split())


def test_the_kernel_has_the_page_cache_of_a_regular_file_only(file: Path) -> None:
    def look(kernel: Kernel, path: str) -> int | None:
        with named(path) as fd:
            return page_cache_of(kernel, fd)

    with closing(open_bpf()) as kernel:
        running = open_running(kernel)
        for path in (str(file.parent), "/dev/null", "/proc/self/maps"):
            assert look(kernel, path) is None
        assert page_cache_of_segment(kernel, (1 << 31) - 1) is None

        def whole() -> None:
            mapping_at = look(kernel, str(file))
            assert mapping_at is not None
            with open(file, "r+b") as held, mmap.mmap(held.fileno(), 0) as mine:
                vma, mm, complete = mapped_by(kernel, running.direct_map, mapping_at, 10)
                assert (vma.end - vma.start).tolist() == [len(mine)] and complete
                assert mm.tolist() == [kernel.field("task_struct", kernel.current, "mm")]

        look_again(whole)
