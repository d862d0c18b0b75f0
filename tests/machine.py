"""Set this machine up for live tests, and put everything back, even after failure or Ctrl-C.

A test that cannot run here must fail, not be skipped: each set-up raises MachineLacks, saying what
is missing. All need root. prepared() and prepare keep other test runs on this machine out in the
meantime; hugetlb pages are added to the existing ones, and zram is a separate device.
"""

import fcntl
import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

import pytest

# Booted by vmtest: under QEMU without KVM, where Python is about ten times slower.
IN_GUEST = "VMTEST_KERNEL" in os.environ
MM = Path("/sys/kernel/mm")
ZRAM_CONTROL = Path("/sys/class/zram-control")
PATIENCE = 60.0  # seconds, for what the kernel is still busy with
ZSWAP = Path("/sys/module/zswap/parameters/enabled")


class MachineLacks(Exception):
    """Something that a live test needs is missing on this machine."""


def fewer(count: int) -> int:
    """Return how often to repeat something, or how much to make of it: in a guest a fifth."""
    return -(-count // 5) if IN_GUEST else count


@contextmanager
def setting(path: Path, value: object) -> Iterator[None]:
    """Write one kernel setting, and restore the old value at the end."""
    try:
        # The setting in force is the one in brackets, as in "always [madvise] never".
        old = path.read_text().strip()
    except OSError as error:
        raise MachineLacks(f"{path}: {error.strerror}") from error
    old = old.partition("[")[2].partition("]")[0] or old
    try:
        _write(path, value)
        yield
    finally:
        _write(path, old)


@contextmanager
def settings(folder: Path, **values: object) -> Iterator[None]:
    """Write several kernel settings in one folder, and restore them all at the end."""
    with ExitStack() as stack:
        for name, value in values.items():
            stack.enter_context(setting(folder / name, value))
        yield


@contextmanager
def zram_device(mib: int) -> Iterator[Path]:
    """Make a zram device of a size until the block ends; yields its path."""
    if not (ZRAM_CONTROL / "hot_add").exists():
        subprocess.run(["modprobe", "zram", "num_devices=0"], check=False, capture_output=True)
    try:
        # Reading hot_add creates a device and returns its number.
        number = (ZRAM_CONTROL / "hot_add").read_text().strip()
    except OSError as error:
        raise MachineLacks(f"zram (CONFIG_ZRAM, root): {error.strerror}") from error
    device = Path(f"/dev/zram{number}")
    try:
        _write(Path(f"/sys/block/{device.name}/disksize"), f"{mib}M")
        yield device
    finally:
        _write(ZRAM_CONTROL / "hot_remove", number)


@contextmanager
def zram(mib: int = 256) -> Iterator[Path]:
    """Swap on a new zram device until the block ends; yields the device's path."""
    need("util-linux", "mkswap", "swapon", "swapoff")
    with zram_device(mib) as device:
        try:
            _run("mkswap", str(device))
            _run("swapon", "--priority", "100", str(device))
            yield device
        finally:
            if str(device) in Path("/proc/swaps").read_text():
                _run("swapoff", str(device))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder of a file system that has a disk: ``tmp_path``, unless that is in RAM.

    Pages of a file in a tmpfs are shared memory, also below an overlay, as all of a guest's are.
    """
    kind = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], check=True, capture_output=True)
    if kind.stdout not in (b"tmpfs\n", b"overlayfs\n"):
        yield tmp_path
        return
    need("e2fsprogs", "mkfs.ext4")
    place = tmp_path / "disk"
    place.mkdir()
    with alone(), zram_device(256) as device:
        _run("mkfs.ext4", "-q", str(device))
        _run("mount", str(device), str(place))
        try:
            yield place
        finally:
            _run("umount", str(place))


def need(package: str, *tools: str) -> None:
    """Raise MachineLacks unless the programs ``tools`` of a package are installed."""
    for tool in tools:
        if not shutil.which(tool):
            raise MachineLacks(f"{tool}: install {package}")


@contextmanager
def zswap() -> Iterator[None]:
    """Keep what goes to swap compressed in zswap, in front of a zram device."""
    with zram(), setting(ZSWAP, "Y"):
        yield


@contextmanager
def hugetlb(pages: int = 16, kib: int = 2048) -> Iterator[None]:
    """Add that many hugetlb pages of a size."""
    path = MM / f"hugepages/hugepages-{kib}kB/nr_hugepages"
    if not path.exists():
        raise MachineLacks(f"hugetlb pages of {kib} kB (CONFIG_HUGETLBFS, the CPU's pdpe1gb)")
    before = int(path.read_text())
    got = 0
    try:
        # Memory that is in use at the moment cannot be migrated: ask again.
        for _ in range(5):
            _write(path, before + pages)
            got = int(path.read_text()) - before
            if got == pages:
                break
            # What cannot be moved, such as dentries, may keep 1 GiB from being contiguous.
            _write(Path("/proc/sys/vm/drop_caches"), 3)
            _write(Path("/proc/sys/vm/compact_memory"), 1)
            time.sleep(0.05)
        if got < pages:
            raise MachineLacks(f"{pages} free hugetlb pages of {kib} kB: got only {got}")
        yield
    finally:
        _write(path, max(0, int(path.read_text()) - got))


def hugetlb_gib() -> AbstractContextManager[None]:
    """Add one hugetlb page of 1 GiB, which takes that much unfragmented memory."""
    return hugetlb(1, 1 << 20)


@contextmanager
def ksm() -> Iterator[None]:
    """Run ksmd at a brisk pace, merging empty pages with the zero page."""
    # A page is merged after two passes: scan 1000 pages every 2 ms.
    pace = {"pages_to_scan": 1000, "sleep_millisecs": 2, "use_zero_pages": 1}
    with settings(MM / "ksm", **pace, run=1):
        yield


@contextmanager
def thp() -> Iterator[None]:
    """Give huge pages to memory that asks with madvise; keep khugepaged away from targets."""
    folder = MM / "transparent_hugepage"
    with (
        settings(folder, enabled="madvise", defrag="madvise", use_zero_page=1),
        settings(folder / "khugepaged", scan_sleep_millisecs=3_600_000),
    ):
        yield


@contextmanager
def shmem_thp() -> Iterator[None]:
    """Give huge pages to shared memory that asks with madvise."""
    with thp(), setting(MM / "transparent_hugepage/shmem_enabled", "advise"):
        yield


@contextmanager
def userfaultfd() -> Iterator[None]:
    """Only check that userfaultfd(2) exists."""
    if not Path("/proc/sys/vm/unprivileged_userfaultfd").exists():
        raise MachineLacks("userfaultfd (CONFIG_USERFAULTFD)")
    yield


@contextmanager
def java() -> Iterator[None]:
    """Only check that a Java compiler and runtime are installed."""
    if not shutil.which("java"):
        raise MachineLacks("java: install openjdk-17-jdk-headless")
    yield


# The names that Target.needs may list.
SETUPS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "zram": zram,
    "zswap": zswap,
    "hugetlb": hugetlb,
    "hugetlb_gib": hugetlb_gib,
    "ksm": ksm,
    "thp": thp,
    "shmem_thp": shmem_thp,
    "userfaultfd": userfaultfd,
    "java": java,
}


@contextmanager
def memory_cgroup(name: str) -> Iterator[Path]:
    """Create a memory cgroup, v1 or v2, and remove it; whatever ran in it must have ended."""
    root = Path("/sys/fs/cgroup")
    old = root / "memory"
    if not old.is_dir():
        control = root / "cgroup.subtree_control"
        if not control.exists():
            raise MachineLacks("no memory cgroups in /sys/fs/cgroup")
        if "memory" not in control.read_text().split():
            _write(control, "+memory")
        old = root
    group = old / f"pagewalk-{os.getpid()}-{name}"
    try:
        group.mkdir()
    except OSError as error:
        raise MachineLacks(f"cannot make {group}: {error.strerror}") from error
    try:
        yield group
    finally:
        remove_group(group)


def remove_group(path: Path) -> None:
    """Remove a cgroup whose processes have ended, once the kernel is done with them."""
    until = time.monotonic() + PATIENCE
    while path.exists():
        try:
            path.rmdir()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


# One entry for each active alone() in this process.
_open: list[None] = []


@contextmanager
def alone() -> Iterator[None]:
    """Keep every other test run on this machine waiting; may be nested.

    Two runs that change and restore the same setting would undo each other.
    """
    if not _open:
        fcntl.flock(_lock_file(), fcntl.LOCK_EX)
    _open.append(None)
    try:
        yield
    finally:
        _open.pop()
        if not _open:
            fcntl.flock(_lock_file(), fcntl.LOCK_UN)


def is_free() -> bool:
    """Return whether no test run is keeping the others waiting at this moment."""
    try:
        fcntl.flock(_lock_file(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if not _open:
        fcntl.flock(_lock_file(), fcntl.LOCK_UN)
    return True


@contextmanager
def prepared(*needs: str) -> Iterator[None]:
    """Do several set-ups by name, and undo them in reverse order."""
    with ExitStack() as stack:
        if needs:  # a test that changes nothing need not wait
            stack.enter_context(alone())
        for name in needs:
            stack.enter_context(SETUPS[name]())
        yield


@pytest.fixture(scope="module")
def prepare() -> Iterator[Callable[..., None]]:
    """Return prepare("zram", ...), which does each set-up once, until the module is done."""
    made: set[str] = set()
    with ExitStack() as stack:

        def prepare(*needs: str) -> None:
            for name in needs:
                if name not in made:
                    stack.enter_context(prepared(name))
                    made.add(name)

        yield prepare


@functools.cache
def _lock_file() -> TextIO:
    return open(Path(tempfile.gettempdir()) / "pagewalk-live-tests.lock", "w")


def _write(path: Path, value: object) -> None:
    try:
        path.write_text(str(value))
    except OSError as error:
        raise MachineLacks(f"cannot write {value} to {path}: {error.strerror}") from error


def _run(*command: str) -> None:
    # In a session of its own: a Ctrl-C on the terminal must not interrupt swapoff.
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, start_new_session=True
    )
    if done.returncode:
        raise MachineLacks(f"{' '.join(command)}: {done.stderr.strip()}")
