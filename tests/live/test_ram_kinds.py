"""Memory of each kind, made on purpose: its kind in `ram` grows by it, and shrinks by it again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.live.bracket import look_again
from tests.live.command import pagewalk_here
from tests.machine import alone, fewer, prepared, zram, zram_device

pytestmark = pytest.mark.live
KIB, MIB = 1 << 10, 1 << 20
PAGE = 4096
# In ``words`` of a case: a file that does not exist, one of FILE bytes in cache, a block device
# that is empty, one that is swapped on.
NEW, OLD, DEVICE, SWAP = "NEW", "OLD", "DEVICE", "SWAP"
FILE = 64 * MIB
THREAD = 16 * KIB  # THREAD_SIZE
# 256 of struct pipe_buffer take 10 KiB, for which kmalloc gives four pages (fs/pipe.c).
RING = 16 * KIB

# Lines that differ from the kernel's number by much the same in each reading: none of them may
# count memory of another kind.
STEADY = ("Buffers", "Shmem", "SReclaimable", "SUnreclaim", "KernelStack", "PageTables",
          "VmallocUsed", "Percpu", "Hugetlb")  # fmt: skip

LOOKS = 40  # of which the least counts

Facts = dict[str, int]
Grows = dict[str, int]


def made(facts: Facts) -> int:
    return facts["bytes"]


class Case(NamedTuple):
    # Memory that a program takes: ``kinds`` and ``lines`` of the ledger by how they grow, as a
    # multiple of ``size`` of what the program says. ``needs`` as for tests.machine.prepared.
    words: tuple[object, ...]
    kinds: Grows
    lines: Grows
    size: Callable[[Facts], int] | None = made
    needs: tuple[str, ...] = ()


CASES = {
    "anonymous": Case(("anon", 256 * MIB), {"anon": 1}, {"AnonPages": 1, "AnonHugePages": 0}),
    "huge": Case(("huge", 64 * MIB), {"anon_huge": 1}, {"AnonHugePages": 1}, needs=("thp",)),
    "merged": Case(("merged", 4 * MIB), {"ksm": 1}, {}, needs=("ksm",)),
    "locked": Case(("locked", 64 * MIB), {"locked": 1}, {"Mlocked": 1, "Unevictable": 1}),
    "swapped": Case(("swapped", 64 * MIB, SWAP), {"zsmalloc": 1}, {}),
    "hugetlb": Case(("hugetlb", 8), {"hugetlb_used": 1, "hugetlb_idle": -1}, {"Hugetlb": 0},
                    needs=("hugetlb",)),
    "mapped file": Case(("mapped", OLD), {"file_mapped": 1, "file_unmapped": -1},
                        {"Mapped": 1, "Cached": 0}),
    "unmapped file": Case(("cached", NEW, FILE), {"file_unmapped": 1, "file_mapped": 0},
                          {"Cached": 1, "Mapped": 0}),
    "block device": Case(("blocks", DEVICE, FILE), {"buffers": 1}, {"Buffers": 1}),
    "memfd": Case(("memfd", FILE), {"shmem_mapped": 1, "shmem_unmapped": 0},
                  {"Shmem": 1, "Mapped": 1}),
    "deleted tmpfs file": Case(("deleted", "/dev/shm/pagewalk-kinds", FILE),
                               {"shmem_unmapped": 1, "shmem_mapped": 0}, {"Shmem": 1}),
    "SysV segment": Case(("segment", FILE), {"shmem_unmapped": 1, "shmem_mapped": 0}, {"Shmem": 1}),
    "page tables": Case(("tables", fewer(4000)), {"page_tables": 1}, {"PageTables": 1}),
    "stacks": Case(("threads", 200), {"kernel_stack": 1}, {"KernelStack": 1},
                   lambda facts: facts["threads"] * THREAD),
    "pipes": Case(("pipes", 64, 256), {"kernel_other": 1}, {}),
    "large kmalloc": Case(("pipes", 64, 256), {"large_kmalloc": 1}, {},
                          lambda facts: facts["rings"] * RING),
    "vmalloc": Case(("array", 16 * MIB), {"vmalloc": 1}, {"VmallocUsed": 1}),
    "per-CPU": Case(("percpu", 512, 32 * KIB), {"percpu": 1}, {"Percpu": 1}),
    # how many slabs objects take depends on what was free in those that there are
    "dentries": Case(("names", f"/dev/shm/pagewalk-names-{os.getpid()}", fewer(20_000)),
                     {"slab_reclaimable": 1}, {"SReclaimable": 1}, None),
    "inodes": Case(("names", f"/dev/shm/pagewalk-names-{os.getpid()}", fewer(20_000)),
                   {"slab_unreclaimable": 1}, {"SUnreclaim": 1}, None),
    "sockets": Case(("sockets", 100), {"slab_unreclaimable": 1}, {"SUnreclaim": 1}, None),
    "open files": Case(("descriptors", 10_000), {"slab_unreclaimable": 1}, {"SUnreclaim": 1}, None),
}  # fmt: skip


@contextmanager
def taking(words: list[str]) -> Iterator[Callable[[], Facts]]:
    """Run tests.targets.kinds; yields what lets it go on, and returns what it then holds."""
    command = [sys.executable, "-m", "tests.targets.kinds", *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        write, read = process.stdin, process.stdout

        def step() -> Facts:
            write.write("\n")
            write.flush()
            facts: Facts = json.loads(read.readline())
            return facts

        try:
            assert json.loads(read.readline()) == {}
            # Once before: what Python and the pipe to it need besides is there then.
            step(), step()
            yield step
        finally:
            process.kill()


class Reading(NamedTuple):
    """What `ram` said: kinds, and what is locked, in bytes; and lines of the ledger by field."""

    kinds: dict[str, int]
    lines: dict[str, dict[str, Any]]


def read() -> Reading:
    """Return what `ram` says once it closes."""
    return look_again(said, 10)


def said() -> Reading:
    ran = pagewalk_here("ram", "--format", "json")  # at once: less moves meanwhile
    assert ran.code == 0, ran.err
    document = ran.json
    kinds = {**document["kinds"], "locked": document["headroom"]["locked"]}
    return Reading(kinds, {line["against"].removeprefix("meminfo "): line
                           for line in document["ledger"]})


def grown(less: Reading, more: Reading) -> tuple[Facts, Facts]:
    """Return what each line grew by, as the kernel has it, and how much more it grew by ours."""
    both = [(field, less.lines[field], line) for field, line in more.lines.items()
            if line["ours"] is not None and field in less.lines]
    theirs = {field: last["theirs"] - first["theirs"] for field, first, last in both}
    return theirs, {field: last["ours"] - first["ours"] - theirs[field]
                    for field, first, last in both}


def checked(
    case: Case, less: Reading, more: Reading, size: int | None, moved: int = 0
) -> None:
    """Demand that the kinds grew by ``size``, or by what the kernel says its lines grew by.

    ``moved`` is what the kinds changed by otherwise, bytes.
    """
    theirs, shifted = grown(less, more)
    if size is None:
        [size] = (theirs[field] for field in case.lines)
    # How far off we may be: by what others took or gave back of that meanwhile, as the kernel
    # counts it, and as far as we were from its number in one reading and not in the other, while
    # the ledger closes. Both are 0 on a quiet machine, but for our own memory while we read RAM.
    off = moved + sum(abs(theirs[field] - times * size) + abs(shifted[field])
                      for field, times in case.lines.items())
    assert 2 * off < size, f"{off} bytes moved meanwhile, of {size}"
    others = {field: shifted[field] for field in STEADY if 2 * abs(shifted[field]) >= size}
    assert others == {}
    for kind, times in case.kinds.items():
        told = more.kinds.get(kind, 0) - less.kinds.get(kind, 0)
        assert abs(told - times * size) <= off, f"{kind}: {told}, not {times} x {size} +- {off}"


@pytest.mark.parametrize("name", CASES)
def test_a_kind_grows_by_what_was_made_and_shrinks_by_it(
    name: str, request: pytest.FixtureRequest
) -> None:
    case, given = CASES[name], dict[str, Path]()
    with ExitStack() as stack:
        stack.enter_context(prepared(*case.needs))
        if NEW in case.words or OLD in case.words:
            place = request.getfixturevalue("disk")
            given = {NEW: place / "new", OLD: place / "old"}
        if OLD in case.words:
            given[OLD].write_bytes(b"x" * FILE)
            os.sync()
        for name, device in ((DEVICE, zram_device), (SWAP, zram)):
            if name in case.words:
                stack.enter_context(alone())
                given[name] = stack.enter_context(device(256))
        words = [str(given.get(str(word), word)) for word in case.words]

        step = stack.enter_context(taking(words))
        look_again(Looks(case, step).look)


class Looks:
    """Looks at what a case takes and gives back, again and again."""

    def __init__(self, case: Case, step: Callable[[], Facts]) -> None:
        self.case, self.step = case, step
        self.left = {"grows", "shrinks"}  # each is settled by a look in which it does so
        self.empty, self.full = (deque[Reading](maxlen=LOOKS) for _ in range(2))
        self.empty.append(read())

    def look(self) -> None:
        """Demand that the kinds follow, as far as no earlier look has settled it."""
        facts = self.step()
        self.full.append(read())
        self.step()
        before = self.empty[-1]
        self.empty.append(read())
        size = None if self.case.size is None else self.case.size(facts)
        if not self.case.lines:
            checked(self.case, least(self.empty), least(self.full), size,
                    spread(self.empty, *self.case.kinds))
            return
        for way, less in (("grows", before), ("shrinks", self.empty[-1])):
            if way in self.left:
                checked(self.case, less, self.full[-1], size)
                self.left.remove(way)


def spread(readings: deque[Reading], *kinds: str) -> int:
    """Return how far apart ``readings`` are in any of ``kinds``, bytes: 0 on a quiet machine."""
    amounts = ([one.kinds.get(kind, 0) for one in readings] for kind in kinds)
    return max(max(held) - min(held) for held in amounts)


def least(readings: deque[Reading]) -> Reading:
    """Return the last of ``readings``, with each kind as small as it was in any.

    The kernel has no number for it, but what others take of it comes and goes: full pipes, and
    pages that are not yet, or no longer, what they are allocated for.
    """
    kinds = {kind: min(one.kinds.get(kind, 0) for one in readings) for kind in readings[-1].kinds}
    return Reading(kinds, readings[-1].lines)
