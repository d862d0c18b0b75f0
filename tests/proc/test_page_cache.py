"""What is in the page cache: cachestat(2) and mincore(2) on real files, against each other."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from pagewalk.proc.page_cache import (
    PAGE,
    Cached,
    cachestat,
    may_be_told,
    mincore,
    open_mapped,
    open_path,
    read_cached,
    why_not,
)
from pagewalk.proc.target import open_target

# A large folio goes as a whole, and is dirty as a whole: each half has folios of its own.
PAGES = (8 << 20) // PAGE
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


@pytest.fixture
def file(disk: Path) -> Iterator[int]:
    """Yield a file of which the first half is in RAM and the second was dropped."""
    path = disk / "cached"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        os.write(fd, os.urandom(PAGES * PAGE))
        os.fsync(fd)  # dirty pages cannot be dropped
        os.posix_fadvise(fd, PAGES // 2 * PAGE, 0, os.POSIX_FADV_DONTNEED)
        yield fd
    finally:
        os.close(fd)
        path.unlink()


def told(fd: int, first: int, pages: int) -> Cached:
    try:
        return cachestat(fd, first * PAGE, pages * PAGE)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            pytest.skip("this kernel has no cachestat(2)")
        raise


@pytest.mark.parametrize(("first", "pages"), [(0, PAGES), (0, 1), (PAGES // 2 - 7, 30),
                                              (PAGES - 1, 1)])
def test_both_calls_say_the_same_of_any_range(file: int, first: int, pages: int) -> None:
    assert told(file, first, pages).resident == mincore(file, first * PAGE, pages * PAGE)


def test_what_was_dropped_is_not_there(file: int) -> None:
    assert mincore(file, 0, PAGES * PAGE) == PAGES // 2 * PAGE
    assert mincore(file, PAGES // 2 * PAGE, PAGE) == 0
    assert read_cached(file, 0, PAGE).resident == PAGE


def test_a_part_of_a_page_counts_whole(file: int) -> None:
    assert told(file, 0, 1).resident == cachestat(file, 1, 10).resident == PAGE
    assert mincore(file, 1, 10) == PAGE


def test_what_is_written_is_dirty_until_it_is_on_disk(file: int) -> None:
    for _ in range(20):  # it may be written back at any moment
        os.pwrite(file, b"x" * 3 * PAGE, 0)
        first, rest = told(file, 0, 3), told(file, PAGES // 2, PAGES // 2)
        if (first.dirty, first.writeback) == (3 * PAGE, 0):
            break
    else:
        pytest.fail(f"never dirty: {first}")
    assert (rest.dirty, rest.writeback) == (0, 0)
    os.fsync(file)
    found = told(file, 0, PAGES)
    assert (found.dirty, found.writeback) == (0, 0)


def test_asking_reads_nothing_in(file: int) -> None:
    before = mincore(file, 0, PAGES * PAGE)
    with suppress(OSError):
        cachestat(file, 0, 0)
    assert mincore(file, 0, PAGES * PAGE) == before


def test_a_memfd_is_all_there() -> None:
    fd = os.memfd_create("pagewalk")
    try:
        os.truncate(fd, 9 * PAGE)
        os.pwrite(fd, b"x", 4 * PAGE)
        assert read_cached(fd, 0, 9 * PAGE)._replace(evicted=None) in (
            Cached(PAGE, 0, 0), Cached(PAGE))
    finally:
        os.close(fd)


ASK = """if True:
    import os, sys
    from pagewalk.proc.page_cache import may_be_told, read_cached
    fd = os.open(sys.argv[1], os.O_RDONLY)
    print(may_be_told(fd))
    try:
        print(read_cached(fd, 0, 4096).resident)
    except OSError as error:
        print(error.errno)
"""


@ROOT
@pytest.mark.parametrize(("uid", "mode", "sees"), [(65534, 0o644, True), (65533, 0o644, False),
                                                   (65533, 0o666, True)])
def test_whom_the_kernel_tells(uid: int, mode: int, sees: bool) -> None:
    path = Path(f"/var/tmp/pagewalk-{os.getpid()}-told")  # where everybody may look
    path.write_bytes(b"x" * PAGE)
    try:
        os.chown(path, 65534, 65534)
        path.chmod(mode)
        ran = subprocess.run(
            ["setpriv", f"--reuid={uid}", "--regid=65533", "--clear-groups", sys.executable, "-c",
             ASK, path], capture_output=True, text=True, check=False)
        assert ran.stderr == ""
        may, said = ran.stdout.split()
        assert may == str(sees)
        # From 6.5 on, until it was mended, cachestat told everybody.
        assert said in ({str(PAGE)} if sees else {str(errno.EPERM), str(PAGE)})
    finally:
        path.unlink()


def test_what_has_no_pages_of_its_own_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")  # to open it would block
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match="no file with contents"), open_path(str(path)):
            pass


def test_a_lease_is_not_broken(tmp_path: Path) -> None:
    path, broken = tmp_path / "leased", list[int]()
    path.write_bytes(b"x")
    before = signal.signal(signal.SIGIO, lambda number, _: broken.append(number))
    try:
        with path.open("rb+") as held:
            fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            with pytest.raises(OSError, match="lease"), open_path(str(path)):
                pass
            fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        with path.open("rb") as held, open_path(str(path)):
            fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            with open_path(str(path)):  # whoever reads breaks no lease for readers
                pass
    finally:
        signal.signal(signal.SIGIO, before)
    assert broken == []


def test_mincore_does_not_go_through_a_giant() -> None:
    fd = os.memfd_create("giant")
    try:
        os.truncate(fd, 1 << 60)
        with pytest.raises(OSError) as caught:
            mincore(fd, 0, 1 << 60)
        assert "longer than 1 TiB" in why_not(caught.value)
    finally:
        os.close(fd)


def test_the_owner_is_told(file: int) -> None:
    assert may_be_told(file)


@pytest.mark.parametrize("kind", ["fuse", "fuse.sshfs", "nfs4", "9p"])
def test_a_file_that_others_serve_is_not_opened(kind: str) -> None:
    target = open_target(os.getpid())
    try:
        with pytest.raises(OSError, match=f"it is on {kind}"), open_mapped(
                target, {7: kind}, "/served", (7, 1), (0, PAGE)):
            pass
    finally:
        target.close()


def test_another_file_under_its_name_is_not_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "replaced"
    path.write_bytes(b"x")
    told, target = path.stat(), open_target(os.getpid())
    dev, inode = os.major(told.st_dev) << 32 | os.minor(told.st_dev), told.st_ino
    try:
        # Nothing is mapped at 0, so that it is looked for by its name, as without rights.
        for key, is_it in (((dev, inode), True), ((dev, inode + 1), False),
                           ((dev + 1, inode), False), ((99, inode), True)):
            opening = open_mapped(target, {dev: "ext4", dev + 1: "xfs"}, str(path), key, (0, PAGE))
            with nullcontext() if is_it else pytest.raises(FileNotFoundError), opening as file:
                assert (file.dev, file.inode, file.size) == (dev, inode, 1)
    finally:
        target.close()
