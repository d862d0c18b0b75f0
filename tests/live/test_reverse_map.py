"""The reverse map, against pagemap of every process that was started for it, and against a walk."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from pagewalk.model.columns import perms_text
from pagewalk.proc.kcmp import by_memory
from pagewalk.proc.stall import Stall
from pagewalk.sources.readers import running as opened_kernel
from pagewalk.system import reverse_map
from pagewalk.system.mappers import Mapper
from tests import kernel_says
from tests.kernel_says import (
    KPF_ANON,
    KPF_HUGE,
    KPF_KSM,
    KPF_SWAPBACKED,
    KPF_SWAPCACHE,
    KPF_THP,
    PAGE,
    PFN,
    PRESENT,
)
from tests.live.bracket import look_again, working_sources
from tests.live.command import pagewalk, pagewalk_here, run
from tests.live.test_who import frame_at, who
from tests.machine import prepared
from tests.targets import TARGETS, Running, start

READERS = [name for name in working_sources() if name != "procfs"]
pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not READERS, reason="nothing reads kernel memory here"),
]

# Flags that at least one of the pages that are looked at must have.
KINDS = {
    "plain": KPF_ANON, "fork_cow": KPF_ANON, "fork_three": KPF_ANON, "shared_fork": KPF_SWAPBACKED,
    "file_private": 0, "file_shared": 0, "memfd": KPF_SWAPBACKED, "tmpfs": KPF_SWAPBACKED,
    "sysv": KPF_SWAPBACKED, "thp": KPF_THP, "thp_part": KPF_THP,
    "thp_fork": KPF_THP, "thp_split": KPF_THP, "shmem_thp": KPF_THP, "file_thp": KPF_THP,
    "hugetlb_private": KPF_HUGE, "hugetlb_shared": KPF_HUGE, "hugetlb_fork": KPF_HUGE,
    "hugetlb_pmd": KPF_HUGE, "hugetlb_pud": KPF_HUGE, "ksm": KPF_KSM, "swap_forked": KPF_SWAPCACHE,
    "swap_thp": KPF_ANON, "swap_shmem": 0, "shared_mm": 0, "prot_none": KPF_ANON,
    "lazyfree": KPF_ANON, "locked": KPF_ANON, "secret": 0, "names": 0,
}  # fmt: skip
SHORT = ("fork_cow", "memfd", "hugetlb_fork", "ksm")
Place = tuple[int, int]  # pid, address


def frames_of(running: Running) -> dict[int, set[Place]]:
    """Return where the family maps each of its frames, by pagemap."""
    found: dict[int, set[Place]] = {}
    for pid in running.pids:
        for vma in kernel_says.read_maps(pid):
            if vma.name == "[vsyscall]":
                continue
            words = kernel_says.read_pagemap(pid, vma.start, vma.end)
            rows = np.flatnonzero(words & np.uint64(PRESENT))
            for row, pfn in zip(rows.tolist(), (words[rows] & np.uint64(PFN)).tolist(),
                                strict=True):
                found.setdefault(pfn, set()).add((pid, vma.start + row * PAGE))
    return found


def some_frames(running: Running) -> list[int]:
    """Return frames that only the family maps: a few of each VMA, and of all flags that it has."""
    places = frames_of(running)
    pfns = np.array(sorted(places), np.uint64)
    counts = kernel_says.read_counts(pfns)
    first = {pid: group[0] for group in by_memory(running.pids) for pid in group}
    times = [len({(first[pid], addr) for pid, addr in places[pfn]}) for pfn in pfns.tolist()]
    own = np.array(times) >= counts
    # also pages whose table is shared, which count once
    pfns, counts = pfns[own & (counts > 0)], counts[own & (counts > 0)]
    flags = kernel_says.read_folio_flags(pfns)
    told = {}
    for row, (pfn, flag, count) in enumerate(zip(
            pfns.tolist(), flags.tolist(), counts.tolist(), strict=True)):
        kind = flag & (KPF_ANON | KPF_KSM | KPF_THP | KPF_HUGE | KPF_SWAPCACHE | KPF_SWAPBACKED)
        # folio flags do not tell heads from tails: huge pages begin at their heads
        told.setdefault((kind, pfn % 512 == 0, count, row % 3), pfn)
        told[kind, pfn % 512 == 0, count] = pfn
    return list(dict.fromkeys(told.values()))


def found_for(source: str, pfn: int) -> reverse_map.Reversed | None:
    return reverse_map.by_reverse_map(opened_kernel(source), pfn, Stall(), ask=False)


def as_maps_says(one: Mapper, pid: int) -> bool:
    """Return whether a mapping is told as /proc/PID/maps tells it."""
    vma = kernel_says.vma_at(kernel_says.read_maps(pid), one.addr)
    offset = vma.offset + one.addr - vma.start if vma.inode else one.offset
    assert one.mapping is not None
    name = one.mapping.replace("\\012", "\n")
    return (perms_text(one.perms), name, one.offset) == (vma.perms, vma.name, offset)


@pytest.mark.parametrize("source", READERS)
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.vmshort) if name in SHORT else name for name in KINDS])
def test_it_finds_every_mapping_that_pagemap_shows(name: str, source: str) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:

        def look() -> None:  # khugepaged and compaction move even a stopped process's pages
            frames = some_frames(running)
            flags = kernel_says.read_folio_flags(np.array(frames, np.uint64))
            assert not KINDS[name] or any(flag & KINDS[name] == KINDS[name]
                                          for flag in flags.tolist())
            found = {pfn: found_for(source, pfn) for pfn in frames}
            places = frames_of(running)
            for pfn, told in found.items():
                assert told is not None and told.complete and not told.refused
                assert {(pid, one.addr) for one in told.mappers for pid in one.pids
                        } == places[pfn], hex(pfn)
                assert all(as_maps_says(one, pid) for one in told.mappers for pid in one.pids)
                assert len(told.mappers) >= told.before == told.after

        look_again(look)


@pytest.mark.parametrize("source", READERS)
@pytest.mark.parametrize("name", [
    "fork_cow", "file_private", "memfd", "thp_fork", "hugetlb_fork", "ksm", "shared_mm"])
def test_a_walk_says_the_same(name: str, source: str) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:

        def look() -> None:
            for pfn in some_frames(running)[-2:]:
                quick, walked = (who("--pfn", pfn, "--source", each) for each in (source, "procfs"))
                assert (quick["found_by"], walked["found_by"]) == ("reverse map", "walk")
                assert quick["frame"]["mapcount"] == walked["frame"]["mapcount"]
                # a walk also says whom it could not look at, though none of them has the page
                for key in ("asked", "mappers", "partial", "withheld"):
                    assert quick[key] == walked[key]

        look_again(look)


def test_pages_that_it_does_not_have_are_found_by_a_walk() -> None:
    with start("packet_ring", stopped=True) as running:
        vma = next(vma for vma in kernel_says.read_maps(running.pid) if "socket:" in vma.name)
        found = who(running.pid, hex(vma.start))
    assert found["found_by"] == "walk"
    assert [(one["pid"], one["addr"]) for one in found["mappers"]] == [
        (running.pid, hex(vma.start))]


@pytest.mark.parametrize("source", ["auto", "procfs"])
def test_the_zero_page_is_refused(source: str) -> None:
    with start("zero_reads", stopped=True) as running:
        fact = next(one for one in running.facts.values() if "start" in one)
        ran = pagewalk_here("who", running.pid, hex(fact["start"]), "--source", source)
    assert ran.code == 2 and "zero page" in ran.err


def test_a_process_whose_main_thread_has_ended_is_found() -> None:
    with start("leader_dead") as running:
        thread = max(int(name) for name in os.listdir(f"/proc/{running.pid}/task"))
        stack = next(vma for vma in kernel_says.read_maps(thread) if vma.name == "[stack]")

        def look() -> None:
            pfn = frame_at(thread, stack.end - PAGE)
            (one,) = who("--pfn", pfn)["mappers"]
            assert (one["pid"], one["mapping"]) == (running.pid, "[stack]")

        look_again(look)


def test_no_more_than_so_many_vmas_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reverse_map, "MOST", 2)
    with start("fork_three", stopped=True) as running:
        pfn = max(some_frames(running), key=lambda pfn: len(frames_of(running)[pfn]))
        ran = pagewalk_here("who", "--pfn", pfn, "--format", "json")
    assert ran.code == 3
    assert ran.json["found_by"] == "reverse map"
    assert len(ran.json["mappers"]) < ran.json["frame"]["mapcount"] == 3
    assert "more than 2 VMAs may map it" in ran.json["withheld"][0]["why"]


MAPPER = """
import mmap, sys
with open(sys.argv[1], "r+b") as file:
    held = mmap.mmap(file.fileno(), 0)
held[:1]
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def mapping(path: Path) -> Iterator[int]:
    """Run a process that maps ``path`` and has read its first page; yield its pid."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", MAPPER, str(path)], stdin=pipe,
                          stdout=pipe) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            yield process.pid
        finally:
            process.kill()


@pytest.mark.vmshort
def test_a_process_that_this_proc_does_not_show_is_told_by_its_number_on_the_host() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder, "model")
        path.write_bytes(b"x" * PAGE)
        with mapping(path) as pid, mapping(path) as other:
            pfn = frame_at(pid, next(
                vma.start for vma in kernel_says.read_maps(pid) if vma.name == str(path)))
            ran = pagewalk("who", "--pfn", pfn, "--format", "json",
                           before=("unshare", "--pid", "--fork", "--mount-proc"))
            text = pagewalk("who", "--pfn", pfn,
                            before=("unshare", "--pid", "--fork", "--mount-proc"))
    assert ran.code == 0, ran.err
    found = ran.json
    assert found["found_by"] == "reverse map" and found["frame"]["mapcount"] == 2
    assert [(one["pid"], one["pids"], one["on_host"]) for one in found["mappers"]] == [
        (None, [], [number]) for number in sorted((pid, other))]
    for one in found["mappers"]:
        # inside its file system, which is mounted at /dev/shm
        assert one["mapping"] == str(path).removeprefix("/dev/shm")
        assert (one["name"], one["perms"], one["offset"]) == ("python", "rw-s", 0)
    assert f"{pid} on the host" in text.out


def test_in_a_pid_namespace_with_the_proc_of_its_parent_numbers_are_those_of_proc() -> None:
    with start("fork_cow", stopped=True) as running:

        def look() -> None:
            pfn = some_frames(running)[-1]
            told = [pagewalk("who", "--pfn", pfn, "--format", "json", before=before)
                    for before in ((), ("unshare", "--pid", "--fork"))]
            assert [ran.code for ran in told] == [0, 0], told
            outside, inside = (ran.json for ran in told)
            assert inside["mappers"] == outside["mappers"]
            assert {one["pid"] for one in inside["mappers"]} <= {*running.pids}

        look_again(look)


def test_a_page_that_one_process_maps_hundreds_of_times_has_as_many_lines() -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file, ExitStack() as stack:
        file.write(b"x" * PAGE)
        file.flush()
        for at in range(300):  # neighbours that differ are not merged
            mine = stack.enter_context(mmap.mmap(
                file.fileno(), PAGE, prot=mmap.PROT_READ | mmap.PROT_WRITE * (at % 2)))
            assert mine[:1] == b"x"
        starts = [vma.start for vma in kernel_says.read_maps(os.getpid()) if vma.name == file.name]
        found = who("--pfn", frame_at(os.getpid(), starts[0]))
    assert [int(one["addr"], 16) for one in found["mappers"]] == starts
    assert found["found_by"] == "reverse map" and found["frame"]["mapcount"] == 300
    assert {one["mapping"] for one in found["mappers"]} == {file.name}


@pytest.mark.parametrize("path", ["/dev/shm", "/var/tmp"])
def test_nobody_maps_a_page_that_is_only_in_the_page_cache(path: str) -> None:
    with tempfile.NamedTemporaryFile(dir=path) as file:
        file.write(b"x" * PAGE)
        file.flush()
        with mmap.mmap(file.fileno(), PAGE) as mine:
            mine[:1]
            start_at = next(vma.start for vma in kernel_says.read_maps(os.getpid())
                            if vma.name == file.name)
            pfn = frame_at(os.getpid(), start_at)
        found = who("--pfn", pfn)
    assert (found["found_by"], found["mappers"]) == ("reverse map", [])
    assert (found["frame"]["mapcount"], found["partial"]) == (0, [])


def test_a_process_that_may_not_be_looked_at_is_left_out_unless_a_source_is_named() -> None:
    before = ("setpriv", "--bounding-set=-sys_ptrace,-perfmon")
    with start("nobody", stopped=True) as running:
        pfn, maps = some_frames(running)[0], f"/proc/{running.pid}/maps"
        if not run(*before, "cat", maps).code:
            pytest.skip("this kernel shows maps to whoever may read its memory")
        plain, named = (pagewalk("who", "--pfn", pfn, "--format", "json", *more, before=before)
                        for more in ((), ("--source", READERS[0])))
    assert plain.code == 3 and plain.json["mappers"] == []
    assert [one["pid"] for one in plain.json["not_looked"]] == [running.pid]
    assert [one["pid"] for one in named.json["mappers"]] == [running.pid]
    assert named.code == 0
