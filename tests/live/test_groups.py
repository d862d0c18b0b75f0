"""Groups of a real process: each kind made on purpose, and sums that equal smaps."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kernel_says import VmaSays, read_smaps
from tests.live.bracket import look_again
from tests.live.command import pagewalk
from tests.machine import prepared
from tests.targets import TARGETS, start
from tests.targets.glibcs import OLDEST, allocating

pytestmark = pytest.mark.live

MIB = 1 << 20
# Memory of each kind: what it touches of it is all of it, and known.
PROGRAM = """if True:
    import json, mmap, os, sys, threading
    MIB = 1 << 20
    threading.stack_size(MIB)
    stay = threading.Event()
    for _ in range(5):
        threading.Thread(target=stay.wait, daemon=True).start()
    code = mmap.mmap(-1, 3 * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
                     mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"x" * (3 * MIB))
    nothing = mmap.mmap(-1, 64 * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 0)
    fd = os.memfd_create("cache")
    os.truncate(fd, 2 * MIB)
    cache = mmap.mmap(fd, 2 * MIB)
    cache.write(b"x" * (2 * MIB))
    print("ready")
    sys.stdin.read()
"""


@contextmanager
def running() -> Iterator[int]:
    words = [sys.executable, "-u", "-c", PROGRAM]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
    finally:
        process.kill()
        process.wait()


def by(pid: int, what: str) -> dict[str, dict[str, Any]]:
    found = json.loads(pagewalk("maps", pid, "--by", what, "--format", "json").out)
    return {group["group"]: group for group in found["groups"]}


def test_each_kind_is_what_the_program_made() -> None:
    with running() as pid:
        groups = by(pid, "kind")
        vmas = read_smaps(pid)
    assert groups["code"]["rss"] == groups["code"]["size"] == 3 * MIB
    assert groups["shmem"]["rss"] == groups["shmem"]["size"] == 2 * MIB
    assert groups["reserved"]["size"] >= 64 * MIB and groups["reserved"]["rss"] == 0
    # Five stacks of 1 MiB, with a guard of one page within it or below it, as the glibc has it.
    stacks = groups["thread_stack"]
    assert 5 * MIB <= stacks["size"] <= 5 * (MIB + 4096)
    assert 5 * 4096 <= stacks["rss"] < stacks["size"]
    named = {"heap": "[heap]", "stack": "[stack]"}
    for kind, name in named.items():
        (vma,) = [vma for vma in vmas if vma.name == name]
        assert groups[kind]["rss"] == vma.fields["Rss"] << 10


@pytest.mark.parametrize("what", ["kind", "file", "perms"])
def test_groups_add_up_to_what_smaps_says(what: str) -> None:
    fields = {"rss": "Rss", "swap": "Swap", "size": "Size", "anon": "Anonymous"}

    def same() -> None:
        before = read_smaps(pid)
        groups = by(pid, what).values()
        assert read_smaps(pid) == before
        for ours, theirs in fields.items():
            kernel = sum(vma.fields.get(theirs, 0) for vma in before) << 10
            assert sum(group[ours] for group in groups) == kernel

    with running() as pid:
        look_again(same)


def test_the_first_screen_says_what_it_is() -> None:
    with running() as pid:
        screen = pagewalk(pid).out
    assert "thread stacks, 5" in screen
    assert "shared memory: memfd:cache (deleted) 2048" in screen


def test_what_the_kernel_can_drop_is_what_smaps_calls_files() -> None:
    with running() as pid:
        screen = pagewalk(pid).out
        files = sum(vma.fields["Rss"] - vma.fields["Anonymous"] for vma in read_smaps(pid)
                    if vma.name.startswith("/") and not vma.name.startswith("/memfd:"))
    (told,) = re.findall(r"the kernel takes back at most (\d+) KiB of files; the rest", screen)
    assert int(told) == files


@pytest.mark.parametrize(("name", "words"), [
    ("thp", "other anonymous, .*2048 in huge pages"),
    ("guard", "other anonymous, .* in guard regions"),
])
def test_huge_pages_and_guards_have_their_place(name: str, words: str) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as process:
        assert re.search(words, pagewalk("show", process.pid).out)


HEAP_MAX = 64 << 20  # where glibc puts a thread's arena: at multiples of this


def test_arenas_are_what_malloc_says_they_are() -> None:
    with allocating(OLDEST, "threads") as program:
        arenas = by(program.pid, "kind")["arena"]
        heap = json.loads(pagewalk("heap", program.pid, "--format", "json").out)
        used = [vma for vma in read_smaps(program.pid)
                if vma.start % HEAP_MAX == 0 and not vma.name and "wr" in vma.flags]
    of_threads = [arena for arena in heap["arenas"] if not arena["main"]]
    assert len(of_threads) == len(used) == arenas["vmas"] // 2
    assert arenas["rss"] == sum(vma.fields["Rss"] for vma in used) << 10
    assert arenas["size"] == len(used) * HEAP_MAX


@pytest.mark.parametrize(("name", "kind"), [
    ("perf_ring", "device"), ("hugetlb_private", "hugetlb"), ("memfd", "shmem"), ("sysv", "shmem"),
    ("plain", "kernel"), ("file_shared", "file"),
])
def test_a_kind_is_the_vmas_that_the_kernel_lists(name: str, kind: str) -> None:
    def of_kind(vma: VmaSays) -> bool:
        own = vma.name.startswith(("[v", "[uprobes"))
        names = {"hugetlb": "ht" in vma.flags, "device": "[perf_event]" in vma.name, "kernel": own,
                 "shmem": vma.name.startswith(("/memfd:", "/SYSV"))}
        return names.get(kind, vma.name.startswith("/") and not any(names.values()))

    with prepared(*TARGETS[name].needs), start(name, stopped=True) as process:
        group = by(process.pid, "kind")[kind]
        mine = [vma for vma in read_smaps(process.pid) if of_kind(vma)]
    assert group["vmas"] == len(mine) > 0
    assert group["size"] == sum(vma.fields["Size"] for vma in mine) << 10
    assert group["rss"] == sum(vma.fields["Rss"] for vma in mine) << 10
