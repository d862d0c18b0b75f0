"""All of RAM, on this machine: it closes, and shows what was put there."""

from __future__ import annotations

import ctypes
import mmap
import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest

from tests.busy import busy
from tests.kernel_says import PAGE
from tests.live.bracket import look_again
from tests.live.command import pagewalk
from tests.live.test_inodes import mounted

pytestmark = pytest.mark.live
MIB = 1 << 20
NOBODY = ("setpriv", "--reuid=65534", "--clear-groups")
# Lines of meminfo that this machine has, and that frames tell.
COMPARED = {
    f"meminfo {name}" for name in (
        "MemTotal", "MemFree", "Buffers", "Cached", "Active", "Inactive", "Unevictable", "Mlocked",
        "Dirty", "Writeback", "AnonPages", "Mapped", "Shmem", "Slab", "SReclaimable", "SUnreclaim",
        "PageTables", "AnonHugePages", "KernelStack", "VmallocUsed", "Percpu")
} | {"meminfo MemAvailable", "zoneinfo count", "vmstat nr_free_pages", "slabinfo pages"}

# Where lists are sorted by generation nothing in a folio says whether it is active.
GENERATIONS = Path("/sys/kernel/mm/lru_gen/enabled")
SORTED = GENERATIONS.exists() and int(GENERATIONS.read_text(), 16) & 1
BY_ACTIVITY = {"meminfo Active", "meminfo Inactive"} if SORTED else set()
MOVED = {"frames_changed", "concurrent_change", "moved_between_lists"}


def test_each_frame_is_counted_once_and_the_ledger_closes() -> None:
    ran = pagewalk("ram", "--format", "json")
    assert ran.code == 0, ran.err
    document = ran.json
    assert sum(document["kinds"].values()) == document["total"]
    lines = {line["against"]: line for line in document["ledger"]}
    assert lines.keys() >= COMPARED
    assert [line for line in lines.values() if line["unexplained"]] == []
    assert lines["meminfo MemTotal"]["causes"] == []
    assert sum(document["headroom"].values()) == document["total"]
    assert document["kinds"].keys() >= {"kernel_stack", "vmalloc", "percpu", "memmap"}


def test_on_a_busy_machine_it_closes_and_says_what_moved() -> None:
    with busy(os.cpu_count() or 1):
        document = look_again(lambda: closed("ram", "--format", "json"), 3)
    lines = [line for line in document["ledger"] if line["ours"] is not None]
    moved = 0
    for line in lines:
        causes = line["causes"]
        assert line["ours"] - line["theirs"] == sum(cause["bytes"] for cause in causes)
        assert all(cause["exact"] or abs(cause["bytes"]) <= cause["bound"] for cause in causes)
        moved += any(cause["cause"] in MOVED for cause in causes)
    # programs that come and go change free memory at least, while a twentieth of a second goes by
    assert moved
    assert {line["against"] for line in lines} >= COMPARED - BY_ACTIVITY


@pytest.mark.parametrize("folder", ["/var/tmp", "/dev/shm"])
def test_a_deleted_file_is_among_those_that_are_kept(folder: str) -> None:
    size = 48 * MIB

    def look() -> None:
        before = pagewalk("ram", "--format", "json").json["deleted"]
        with TemporaryFile(dir=folder) as file:
            file.write(b"d" * size)
            file.flush()
            during = pagewalk("ram", "--format", "json").json["deleted"]
        assert (during["files"], during["cached"]) == (before["files"] + 1, before["cached"] + size)
        if before["largest"] is None or before["largest"]["cached"] < size:
            assert during["largest"]["cached"] == size
            assert os.getpid() in [one["pid"] for one in during["largest"]["kept_by"]]

    look_again(look)  # others delete files too


def closed(*words: str) -> Any:
    ran = pagewalk(*words)
    assert ran.code == 0, ran.err
    return ran.json


def test_what_is_never_written_is_not_dirty(tmp_path: Path) -> None:
    size = 64 * MIB
    with ExitStack() as stack:
        ramfs = stack.enter_context(mounted(tmp_path / "ramfs", "-t", "ramfs", "none"))
        (ramfs / "file").write_bytes(b"r" * size)
        held = size
        secret = ctypes.CDLL(None).syscall(447, 0)  # memfd_secret; a kernel may be without
        if secret >= 0:
            stack.callback(os.close, secret)
            os.ftruncate(secret, size)
            with mmap.mmap(secret, size) as area:
                area[::PAGE] = b"s" * (size // PAGE)
            held += size

        def look() -> None:
            document = closed("ram", "--format", "json")
            assert document["headroom"]["locked"] >= held
            [line] = [line for line in document["ledger"] if line["against"] == "meminfo Dirty"]
            # not even if as much was written meanwhile as would explain it
            assert abs(line["ours"] - line["theirs"]) < size // 2

        look_again(look)


def test_per_cpu_memory_of_boot_is_bounded_by_its_size_where_that_is_shown() -> None:
    document = look_again(lambda: closed("ram", "--format", "json"), 3)
    shown = " __per_cpu_end\n" in Path("/proc/kallsyms").read_text()
    [line] = [line for line in document["ledger"] if line["against"] == "meminfo Percpu"]
    [cause] = [cause for cause in line["causes"] if cause["cause"] == "first_chunk"]
    assert 0 < -cause["bytes"] <= cause["bound"] <= document["kinds"]["boot"]
    assert (cause["bound"] < document["kinds"]["boot"]) == shown


def test_procfs_counts_each_frame_once_and_withholds_what_it_cannot_tell() -> None:
    whole = pagewalk("ram", "--format", "json").json

    def check() -> None:
        ran = pagewalk("ram", "--source", "procfs", "--format", "json")
        assert ran.code == 3, ran.err  # not 4: nothing is unexplained
        document = ran.json
        assert document["source"]["name"] == "procfs"
        assert sum(document["kinds"].values()) == document["total"] == whole["total"]
        lines = {line["against"]: line for line in document["ledger"]}
        told = {name for name, line in lines.items() if line["ours"] is not None}
        assert told >= {"meminfo MemTotal", "meminfo MemFree", "meminfo Buffers + Cached",
                        "meminfo AnonPages", "meminfo Shmem", "meminfo PageTables",
                        "slabinfo pages"}
        assert [line for line in lines.values() if line["unexplained"]] == []
        assert not told & {"meminfo Buffers", "meminfo Cached", "meminfo SReclaimable",
                           "meminfo KernelStack", "meminfo MemAvailable", "meminfo AnonHugePages"}
        assert document["headroom"] is None
        assert any("could be reclaimed" in reason for reason in document["partial"])

    look_again(check)


@pytest.mark.parametrize("name", ["kpageflags", "kpagecount"])
def test_a_hidden_frame_database_is_no_machine_without_memory(name: str) -> None:
    ran = pagewalk("ram", "--source", "procfs", before=hiding(f"/proc/{name}"))
    assert (ran.code, ran.out) == (1, "")
    assert f"cannot read /proc/{name}: it is empty: something else is mounted on it" in ran.err
    assert "unmount that, or run on the host" in ran.err


def test_a_hidden_meminfo_is_withheld_with_the_reason() -> None:
    ran = pagewalk("ram", "--format", "json", before=hiding("/proc/meminfo"))
    assert ran.code == 3, ran.err
    assert any("cannot read /proc/meminfo: it is empty" in why for why in ran.json["partial"])


def hiding(path: str) -> tuple[str, ...]:
    """Return words before a command that does not see what is in ``path``."""
    return ("unshare", "-m", "sh", "-c", f'mount --bind /dev/null {path} && exec "$@"', "sh")


@pytest.mark.parametrize("words", [
    ("cgroups",), ("explain", "--cgroup", str(os.getpid())), ("ram", "--files"), ("ram", "--slab"),
    ("ram", "--map"),
])  # fmt: skip
def test_what_frames_belong_to_takes_kernel_memory(words: tuple[str, ...]) -> None:
    ran = pagewalk(*words, "--source", "procfs")
    assert ran.code == 1
    assert "cannot read kernel memory" in ran.err


def test_auto_falls_back_to_what_proc_shows_of_frames() -> None:
    # Without BTF no source knows where anything is in kernel memory.
    hide = "mount --bind /dev/null /sys/kernel/btf/vmlinux && exec \"$@\""
    ran = pagewalk("ram", "--format", "json", before=("unshare", "-m", "sh", "-c", hide, "sh"))
    assert ran.code == 3, ran.err
    assert ran.json["source"]["name"] == "procfs"


def test_memory_that_nobody_maps_is_shared_memory_that_nobody_maps() -> None:
    def look() -> tuple[int, ...]:
        # Bytes of shared memory that nobody maps, and Shmem of meminfo.
        document = pagewalk("ram", "--format", "json").json
        theirs = {line["against"]: line["theirs"] for line in document["ledger"]}
        return document["kinds"].get("shmem_unmapped", 0), theirs["meminfo Shmem"]

    def check() -> None:
        before = look()
        fd = os.memfd_create("held")
        try:
            os.posix_fallocate(fd, 0, 64 * MIB)
            during = look()
        finally:
            os.close(fd)
        grown = tuple(after - first for first, after in zip(before, during, strict=True))
        assert grown == (64 * MIB, 64 * MIB)

    look_again(check)


def test_those_who_may_not_see_frames_get_what_the_kernel_counts() -> None:
    document = pagewalk("ram", "--format", "json").json
    ran = pagewalk("ram", "--format", "json", before=NOBODY)
    assert ran.code == 3, ran.err
    told = ran.json
    assert told["source"]["name"] == "counters"
    assert told["total"] == document["total"] == sum(told["kinds"].values())
    assert told["kinds"]["boot"] == sum(document["kinds"][name] for name in ("boot", "memmap")
                                        if name in document["kinds"])
    assert "run as root" in told["partial"][0]
    assert pagewalk("ram", "--source", "ebpf", before=NOBODY).code in (1, 6)
