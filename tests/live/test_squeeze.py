"""What `explain CGROUP` says could be reclaimed, against what the kernel takes under pressure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live.bracket import look_again
from tests.live.command import pagewalk
from tests.machine import memory_cgroup, prepared

pytestmark = pytest.mark.live
MIB, PAGE, CPUS = 1 << 20, os.sysconf("SC_PAGESIZE"), os.cpu_count() or 1
# Pages wait on each CPU before they are put on another list, LazyFree ones until then as they were
# (PAGEVEC_SIZE, include/linux/pagevec.h: 31, before 6.10 15).
WAITING = 31 * CPUS * PAGE
STEP = 4 * MIB
# What stays of objects that can shrink: nodes of the page cache, which have 64 places (592 bytes at
# most, with the 8 for its owner), for the 28 MiB of files that were reclaimed, which they remember
# (workingset.c), and for the 4 MiB of the memfd, with those above them; the inodes and names of
# three open files and their folders, 8 of at most 1.5 KiB.
LEAVES = 32 * MIB // PAGE // 64
PINNED = (LEAVES + LEAVES // 64 + 4) * 592 + 8 * 1536
GOES = ("clean_unmapped", "clean_mapped", "lazyfree", "slab_reclaimable", "dirty")
# 16 MiB that nobody maps, 8 that are mapped, 8 of LazyFree, 8 touched, 4 locked, 4 of a memfd,
# 8000 names that do not exist, and at last 4 MiB that were not written to their file.
LOAD = """
import ctypes, mmap, os, sys, time
procs, folder = sys.argv[1:]
with open(procs, "w") as file:
    file.write(str(os.getpid()))
MIB = 1 << 20
libc = ctypes.CDLL(None)
libc.prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE

def written(name, mib, sync):
    fd = os.open(os.path.join(folder, name), os.O_RDWR | os.O_CREAT)
    for _ in range(mib):
        os.write(fd, os.urandom(MIB))
    if sync:
        os.fsync(fd)
    return fd

def touched(mib):
    area = mmap.mmap(-1, mib * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, len(area), mmap.PAGESIZE):
        area[at] = 1
    return area

written("unmapped", 16, True)
mapped = mmap.mmap(written("mapped", 8, True), 8 * MIB, mmap.MAP_SHARED, mmap.PROT_READ)
sum(mapped[at] for at in range(0, len(mapped), mmap.PAGESIZE))
lazy, kept, locked = touched(8), touched(8), touched(4)
lazy.madvise(8)  # MADV_FREE
address = ctypes.addressof(ctypes.c_char.from_buffer(locked))
assert not libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(len(locked)))
held = os.memfd_create("held")
os.write(held, bytes(4 * MIB))
for at in range(8000):
    try:
        os.stat(f"{folder}/no-{at}")
    except OSError:
        pass
written("dirty", 4, False)
print("ready", flush=True)
time.sleep(3600)
"""


@contextmanager
def loaded(group: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    program = [sys.executable, "-c", LOAD, group / "cgroup.procs", folder]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


def explained(group: Path) -> dict[str, Any]:
    ran = pagewalk("explain", group, "--format", "json")
    assert ran.code == 0, ran.err
    document: dict[str, Any] = ran.json
    return document


def squeeze(group: Path) -> None:
    """Take from ``group`` all that the kernel can reclaim, until it refuses to take more."""
    first = (group / "memory.limit_in_bytes").exists()
    limit, step = charged(group), STEP
    while step >= PAGE * 64:
        told = (limit - step, "memory.limit_in_bytes") if first else (step, "memory.reclaim")
        if wrote(group / told[1], told[0]):
            limit -= step
        else:  # EBUSY or EAGAIN: there is not so much
            step //= 2


def keep_out_of_swap(group: Path) -> None:
    """Let nothing of ``group`` go to swap, whatever swap this machine has."""
    first = (group / "memory.swappiness").exists()
    (group / ("memory.swappiness" if first else "memory.swap.max")).write_text("0")


def wrote(path: Path, value: int) -> bool:
    # The kernel may try for as long as it makes any progress; a signal ends that.
    words = ["timeout", "10", "sh", "-c", 'echo "$0" > "$1"', str(value), str(path)]
    return not subprocess.run(words, check=False, capture_output=True).returncode


def charged(group: Path) -> int:
    names = ("memory.current", "memory.usage_in_bytes")
    return next(int((group / name).read_text()) for name in names if (group / name).exists())


def objects(document: dict[str, Any], *, reclaimable: bool) -> int:
    return sum(row["bytes"] for row in document["caches"] if row["reclaimable"] == reclaimable)


def test_what_goes_is_what_was_said(disk: Path) -> None:
    with prepared(), memory_cgroup("squeeze") as group, loaded(group, disk) as process:
        keep_out_of_swap(group)
        before = explained(group)
        said = before["headroom"]
        squeeze(group)
        # Reclaim starts the writing of dirty pages, and need not wait for its end.
        with open(disk / "dirty", "rb") as file:
            os.fsync(file.fileno())
        squeeze(group)
        assert process.poll() is None  # refused, not killed

        def taken() -> dict[str, Any]:
            # Names and inodes are freed after a grace period of RCU.
            after = explained(group)
            assert objects(after, reclaimable=True) <= PINNED, after["caches"]
            return after

        after = look_again(taken)
        left = after["headroom"]
        check_amounts(said, left)
        # All of it: page by page and object by object, besides what was charged in advance.
        went = before["charged"] - after["charged"]
        advance = before["charged_in_advance"] - after["charged_in_advance"]
        others = said["kernel"] - left["kernel"] + said["held"] - left["held"]
        promised = sum(said[name] for name in GOES)
        # What was promised and waits on a CPU stays, and so does what is pinned.
        assert abs(promised - (went - advance - others)) <= 2 * WAITING + PINNED
        kill(group, process, left)


def check_amounts(said: dict[str, int], left: dict[str, int]) -> None:
    """Compare what was there before and after, line by line."""
    assert said["clean_unmapped"] >= 16 * MIB
    assert said["clean_mapped"] >= 8 * MIB
    assert 8 * MIB - WAITING <= said["lazyfree"] <= 8 * MIB
    # 8000 dentries of 192 bytes, and 8 for the owner of each (obj_full_size)
    assert said["slab_reclaimable"] >= 8000 * 200
    assert said["swappable"] >= 12 * MIB
    assert said["locked"] >= 4 * MIB
    for name in ("clean_unmapped", "clean_mapped", "lazyfree", "dirty"):
        # A page that waits on a CPU is in use there, and so passed over.
        assert left[name] <= WAITING, name
    for name in ("swappable", "locked"):  # none of it goes to swap
        assert abs(left[name] - said[name]) <= WAITING, name


def kill(group: Path, process: subprocess.Popen[bytes], left: dict[str, int]) -> None:
    """Need more than could be reclaimed: now the kernel kills a process of the group."""
    if (group / "memory.max").exists():
        (group / "memory.max").write_text(str(left["swappable"] // 2))
        assert process.wait(30) == -9
        return
    # Version 1 refuses such a limit. At this one there is no room for another process.
    (group / "memory.limit_in_bytes").write_text(str(charged(group) + 64 * PAGE * CPUS))
    code = f"open('{group}/cgroup.procs', 'w').write('0'); bytearray({16 * MIB})"
    late = subprocess.run([sys.executable, "-c", code], check=False)
    assert -9 in (late.returncode, process.poll())
