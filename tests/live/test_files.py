"""The page cache by file against mincore(2), lstat(2) and the paths that were written, tolerance 0.

Pages come and go: a file is compared where mincore says the same before and after.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import pytest

from pagewalk.kernel.open import open_bpf
from pagewalk.kernel.running import RunningKernel, open_running
from pagewalk.kernel.scan import scan_frames
from pagewalk.proc.iomem import read_ranges
from pagewalk.system.cached import add_up_files
from pagewalk.system.files import CachedFile, FilesReport, Sort, name_files
from tests.kernel_says import PAGE
from tests.live.bracket import Seen, look_again, settle, working_sources
from tests.live.command import pagewalk
from tests.live.holder import IPC_RMID
from tests.live.test_inodes import kernel_dev, mounted, overlaid
from tests.live.test_open_files import keeper

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif("ebpf" not in working_sources(), reason="nothing reads kernel memory here"),
]

FILES = 2000
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
ODD = (b"n" * 255, b"new\nline", b"\x1b[31mred", b"\xff\xfe", "名".encode(), b"back\\slash 040")


class File(NamedTuple):
    """A file that a test wrote: ``path`` where it is to be seen, None if nowhere."""

    fd: int
    path: bytes | None
    sort: Sort


@pytest.fixture(scope="module")
def running() -> Iterator[RunningKernel]:
    opened = open_running(open_bpf())
    with closing(opened.kernel):
        yield opened


def report_now(running: RunningKernel) -> FilesReport:
    cached = add_up_files(scan_frames(running, read_ranges()))
    return name_files(running.kernel, running.direct_map, cached, PAGE, most=1 << 30)


def by_key(report: FilesReport) -> dict[tuple[int, int], CachedFile]:
    files = [file for file in report.files if file.sort is not Sort.GONE]
    found = {(file.dev, file.inode): file for file in files if file.sort is not Sort.DEVICE}
    return found


def resident(fd: int) -> int:
    """Return the bytes of a file that are in RAM, by mincore(2), which loads nothing."""
    size = os.fstat(fd).st_size
    if not size:
        return 0
    length = ctypes.c_size_t(size)
    at = LIBC.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, fd, ctypes.c_long(0))
    assert at not in (None, ctypes.c_void_p(-1).value)
    pages = -(-size // PAGE)
    told = (ctypes.c_ubyte * pages)()
    assert LIBC.mincore(ctypes.c_void_p(at), length, told) == 0
    LIBC.munmap(ctypes.c_void_p(at), length)
    return sum(byte & 1 for byte in told) * PAGE


def key(fd: int) -> tuple[int, int]:
    stat = os.fstat(fd)
    return kernel_dev(stat.st_dev), stat.st_ino


def written(stack: ExitStack, path: bytes, pages: int, sort: Sort) -> File:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    stack.callback(os.close, fd)
    for at in range(pages):  # with holes
        os.pwrite(fd, b"x", 2 * at * PAGE)
    return File(fd, path, sort)


def check(running: RunningKernel, files: list[File]) -> FilesReport:
    """Compare pages, sort, number of links and path of each file; return the last report."""
    reports = []

    def look() -> Seen[int]:
        before = [resident(file.fd) for file in files]
        report = report_now(running)
        found = by_key(report)
        reports[:] = [report]
        differ: dict[int, object] = {}
        moved = set()
        for row, file in enumerate(files):
            ours = found.get(key(file.fd))
            if resident(file.fd) != before[row]:
                moved.add(row)
            elif ours is None:
                differ[row] = f"{file} is missing" if before[row] else None
            elif said(ours) != (before[row], file.sort, os.fstat(file.fd).st_nlink, file.path):
                differ[row] = (said(ours), before[row], file)
        return Seen({row: how for row, how in differ.items() if how}, moved)

    assert settle(look) == {}
    return reports[0]


def said(file: CachedFile) -> tuple[int, Sort, int, bytes | None]:
    place = file.place
    return file.amounts.cached, file.sort, file.nlink, None if place is None else place.path


@pytest.mark.vmshort
def test_each_file_has_the_pages_that_mincore_counts_and_its_path(
    running: RunningKernel, tmp_path: Path, disk: Path
) -> None:
    with ExitStack() as stack:
        files = []
        shm = stack.enter_context(mounted(tmp_path / "tmpfs", "-t", "tmpfs", "pagewalk"))
        (disk / "files").mkdir()
        for folder, sort in ((shm, Sort.TMPFS), (disk / "files", Sort.FILE)):
            raw = os.fsencode(folder)
            files += [written(stack, raw + b"/" + name, 3, sort) for name in ODD]
            linked = written(stack, raw + b"/linked", 5, sort)
            os.link(linked.path or b"", raw + b"/other")
            os.unlink(linked.path or b"")
            files.append(linked._replace(path=raw + b"/other"))
            renamed = written(stack, raw + b"/old", 7, sort)
            os.mkdir(raw + b"/folder")
            os.rename(raw + b"/old", raw + b"/folder/new")
            files.append(renamed._replace(path=raw + b"/folder/new"))
            deleted = written(stack, raw + b"/deleted", 9, Sort.DELETED)
            os.unlink(deleted.path or b"")
            files.append(deleted)
            deep = raw + b"/" + b"/".join([b"d" * 60] * 30)
            os.makedirs(deep)
            files.append(written(stack, deep + b"/f", 2, sort))
        report = check(running, files)
        own = {one.path for one in files if one.sort is Sort.DELETED}
        for file in report.files:
            if file.place is not None and file.place.path in own:
                assert [holder.pid for holder in file.kept_by or ()] == [os.getpid()]
        assert report.holders_complete
        stack.pop_all().close()


def test_thousands_of_files(running: RunningKernel, tmp_path: Path) -> None:
    with mounted(tmp_path / "tmpfs", "-t", "tmpfs", "pagewalk") as folder:
        for row in range(FILES):
            (folder / f"d{row % 40}").mkdir(exist_ok=True)
            (folder / f"d{row % 40}/{row}").write_bytes(b"x" * PAGE * (1 + row % 3))
        dev = kernel_dev(os.stat(folder).st_dev)

        def look() -> None:
            found = {file.place.path: file for file in report_now(running).files
                     if file.dev == dev and file.place is not None and file.nlink == 1}
            assert len(found) == FILES
            for row in range(FILES):
                path = folder / f"d{row % 40}/{row}"
                file = found[os.fsencode(path)]
                assert file.inode == os.lstat(path).st_ino
                assert file.amounts.cached == PAGE * (1 + row % 3)
                assert sum(charge.bytes for charge in file.charges or ()) == file.amounts.cached

        look_again(look)


def test_memory_without_a_file(running: RunningKernel) -> None:
    libc_key = 0x13F11E6
    segment = LIBC.shmget(libc_key, 3 * PAGE, 0o1600)
    LIBC.shmat.restype = ctypes.c_void_p
    own = mmap.mmap(-1, 5 * PAGE)
    with ExitStack() as stack:
        stack.callback(LIBC.shmctl, segment, IPC_RMID, None)
        stack.callback(own.close)
        fd = os.memfd_create("a buffer")
        stack.callback(os.close, fd)
        os.write(fd, b"x" * 7 * PAGE)
        place = LIBC.shmat(segment, None, 0)
        stack.callback(LIBC.shmdt, ctypes.c_void_p(place))
        ctypes.memset(place, 1, 3 * PAGE)
        own[:] = b"x" * 5 * PAGE

        def look() -> None:
            files = [file for file in report_now(running).files if file.sort is Sort.UNNAMED]
            ours = [file for file in files
                    if os.getpid() in [holder.pid for holder in file.kept_by or ()]]
            told = {(file.inside, file.amounts.cached, file.amounts.mapped) for file in ours}
            assert {
                ("memfd:a buffer", 7 * PAGE, 0),
                (f"SYSV{libc_key:08x}", 3 * PAGE, 3 * PAGE),
                ("dev/zero", 5 * PAGE, 5 * PAGE),
            } <= told
            assert all(file.place is None for file in ours)

        look_again(look)


def test_a_file_on_an_overlay_lies_under_the_path_below(
    running: RunningKernel, tmp_path: Path
) -> None:
    with overlaid(tmp_path) as (base, merged):
        (merged / "new").write_bytes(b"x" * 2 * PAGE)
        (merged / "old").read_bytes()
        dev = kernel_dev(os.stat(base).st_dev)

        def look() -> None:
            found = {file.place.path: file.amounts.cached for file in report_now(running).files
                     if file.dev == dev and file.place is not None}
            assert found == {os.fsencode(base / "upper/new"): 2 * PAGE,
                             os.fsencode(base / "lower/old"): PAGE}

        look_again(look)


def test_bind_mounts_are_other_places_of_the_same_file(
    running: RunningKernel, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        base = stack.enter_context(mounted(tmp_path / "base", "-t", "tmpfs", "pagewalk"))
        (base / "part").mkdir()
        (base / "part/f").write_bytes(b"x" * PAGE)
        bound = stack.enter_context(mounted(tmp_path / "a b", "--bind", str(base / "part")))
        dev = kernel_dev(os.stat(base).st_dev)

        def look() -> None:
            (file,) = (file for file in report_now(running).files if file.dev == dev)
            assert file.place is not None
            assert file.place.path == os.fsencode(base / "part/f")
            assert file.place.also == (os.fsencode(bound / "f"),)

        look_again(look)
        (base / "covered").mkdir()
        cover = stack.enter_context(mounted(base / "part", "-t", "tmpfs", "other"))
        assert os.listdir(cover) == []

        def look_covered() -> None:
            (file,) = (file for file in report_now(running).files if file.dev == dev)
            assert file.place is not None
            assert (file.place.path, file.place.also) == (os.fsencode(bound / "f"), ())

        look_again(look_covered)


def test_the_command_names_a_deleted_file_and_who_keeps_it(tmp_path: Path) -> None:
    size = 64 << 20
    with ExitStack() as stack:
        folder = stack.enter_context(mounted(tmp_path / "tmpfs", "-t", "tmpfs", "pagewalk"))
        (folder / "app.log").write_bytes(b"x" * size)
        inode = (folder / "app.log").stat().st_ino
        pid = stack.enter_context(keeper("open", folder / "app.log"))
        os.unlink(folder / "app.log")
        name = f"{folder}/app.log"

        def look() -> None:
            ran = pagewalk("ram", "--files", "--format", "json")
            assert ran.code == 0, ran.err
            (file,) = [one for one in ran.json["files"] if one["path"] == name]
            assert (file["sort"], file["cached"], file["mapped"]) == ("deleted", size, 0)
            assert [(one["pid"], one["on_host"]) for one in file["kept_by"]] == [(pid, False)]
            assert sum(one["bytes"] for one in file["charged"]) == size
            totals = ran.json["totals"].values()
            systems = ran.json["file_systems"]
            assert sum(one["cached"] for one in totals) == sum(one["cached"] for one in systems)

        look_again(look)
        ran = pagewalk("ram", "--files", before=("env", "COLUMNS=200"))
        assert ran.code == 0, ran.err
        lines = [line for line in ran.out.splitlines() if f"deleted, kept by {pid} " in line]
        assert [line.split()[0] for line in lines] == [str(size >> 10)]
        inside = ("unshare", "--mount", "--pid", "--fork", "--mount-proc")
        ran = pagewalk("ram", "--files", before=("env", "COLUMNS=200", *inside))
        assert ran.code == 0, ran.err
        [line] = [line for line in ran.out.splitlines() if f" (pid {pid} on the host)" in line
                  and ", deleted, kept by python" in line]
        assert line.split()[0] == str(size >> 10)
        ran = pagewalk("ram", "--files", "--format", "json", before=inside)
        (file,) = [one for one in ran.json["files"] if one["kept_by"] and one["inode"] == inode
                   and one["cached"] == size]
        assert [(one["pid"], one["on_host"]) for one in file["kept_by"]] == [(pid, True)]
        head = pagewalk("ram", "--files", "--format", "csv", "--limit", "1").out.splitlines()
        assert head[0].startswith("name,cached,mapped,dirty")


def test_options_that_do_not_go_together_are_refused() -> None:
    for words in (("--files", "--ledger"), ("--limit", "3"), ("--sort", "cached")):
        ran = pagewalk("ram", *words)
        assert (ran.code, ran.out) == (2, "")


def test_who_may_not_see_frames_is_told() -> None:
    ran = pagewalk("ram", "--files", before=("setpriv", "--reuid=65534", "--clear-groups"))
    assert (ran.code, ran.out) == (6, "")
    assert "run as root" in ran.err


def test_all_files_are_in_the_totals(running: RunningKernel) -> None:
    report = report_now(running)
    for sort, total in report.totals.items():
        listed = [file for file in report.files if file.sort is sort]
        assert len(listed) == total.files
        assert sum(file.amounts.cached for file in listed) == total.amounts.cached
    for totals in (report.totals, report.systems):
        assert sum(total.files for total in totals.values()) == len(report.files)
    assert (sum(total.amounts.cached for total in report.systems.values())
            == sum(total.amounts.cached for total in report.totals.values()))
    cached = add_up_files(scan_frames(running, read_ranges()))
    few = name_files(running.kernel, running.direct_map, cached, PAGE, most=3)
    for sort in Sort:
        sizes = [file.amounts.cached for file in few.files if file.sort is sort]
        assert len(sizes) == min(3, few.totals[sort].files)
        assert sizes == sorted(sizes, reverse=True)
