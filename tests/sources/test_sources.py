"""The contract of a source, for every name in SOURCES, on a small stopped process.

What a source returns is compared with what the target itself did to its memory, and with the
properties that the walk relies on. tests/live checks that the figures equal smaps.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from pagewalk import sources
from pagewalk.account.table import table
from pagewalk.model.columns import U64, Flag, Leaves, State, Sums, VMAs, Withheld, join
from pagewalk.model.errors import (
    BadRequest,
    BadText,
    NoAddressSpace,
    NotPermitted,
    ProcessGone,
    SourceUnavailable,
    Unsupported,
)
from pagewalk.model.rules import HAS_ENTRY
from pagewalk.proc.target import open_target
from pagewalk.sources import AUTO, SOURCES, Source, close, open_process, open_source, readers
from pagewalk.sources.kernel import KernelSource
from pagewalk.sources.process import SMALL_RSS
from pagewalk.walking.walk import walk

PAGE = 4096
COUNT = 64

# 64 anonymous pages: every second one written, page 5 only read, page 7 guarded if this kernel has
# guard regions (6.13), which leaves an entry that is neither present nor swap.
PROGRAM = f"""
import ctypes, mmap, time
area = mmap.mmap(-1, {(COUNT + 1) * PAGE}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(15)  # MADV_NOHUGEPAGE: pages come one by one
for page in range(0, {COUNT}, 2):
    area[page * {PAGE}] = 1
area[5 * {PAGE}]
try:
    area.madvise(102, 7 * {PAGE}, {PAGE})  # MADV_GUARD_INSTALL
    entries = 1
except OSError:
    entries = 0
print(ctypes.addressof(ctypes.c_char.from_buffer(area)), entries, flush=True)
time.sleep(1000)
"""


@dataclass(frozen=True)
class Child:
    """A stopped process; ``area`` is the address of its 64 pages, ``guards`` the number guarded."""

    pid: int
    area: int
    guards: int
    process: subprocess.Popen[bytes]

    def populated(self, first: int = 0, last: int = COUNT) -> list[int]:
        """Return the addresses in pages [first, last) that have an entry."""
        special = {5, 7} if self.guards else {5}
        return [self.area + n * PAGE for n in range(first, last) if n % 2 == 0 or n in special]


def start() -> Child:
    process = subprocess.Popen([sys.executable, "-Sc", PROGRAM], stdout=subprocess.PIPE)
    assert process.stdout is not None
    area, guards = map(int, process.stdout.readline().split())
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    return Child(process.pid, area, guards, process)


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    """Return a process that does not change during the tests here."""
    running = start()
    yield running
    running.process.kill()
    running.process.wait()


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, child: Child) -> Iterator[Source]:
    """Return each source, opened on the child; skip one that cannot work on this machine."""
    try:
        opened = open_process(child.pid, request.param)
    except (SourceUnavailable, NotPermitted) as err:
        pytest.skip(str(err))
    yield opened
    close(opened)


def all_leaves(source: Source, vmas: VMAs, ranges: U64) -> Leaves:
    return join([batch.leaves for batch in source.space.entries(vmas, ranges)])


def area_of(child: Child) -> U64:
    return np.array([[child.area, child.area + COUNT * PAGE]], np.uint64)


def test_it_names_itself(source: Source, child: Child) -> None:
    assert source.name in SOURCES
    assert source.who.pid == child.pid
    assert source.live is not None and source.live.target.pid == child.pid
    assert all(isinstance(row, Withheld) and row.why for row in source.outcome().withheld)


def test_vmas_are_sorted_without_overlap(source: Source, child: Child) -> None:
    vmas = source.vmas()
    assert (vmas.start < vmas.end).all()
    assert (vmas.end[:-1] <= vmas.start[1:]).all()
    assert ((vmas.start | vmas.end) % PAGE == 0).all()
    assert any(start <= child.area < end for start, end in vmas.ranges.tolist())


def test_vmas_are_those_of_maps(source: Source, child: Child) -> None:
    with open(f"/proc/{child.pid}/maps", encoding="utf-8") as file:
        edges = [tuple(int(n, 16) for n in line.split()[0].split("-")) for line in file]
    found = [tuple(edge) for edge in source.vmas().ranges.tolist()]
    gate = 1 << 63  # [vsyscall], which is not a VMA: a source may leave it out
    assert [e for e in found if e[0] < gate] == [e for e in edges if e[0] < gate]


def test_leaves_are_ascending_disjoint_and_inside_the_ranges(source: Source) -> None:
    vmas = source.vmas()
    leaves = all_leaves(source, vmas, vmas.ranges)
    end = leaves.addr + (np.uint64(1) << leaves.shift.astype(np.uint64))
    assert (end[:-1] <= leaves.addr[1:]).all()
    row = np.searchsorted(vmas.start, leaves.addr, side="right") - 1
    assert ((leaves.addr >= vmas.start[row]) & (end <= vmas.end[row])).all()


def test_every_leaf_is_present_or_a_software_entry(source: Source) -> None:
    vmas = source.vmas()
    flags = all_leaves(source, vmas, vmas.ranges).flags
    kinds = flags & np.uint32(Flag.PRESENT | Flag.SOFT)
    assert set(kinds.tolist()) <= {int(Flag.PRESENT), int(Flag.SOFT)}


def test_leaves_are_the_pages_the_target_touched(source: Source, child: Child) -> None:
    leaves = all_leaves(source, source.vmas(), area_of(child))
    assert leaves.addr.tolist() == child.populated()
    present = leaves.flags & Flag.PRESENT != 0
    assert present.tolist() == [a != child.area + 7 * PAGE for a in child.populated()]
    assert leaves.pfn is None or len(set(leaves.pfn[present].tolist())) == 33


@pytest.mark.parametrize(("first", "last"), [(0, 1), (1, 2), (3, 9), (62, 64), (10, 10)])
def test_a_range_returns_the_leaves_in_it_and_no_others(
    source: Source, child: Child, first: int, last: int
) -> None:
    span = np.array([[child.area + first * PAGE, child.area + last * PAGE]], np.uint64)
    found = [
        addr for batch in source.space.entries(source.vmas(), span[span[:, 0] < span[:, 1]])
        for addr in batch.leaves.addr.tolist()
    ]
    assert found == child.populated(first, last)


def test_counting_gives_the_bytes_that_walking_gives(source: Source) -> None:
    counted = table(source, frames=False)
    walked = table(source)
    for name in ("size", "present", "rss", "zero", "hugetlb", "swap", "not_mapped", "guard"):
        assert counted.totals[name] == walked.totals[name], name


def test_a_walk_with_holes_covers_every_byte_of_every_vma_once(source: Source) -> None:
    walked = walk(source, holes=True)
    at = 0
    covered = np.zeros(len(walked.vmas), np.int64)
    for batch in walked:
        assert int(batch.addr[0]) >= at
        assert (batch.addr[:-1] + batch.size[:-1] <= batch.addr[1:]).all()
        at = int(batch.addr[-1] + batch.size[-1])
        np.add.at(covered, batch.vma, batch.size.astype(np.int64))
    assert covered.tolist() == walked.vmas.size.tolist()
    assert walked.outcome.done


def test_the_kinds_are_those_the_target_made(source: Source, child: Child) -> None:
    walked = walk(source, holes=True, ranges=area_of(child))
    rows = join(list(walked))
    sizes = dict.fromkeys(State, 0)
    for state, size in zip(rows.state.tolist(), rows.size.tolist(), strict=True):
        sizes[State(state)] += size
    assert sizes[State.ANON] == 32 * PAGE
    assert sizes[State.ZERO] == PAGE
    assert sizes[State.GUARD] == child.guards * PAGE
    assert sizes[State.EMPTY] + sizes[State.ABSENT] == (31 - child.guards) * PAGE


def test_present_not_present_and_not_mapped_add_up_to_all(source: Source) -> None:
    columns = table(source).columns
    present, absent, size = (columns[n] for n in ("present", "not_present", "size"))
    assert present is not None and absent is not None and size is not None
    unmapped = columns["not_mapped"]
    assert (unmapped is None) == (not source.space.tells.tables)
    assert ((present + absent + (0 if unmapped is None else unmapped)) == size).all()


def test_reads_are_timed(source: Source) -> None:
    table(source)
    stall = source.outcome().stall
    assert stall.reads > 0
    assert stall.longest_ns > 0


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_is_left_open(name: str, child: Child) -> None:
    def once() -> None:
        source = open_process(child.pid, name)
        table(source)
        close(source)

    try:
        once()  # from here on a source has what it keeps for the next process
    except (SourceUnavailable, NotPermitted) as err:
        pytest.skip(str(err))
    before = os.listdir("/proc/self/fd")
    once()
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("name", SOURCES)
def test_closing_again_does_nothing(name: str, child: Child) -> None:
    try:
        source = open_process(child.pid, name)
    except (SourceUnavailable, NotPermitted) as err:
        pytest.skip(str(err))
    assert source.live is not None
    source.live.target.keep("status")
    close(source)
    # The numbers that have become free are those of other files now.
    others = [os.open("/dev/null", os.O_RDONLY) for _ in range(8)]
    close(source)
    for fd in others:
        os.close(fd)


OPENED_AND_CLOSED = """
import gc, sys, pagewalk
for name in sys.argv[2:]:
    try:
        source = pagewalk.open_process(int(sys.argv[1]), name)
    except pagewalk.PagewalkError:
        continue
    pagewalk.table(source)
    pagewalk.close(source)
    del source
    gc.collect()
"""


def test_no_file_is_left_to_the_garbage_collector(child: Child) -> None:
    # Until the end of the process, when the kernel that sources share goes too.
    words = [sys.executable, "-W", "error::ResourceWarning", "-c", OPENED_AND_CLOSED]
    ran = subprocess.run([*words, str(child.pid), *SOURCES], stderr=subprocess.PIPE, check=True)
    assert ran.stderr == b""


@pytest.mark.parametrize(("name", "broken"), [
    ("procfs", "sources.procfs.find_frames"), ("procfs", "sources.procfs.parse_mountinfo"),
    ("procfs", "proc.frames.read_kpage"), ("ebpf", "kernel.open.read_btf"),
    ("ebpf", "kernel.running.find_mem_map"), ("ebpf", "kernel.running.compare"),
    ("kcore", "kernel.open.read_btf"), ("kcore", "kernel.open.find_task"),
    ("kcore", "kernel.running.compare"),
])
def test_a_source_that_cannot_be_opened_leaves_nothing_open(
    name: str, broken: str, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError(broken)

    # not the kernel that the other tests have opened
    monkeypatch.setattr(readers, "_opened_by", readers._opened_by.__wrapped__)
    try:
        first = open_process(child.pid, name)
    except (SourceUnavailable, NotPermitted) as err:
        pytest.skip(str(err))
    close(first)
    if isinstance(first, KernelSource):
        first.running.kernel.close()
    gc.collect()
    monkeypatch.setattr(f"pagewalk.{broken}", fail)
    before = len(os.listdir("/proc/self/fd"))
    try:
        open_process(child.pid, name)
    except MemoryError as err:  # whose traceback keeps memory mapped until it is gone
        assert str(err) == broken
    else:
        pytest.fail("it was opened")
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", SOURCES)
def test_a_process_that_ended_is_gone_and_not_empty(name: str) -> None:
    mortal = start()
    try:
        source = open_process(mortal.pid, name)
    except (SourceUnavailable, NotPermitted) as err:
        pytest.skip(str(err))
    finally:
        mortal.process.kill()
        mortal.process.wait()
    try:
        with pytest.raises(ProcessGone):
            table(source)
    finally:
        close(source)


@pytest.mark.parametrize("seed", range(20))
def test_counting_ranges_gives_the_bytes_that_walking_them_gives(
    source: Source, seed: int
) -> None:
    ranges = some_ranges(source.vmas(), np.random.default_rng(seed))
    counted = table(source, frames=False, ranges=ranges).columns
    walked = table(source, ranges=ranges).columns
    for name in ("size", "present", "not_present", "not_mapped", "rss", "zero", "guard", "empty"):
        ours, theirs = counted[name], walked[name]
        assert (ours is None) == (theirs is None)
        assert ours is None or theirs is None or ours.tolist() == theirs.tolist(), name


def some_ranges(vmas: VMAs, chance: np.random.Generator) -> U64:
    """Return ranges that begin and end anywhere, within VMAs and across them."""
    pages = np.concatenate([np.arange(a // PAGE, b // PAGE + 1) for a, b in vmas.ranges.tolist()])
    edges = np.sort(chance.choice(np.unique(pages), 2 * int(chance.integers(1, 20)), replace=False))
    return edges.reshape(-1, 2).astype(np.uint64) * np.uint64(PAGE)


@pytest.mark.parametrize("frames", [True, False])
def test_with_holes_every_byte_of_the_ranges_is_reported_once(source: Source, frames: bool) -> None:
    ranges = some_ranges(source.vmas(), np.random.default_rng(1))
    pages = walk(source, frames=frames, holes=True, ranges=ranges)
    total, added = (np.zeros(len(pages.vmas), np.int64) for _ in range(2))
    for batch in pages:
        np.add.at(total, batch.vma, batch.size.astype(np.int64))
    assert total.tolist() == pages.covered.tolist()
    summed = walk(source, Sums, frames=frames, holes=True, ranges=ranges)
    for sums in summed:
        np.add.at(added, sums.amounts.vma, sums.amounts.size.astype(np.int64))
    assert added.tolist() == summed.covered.tolist()


@pytest.mark.parametrize("frames", [True, False])
def test_pages_and_sums_are_in_the_same_states(source: Source, frames: bool) -> None:
    pages, sums = walk(source, frames=frames), walk(source, Sums, frames=frames)
    of_pages, of_sums = (np.zeros((len(w.vmas), len(State)), np.uint64) for w in (pages, sums))
    for rows in pages:
        np.add.at(of_pages, (rows.vma, rows.state), rows.size)
    for part in sums:
        np.add.at(of_sums, (part.amounts.vma, part.amounts.state), part.amounts.size)
    assert of_pages[:, HAS_ENTRY].tolist() == of_sums[:, HAS_ENTRY].tolist()
    assert of_pages.sum() > 0


def test_smaps_of_a_large_process_is_read_only_while_it_is_stopped(child: Child) -> None:
    stopped, running = open_process(child.pid, "procfs"), open_process(os.getpid(), "procfs")
    assert stopped.live is not None and running.live is not None
    large = SMALL_RSS + 1
    assert stopped.live.smaps(large) is not None
    assert running.live.smaps(large) is None
    assert running.live.smaps(SMALL_RSS) is not None
    running.live.stall.budget_ns *= 2  # a read may take twice as long, so twice as much may be read
    assert running.live.smaps(large) is not None
    close(stopped)
    close(running)


def test_counts_are_inside_their_vma(source: Source) -> None:
    vmas = source.vmas()
    total = np.zeros(len(vmas), np.int64)
    for part in source.space.sums(vmas, vmas.ranges, frames=False):
        assert len(part.entries.leaves) == 0
        np.add.at(total, part.sums.amounts.vma, part.sums.amounts.size.astype(np.int64))
    assert (total <= vmas.size.astype(np.int64)).all()


def test_auto_is_one_of_the_sources() -> None:
    assert set(AUTO) <= set(SOURCES)


@pytest.mark.parametrize("fault", [
    ValueError("zip() argument 2 is longer than argument 1"), OSError(5, "Input/output error"),
    MemoryError(), SourceUnavailable("ebpf", "no", "no"), Unsupported("it", "6.1"),
])
def test_auto_skips_a_source_that_fails_whatever_the_reason(
    fault: Exception, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, target: object, budget_ns: int) -> Source:
        if name not in ("auto", "procfs"):
            raise fault
        return real(name, target, budget_ns)  # type: ignore[arg-type]

    real = sources.open_source
    monkeypatch.setattr(sources, "open_source", fail)
    source = open_process(child.pid)
    assert source.name == "procfs"
    (why,) = [row.why for row in source.outcome().withheld if row.what == "the best source"]
    assert type(fault).__name__ in why or str(fault) == why
    assert "\n" not in why
    close(source)


@pytest.mark.parametrize(
    ("last", "raised"),
    [(SourceUnavailable("kcore", "no", "no"), "source 'ebpf'"), (BadText("maps", 1, b"?"), "maps")],
)
def test_where_none_works_the_best_one_says_why(
    last: Exception, raised: str, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, target: object, budget_ns: int) -> Source:
        raise SourceUnavailable("ebpf", "no", "no") if name == "ebpf" else last

    monkeypatch.setattr(sources, "open_source", fail)
    target = open_target(child.pid)
    with pytest.raises(type(last), match=raised):
        sources.open_best(target, 1, besides="procfs")
    target.close()


@pytest.mark.parametrize("end", [ProcessGone(1, "ended"), NoAddressSpace(1, "is a zombie")])
def test_auto_ends_with_the_target(
    end: Exception, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, target: object, budget_ns: int) -> Source:
        assert name != "procfs"
        raise end

    monkeypatch.setattr(sources, "open_source", fail)
    target = open_target(child.pid)
    with pytest.raises(type(end)):
        sources.open_best(target, 1)
    target.close()


def test_an_unknown_source_is_named_with_the_known_ones() -> None:
    target = open_target(os.getpid())
    try:
        with pytest.raises(BadRequest, match="no source is called 'magic'; there are: auto, "):
            open_source("magic", target)
    finally:
        target.close()


def test_walking_leaves_the_process_stopped(child: Child) -> None:
    with open(f"/proc/{child.pid}/stat", encoding="utf-8") as file:
        assert file.read().rpartition(")")[2].split()[0] == "T"
