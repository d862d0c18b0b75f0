"""Several processes together, against pagemap, smaps_rollup and the memory cgroup: tolerance 0."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from pagewalk.proc.stall import BUDGET_NS
from pagewalk.system.members import total_each
from pagewalk.system.processes import LiveProcesses
from tests import kernel_says
from tests.kernel_says import KPF_ANON, PAGE
from tests.live.bracket import living_thread, look_again, working_sources
from tests.live.command import pagewalk, pagewalk_here
from tests.live.test_held import settled
from tests.machine import memory_cgroup, prepared
from tests.targets import TARGETS, start

pytestmark = pytest.mark.live
KERNEL = pytest.mark.skipif("ebpf" not in working_sources(),
                            reason="nothing reads kernel memory here")
FAMILIES = ["plain", "fork_cow", "fork_three", "shared_fork", "thp_fork", "hugetlb_fork",
            "swap_forked", "ksm"]
MIB = 1 << 20
# Obeys commands: a family of a server and workers, of which each writes to what it inherited.
SERVER = """
import mmap, os, sys
MIB = 1 << 20
def anonymous(size):
    held = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held.madvise(mmap.MADV_NOHUGEPAGE)
    held[:] = b"s" * size
    return held
held = anonymous(32 * MIB)
lent = os.memfd_create("lent")
os.write(lent, b"l" * 4 * MIB)
shared = mmap.mmap(lent, 4 * MIB)
shared[: 2 * MIB] = b"m" * 2 * MIB
workers = 0
def worker():
    global workers
    workers += 1
    ready, told = os.pipe()
    pid = os.fork()
    if not pid:
        for at in range(0, workers * MIB, 4096):
            held[at] = 1
        os.write(told, b"1")
        import signal
        while True:
            signal.pause()
    os.read(ready, 1)
    os.close(ready)
    os.close(told)
    return pid
pids = [os.getpid()] + [worker() for _ in range(3)]
print(*pids, flush=True)
for line in sys.stdin:
    print(worker(), flush=True)
"""


@contextmanager
def server(group: Path | None = None) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Start SERVER; yields it and the pids of its family. All of it is killed at the end."""
    words = [sys.executable, "-I", "-S", "-c", SERVER]
    if group is not None:
        words = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs"), *words]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               start_new_session=True)
    try:
        assert process.stdout is not None
        yield process, [int(word) for word in process.stdout.readline().split()]
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def shared(*words: object) -> dict[str, Any]:
    """Return what share says of a set."""
    ran = pagewalk("share", *words, "--format", "json")
    assert ran.code == 0, ran.err
    found: dict[str, Any] = ran.json
    return found


def frames_by_name(pid: int, flag: int = 0) -> dict[str, set[int]]:
    """Return the frames that a process maps by the name of the mapping, by pagemap alone.

    Without the zero page, and with ``flag`` only those that have it in kpageflags.
    """
    said, found = living_thread(pid), dict[str, set[int]]()
    for vma in kernel_says.read_smaps(said):
        # Neither a PFN map nor a driver's special pages are in smaps.
        if vma.start < 1 << 63 and any(
            vma.fields.get(name) for name in ("Rss", "Shared_Hugetlb", "Private_Hugetlb")
        ):
            entry = kernel_says.read_pagemap(said, vma.start, vma.end)
            frames = entry[entry & kernel_says.PRESENT != 0] & kernel_says.PFN
            flags = kernel_says.read_folio_flags(frames)
            kept = (flags & kernel_says.KPF_ZERO == 0) & (flags & flag == flag)
            found.setdefault(vma.name, set()).update(frames[kept].tolist())
    return found


def frames_of(pid: int, flag: int = 0) -> set[int]:
    """Return the frames that a process maps; see frames_by_name."""
    return set().union(*frames_by_name(pid, flag).values())


def anonymous(pids: Sequence[int]) -> set[int]:
    return set().union(*(frames_of(pid, KPF_ANON) for pid in pids))


@pytest.mark.parametrize("source", working_sources())
@pytest.mark.parametrize("name", FAMILIES)
def test_each_frame_of_a_family_counts_once(name: str, source: str) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:

        def look() -> None:  # khugepaged and compaction move even a stopped process's pages
            before = {pid: frames_of(pid) for pid in running.pids}
            found = shared(*running.pids, "--source", source)
            assert before == {pid: frames_of(pid) for pid in running.pids}
            assert found["held"] == len(set().union(*before.values())) * PAGE
            expected = {(one, two): len(before[one] & before[two]) * PAGE
                        for one, two in permutations(before, 2)}
            at = {pid: row for row, pid in enumerate(found["pids"])}
            assert {pair: found["shared"][at[pair[0]]][at[pair[1]]] for pair in expected
                    } == expected

        look_again(look)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_sums_are_those_of_smaps_rollup(name: str) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:

        def look() -> None:  # other processes map and unmap the same libraries
            before = rollups(running.pids)
            ran = pagewalk_here("share", *running.pids, "--format", "json")
            assert before == rollups(running.pids)
            found = ran.json
            sums = {"rss_sum": "Rss", "pss_sum": "Pss"}
            for key, field in sums.items():
                # Pss is shifted to bytes and then to KiB by the kernel, each process for itself.
                told = sum(row[key.removesuffix("_sum")] >> 10 for row in found["members"])
                assert told == sum(said[field] for said in before), key
                assert found[key] == sum(row[key.removesuffix("_sum")] for row in found["members"])

        look_again(look)


def rollups(pids: tuple[int, ...]) -> list[dict[str, int]]:
    return [kernel_says.read_rollup(living_thread(pid)) for pid in pids]


@KERNEL
def test_freed_is_what_the_cgroup_loses_when_all_end() -> None:
    with memory_cgroup("share") as group:
        with server(group) as (process, pids):
            before = settled({"group": group})["group"]
            found = shared("--tree", process.pid)
            assert [row["pid"] for row in sorted(found["members"], key=lambda row: row["pid"])
                    ] == sorted(pids)
            assert settled({"group": group})["group"] == before
        after = settled({"group": group})["group"]
    assert found["freed"] == before["held"] - after["held"]
    # USS misses what the family shares: what the server wrote, and the memfd, which all hold.
    assert found["freed"] - found["uss_sum"] > 30 * MIB
    assert [row["resident"] for row in found["objects"]] == [4 * MIB]


@KERNEL
def test_a_part_of_a_family_frees_only_what_the_rest_does_not_have() -> None:
    with server() as (process, pids):
        workers = shared(*pids[1:])
        of_workers = anonymous(pids[1:])
        freed = len(of_workers - frames_of(process.pid, KPF_ANON)) * PAGE
    assert workers["freed"] == freed >= 6 * MIB  # 1, 2 and 3 MiB that they wrote
    assert workers["objects"] == [] and workers["one_more"] is None


@KERNEL
def test_one_more_worker_costs_what_the_cgroup_gains() -> None:
    with memory_cgroup("share") as group, server(group) as (process, pids):
        before, mapped = settled({"group": group})["group"], anonymous(pids)
        assert process.stdin is not None and process.stdout is not None
        print("one more", file=process.stdin, flush=True)
        pid = int(process.stdout.readline())
        after = settled({"group": group})["group"]
        found = shared("--tree", process.pid)
        others, own = anonymous(pids), frames_of(pid, KPF_ANON)
    (child,) = [row for row in found["children"] if row["pid"] == pid]
    (row,) = [row for row in found["members"] if row["pid"] == pid]
    # Besides what the worker wrote, the server has copies of what it wrote itself meanwhile.
    assert after["held"] - before["held"] == len((others | own) - mapped) * PAGE
    assert row["freed"] == len(own - others) * PAGE >= 4 * MIB
    assert child["alone"] == row["freed"] + row["page_tables"]
    costs = sorted(row["alone"] for row in found["children"])
    assert found["one_more"] == costs[len(costs) // 2]


@KERNEL
def test_a_child_is_told_what_it_shares_and_where_it_went_its_own_way() -> None:
    with server() as (process, pids):
        found = shared("--tree", process.pid)
        frames = {pid: frames_by_name(pid, KPF_ANON) for pid in pids}
    parents = set().union(*frames[process.pid].values())
    assert [row["pid"] for row in found["children"]] == pids[1:]
    for number, child in enumerate(found["children"], 1):
        own = frames[child["pid"]]
        assert child["parent"] == process.pid
        assert child["kept"] == len(set().union(*own.values()) & parents) * PAGE
        assert {row["name"]: row["bytes"] for row in child["diverged"]} == {
            name: len(held - parents) * PAGE for name, held in own.items() if held - parents}
        assert sum(row["bytes"] for row in child["diverged"]) >= number * MIB


def test_names_trees_users_and_cgroups_name_the_same_family() -> None:
    with memory_cgroup("share") as group, server(group) as (process, pids):
        words: list[tuple[object, ...]] = [
            tuple(pids), ("--tree", process.pid), ("--cgroup", group.name),
            (*pids[:2], "--tree", process.pid, "--cgroup", group.name)]
        for each in words:
            found = shared(*each)
            assert sorted(row["pid"] for row in found["members"]) == sorted(pids), each
        everyone = pagewalk("share", "--user", os.geteuid(), "--format", "json").json
        assert {*pids} <= {row["pid"] for row in everyone["members"]}


def test_an_address_space_counts_once_however_many_processes_run_in_it() -> None:
    with start("shared_mm") as running:
        found = shared(*running.pids)
    assert [sorted(row["pids"]) for row in found["members"]] == [sorted(running.pids)]


def test_a_user_gets_bounds_and_is_told_what_is_missing() -> None:
    drop = ("setpriv", "--reuid=65534", "--clear-groups")
    with subprocess.Popen([*drop, "sleep", "1000"]) as process:
        try:
            ran = look_again(lambda: asked_by_a_user(process.pid, drop))
        finally:
            process.kill()
    assert ran["held"] is ran["freed"] is ran["shared"] is None
    assert ran["rss_sum"] > 0


def asked_by_a_user(pid: int, drop: tuple[str, ...]) -> dict[str, Any]:
    ran = pagewalk("share", pid, "--format", "json", before=drop)
    assert ran.code == 3 and "run as root" in ran.err
    found: dict[str, Any] = ran.json
    return found


def test_bad_words_get_a_sentence() -> None:
    for words, said in (
        ((), "name the processes"), (("no such name",), "no process is called 'no such name'"),
        (("--user", "nobody-at-all"), "there is no user"), (("--tree", "x"), "not a valid pid"),
        (("2",), "has an address space"),
    ):
        ran = pagewalk("share", *words)
        assert ran.code == 2 and ran.out == "" and said in ran.err, (words, ran.err)
    gone = pagewalk("share", 2147483646)
    assert gone.code == 5 and "process 2147483646 does not exist" in gone.err


@KERNEL
def test_memory_that_a_process_outside_the_set_has_too_is_not_freed() -> None:
    with start("shared_mm", stopped=True) as running:

        def look() -> None:
            both, one = shared(*running.pids), shared(running.pid)
            assert both["freed"] == len(anonymous([running.pid])) * PAGE > 0
            assert (one["held"], one["freed"]) == (both["held"], 0)
            assert one["elsewhere"]["bytes"] == one["held"]

        look_again(look)


def test_a_set_may_be_empty() -> None:
    """All may have ended since they were listed."""
    where = LiveProcesses("auto", BUDGET_NS)
    found = total_each([], where)
    assert found.members == () and found.tried.not_looked == () == found.tried.gone
    charged = where.charged(frozenset())
    assert charged.peak is None and charged.why is not None
    assert charged.why.why == "there is no process, and so no cgroup"
