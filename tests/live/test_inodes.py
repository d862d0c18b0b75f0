"""From a page cache to its file: number, device, links and path are those that lstat(2) gives."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from pagewalk.kernel.open import open_bpf
from pagewalk.kernel.structs.direct_map import own_mm
from pagewalk.kernel.structs.inodes import Inodes, read_backing, read_file_systems, read_inodes
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.task import file_behind
from pagewalk.kernel.structs.vmas import read_vmas
from pagewalk.model.frames import Backing
from tests.kernel_says import PAGE
from tests.live.bracket import look_again, working_sources
from tests.live.holder import IPC_RMID
from tests.machine import alone, zram_device

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif("ebpf" not in working_sources(), reason="nothing reads kernel memory here"),
]

FILES = 2000


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with closing(open_bpf()) as opened:
        yield opened


@contextmanager
def mounted(point: Path, *words: str) -> Iterator[Path]:
    """Mount what ``words`` say at ``point``, which is made, until the end."""
    point.mkdir(exist_ok=True)
    subprocess.run(["mount", *words, str(point)], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)


@contextmanager
def overlaid(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Mount an overlay with a file of a page, ``old``, in its lower folder.

    Yields the file system of its folders ``lower`` and ``upper``, and the overlay.
    """
    with mounted(folder / "base", "-t", "tmpfs", "pagewalk") as base:
        for name in ("lower", "upper", "work"):
            (base / name).mkdir()
        (base / "lower/old").write_bytes(b"x" * mmap.PAGESIZE)
        options = ",".join(f"{name}dir={base / name}" for name in ("lower", "upper", "work"))
        with mounted(folder / "merged", "-t", "overlay", "overlay", "-o", options) as merged:
            yield base, merged


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of its own: a path inside it begins at its mount point."""
    with mounted(tmp_path / "tmpfs", "-t", "tmpfs", "pagewalk") as point:
        yield point


def mapping_of(kernel: Kernel, fd: int) -> int:
    """Return the address of the page cache of an open file."""
    return kernel.field("file", file_behind(kernel, fd), "f_mapping")


def look(kernel: Kernel, *fds: int) -> Inodes:
    return read_inodes(kernel, np.array([mapping_of(kernel, fd) for fd in fds], np.uint64))


def inside(kernel: Kernel, fd: int) -> str | None:
    """Return the path of an open file; nothing of it could not be read."""
    found = look(kernel, fd)
    assert found.errno.tolist() == [0]
    return found.path[0]


def written(path: bytes | str | Path, stack: ExitStack) -> int:
    """Return a new file of one page, open until ``stack`` is unwound."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    stack.callback(os.close, fd)
    os.write(fd, b"x" * PAGE)
    return fd


def kernel_dev(dev: int) -> int:
    return os.major(dev) << 32 | os.minor(dev)


@pytest.mark.vmshort
def test_thousands_of_files_have_the_number_and_path_that_lstat_gives(
    kernel: Kernel, tmpfs: Path
) -> None:
    with ExitStack() as stack:
        names = [f"d{n % 7}/e{n % 3}/file {n}" for n in range(FILES)]
        for folder in {os.path.dirname(name) for name in names}:
            (tmpfs / folder).mkdir(parents=True)
        mappings = []
        for name in names:
            (tmpfs / name).write_bytes(b"x" * PAGE)
            with open(tmpfs / name, "rb") as file:
                mappings.append(mapping_of(kernel, file.fileno()))
        order = np.random.default_rng(13).permutation(FILES)
        at = np.array(mappings, np.uint64)[order]

        def check() -> None:  # another process may look up, and so change, what it likes
            found = read_inodes(kernel, at)
            said = [os.lstat(tmpfs / names[row]) for row in order]
            assert found.path == tuple(f"/{names[row]}" for row in order)
            assert found.inode.tolist() == [stat.st_ino for stat in said]
            assert found.dev.tolist() == [kernel_dev(stat.st_dev) for stat in said]
            assert set(found.nlink.tolist()) == {1}
            assert set(found.file_system) == {"tmpfs"}
            assert not (found.errno.any() or found.removed.any() or found.detached.any())

        look_again(check)
        systems = read_file_systems(kernel, at)
        assert {systems.names[row] for row in systems.row.tolist()} == {"tmpfs"}
        assert set(systems.dev.tolist()) == {kernel_dev(os.stat(tmpfs).st_dev)}
        stack.close()


def overlay_at_root() -> bool:
    roots = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [row[2] for row in roots if row[1] == "/"][-1] == "overlay"


def test_a_file_on_a_disk(kernel: Kernel) -> None:
    # the interpreter itself: its pages are in use, and so is its name
    with open(os.path.realpath(sys.executable), "rb") as file:
        file.read()
        stat = os.fstat(file.fileno())
        found = look(kernel, file.fileno())
    if overlay_at_root():
        assert found.errno.tolist() == [errno.ENOENT]  # its pages are those of another file
        return
    assert (found.inode[0], found.dev[0]) == (stat.st_ino, kernel_dev(stat.st_dev))
    assert os.path.realpath(sys.executable).endswith(found.path[0] or "nothing")


def backing(kernel: Kernel, *fds: int) -> list[int]:
    at = np.array([mapping_of(kernel, fd) for fd in fds], np.uint64)
    return read_backing(kernel, at).tolist()


def test_what_has_nowhere_to_be_written_is_kept(
    kernel: Kernel, tmpfs: Path, tmp_path: Path
) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with ExitStack() as stack, mounted(tmp_path / "ramfs", "-t", "ramfs", "none") as ramfs:
        kept = [written(ramfs / "file", stack), written(tmpfs / "file", stack)]
        secret = libc.syscall(447, 0)  # memfd_secret; a kernel may be without
        if secret >= 0:
            stack.callback(os.close, secret)
            os.ftruncate(secret, PAGE)
            area = stack.enter_context(mmap.mmap(secret, PAGE))
            area[0] = 1
            kept.append(secret)
        assert backing(kernel, *kept) == [Backing.KEPT.value] * len(kept)
        stack.close()


def test_disks_are_written(kernel: Kernel, disk: Path) -> None:
    # the device itself, whose super block is not the disk's, and a file system on it
    with alone(), zram_device(8) as device, ExitStack() as stack:
        fd = os.open(device, os.O_RDWR)
        stack.callback(os.close, fd)
        os.write(fd, b"x" * PAGE)
        file = written(disk / "file", stack)
        assert backing(kernel, fd, file) == [Backing.WRITTEN.value] * 2


def test_what_backs_no_page_cache_is_not_told(kernel: Kernel) -> None:
    wild = np.array([0, 8, 1 << 63], np.uint64)
    assert read_backing(kernel, wild).tolist() == [Backing.UNTOLD.value] * 3
    assert len(read_backing(kernel, wild[:0])) == 0


@pytest.mark.parametrize(
    "name",
    [b"n" * 255, b"new\nline \x1b[31m", b"\xff\xfe\x01", "ümlaut 名".encode(), b" ",
     b"a (deleted)"],
)
def test_any_name(kernel: Kernel, tmpfs: Path, name: bytes) -> None:
    with ExitStack() as stack:
        path = inside(kernel, written(os.fsencode(tmpfs) + b"/" + name, stack))
    assert path is not None and os.fsencode(path) == b"/" + name


def test_a_deleted_file_keeps_its_name(kernel: Kernel, tmpfs: Path) -> None:
    with ExitStack() as stack:
        fd = written(tmpfs / "gone", stack)
        os.unlink(tmpfs / "gone")
        found = look(kernel, fd)
        systems = read_file_systems(kernel, found.mapping)
    assert (systems.nlink.tolist(), systems.detached.tolist()) == ([0], [False])
    assert (found.path, found.nlink.tolist()) == (("/gone",), [0])
    assert (found.removed.tolist(), found.detached.tolist()) == ([True], [False])


def test_of_several_links_one_that_is_left_is_named(kernel: Kernel, tmpfs: Path) -> None:
    with ExitStack() as stack:
        fd = written(tmpfs / "first", stack)
        for other in ("second", "third"):
            os.link(tmpfs / "first", tmpfs / other)
        held = os.open(tmpfs / "third", os.O_RDONLY)  # so that its name stays in memory
        stack.callback(os.close, held)
        assert look(kernel, fd).nlink.tolist() == [3]
        os.unlink(tmpfs / "third")
        os.unlink(tmpfs / "first")
        found = look(kernel, fd)
    assert (found.path, found.nlink.tolist()) == (("/second",), [1])
    assert found.removed.tolist() == [False]


def test_a_renamed_file_has_its_new_name(kernel: Kernel, tmpfs: Path) -> None:
    with ExitStack() as stack:
        fd = written(tmpfs / "old", stack)
        assert inside(kernel, fd) == "/old"
        (tmpfs / "folder").mkdir()
        os.rename(tmpfs / "old", tmpfs / "folder" / ("new" * 50))
        assert inside(kernel, fd) == f"/folder/{'new' * 50}"


def test_a_path_that_nobody_could_open_is_withheld(kernel: Kernel, tmpfs: Path) -> None:
    with ExitStack() as stack:
        here = os.open(tmpfs, os.O_RDONLY | os.O_DIRECTORY)
        said = []
        for _ in range(18):  # 17 x 251 bytes are more than 4096
            os.mkdir("d" * 250, dir_fd=here)
            below = os.open("d" * 250, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
            fd = os.open("f", os.O_RDWR | os.O_CREAT, dir_fd=here)
            stack.callback(os.close, fd)
            os.write(fd, b"x" * PAGE)
            found = look(kernel, fd)
            said.append((found.path[0], int(found.errno[0])))
        os.close(here)
    for depth, (path, code) in enumerate(said, 1):
        real = f"/{'d' * 250}" * depth + "/f"
        assert (path, code) == ((real, 0) if len(real) < 4096 else (None, errno.ENAMETOOLONG))
    assert said[-1] == (None, errno.ENAMETOOLONG)


def test_a_memfd_is_detached(kernel: Kernel) -> None:
    with ExitStack() as stack:
        fd = os.memfd_create("a buffer")
        stack.callback(os.close, fd)
        os.write(fd, b"x" * PAGE)
        found = look(kernel, fd)
        systems = read_file_systems(kernel, found.mapping)
    assert (systems.nlink.tolist(), systems.detached.tolist()) == ([0], [True])
    assert (found.path, found.detached.tolist()) == (("memfd:a buffer",), [True])
    assert (found.nlink.tolist(), found.file_system) == ([0], ("tmpfs",))


def file_at(kernel: Kernel, address: int) -> int:
    """Return the struct file that this process maps at ``address``."""
    vmas = read_vmas(kernel, own_mm(kernel))
    (row,) = np.flatnonzero((vmas.start <= np.uint64(address)) & (np.uint64(address) < vmas.end))
    return int(vmas.file[row])


def test_shared_anonymous_and_sysv_memory_is_detached(kernel: Kernel) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    key = 0x13F11E5
    segment = libc.shmget(key, PAGE, 0o1600)
    assert segment >= 0
    own = mmap.mmap(-1, PAGE)
    try:
        attached = libc.shmat(segment, None, 0)
        ctypes.memset(attached, 1, PAGE)
        own[0] = 1
        view = ctypes.c_char.from_buffer(own)
        places = (attached, ctypes.addressof(view))
        files = [file_at(kernel, place) for place in places]
        at = [kernel.field("inode", kernel.field("file", file, "f_inode"), "i_mapping")
              for file in files]
        del view
        found = read_inodes(kernel, np.array(at, np.uint64))
        libc.shmdt(ctypes.c_void_p(attached))
    finally:
        libc.shmctl(segment, IPC_RMID, None)
        own.close()
    assert found.path == (f"SYSV{key:08x}", "dev/zero")
    assert found.detached.tolist() == [True, True]
    assert found.errno.tolist() == [0, 0]


def test_a_file_that_has_no_pages_any_more_is_gone(kernel: Kernel, tmpfs: Path) -> None:
    with ExitStack() as stack:
        fd = written(tmpfs / "emptied", stack)
        os.truncate(fd, 0)
        found = look(kernel, fd)
        systems = read_file_systems(kernel, found.mapping)
    assert (found.errno.tolist(), found.path) == ([errno.ENOENT], (None,))
    assert (systems.row.tolist(), systems.dev.tolist()) == ([-1], [0])


def test_addresses_that_are_no_page_cache_give_an_errno_and_end(kernel: Kernel) -> None:
    wild = np.array([0, 8, 1 << 47, 2**64 - 8, kernel.current, kernel.current + 8], np.uint64)
    found = read_inodes(kernel, wild)
    assert (found.errno != 0).all()
    assert set(found.path) == {None}
    assert (read_file_systems(kernel, wild).row == -1).all()


def test_no_mappings_give_no_rows(kernel: Kernel) -> None:
    nothing = np.zeros(0, np.uint64)
    assert len(read_inodes(kernel, nothing)) == 0
    assert read_file_systems(kernel, nothing).names == ()
