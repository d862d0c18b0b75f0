"""Many processes walked at once: each total is what a walk of that process alone finds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import pagewalk
from pagewalk.kernel.structs import spaces
from pagewalk.kernel.structs.maple import read_maple_tree, read_maple_trees
from pagewalk.proc.chosen import Wanted, choose
from pagewalk.proc.processes import Process
from pagewalk.sources.crowd import Crowd, open_crowd
from pagewalk.sources.readers import running
from pagewalk.system import at_once
from pagewalk.system.at_once import amounts_at_once
from pagewalk.system.members import Looked
from pagewalk.system.processes import LiveProcesses
from pagewalk.system.share import Share, look_at_set
from pagewalk.system.share_walks import Walked
from tests import kernel_says
from tests.live.bracket import look_again, smaller, working_sources
from tests.live.command import pagewalk_here
from tests.machine import prepared
from tests.targets import TARGETS, start

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif("ebpf" not in working_sources(), reason="nothing reads kernel memory here"),
]
NAMES = ("rss", "pss", "uss", "swap")
# What a walk of its own has more to say of, so that it is never in the crowd.
ALONE = {"vmas", "perf_ring", "packet_ring", "io_uring", "bpf_array", "leader_dead", "storm",
         "hugetlb_private", "hugetlb_shared", "hugetlb_fork", "hugetlb_pmd", "hugetlb_pud",
         "uffd_poison", "swap_shmem", "swap_mixed", "swap_huge"}


def processes(pids: tuple[int, ...]) -> list[Process]:
    return [Process(pid, "", "", 0, 0) for pid in pids]


@pytest.mark.parametrize("name", TARGETS)
def test_totals_are_those_of_a_walk_of_its_own(name: str) -> None:
    args = smaller(name, "ebpf")
    with prepared(*TARGETS[name].needs), start(name, *args, stopped=True) as one, start(
            "plain", stopped=True) as other:

        def look() -> set[int]:
            # The pages of libc are mapped and unmapped by others all the time.
            before = alone((*one.pids, other.pid))
            found = amounts_at_once(processes((*one.pids, other.pid)), "auto").amounts
            assert found == {pid: before[pid] for pid in found}
            assert before == alone(tuple(before))
            return set(found)

        found = look_again(look)
    assert other.pid in found
    assert name in ALONE or one.pid in found


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "storm"])
def test_what_a_set_shares_does_not_depend_on_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = at_once.READERS
    args = smaller(name, "ebpf")
    with prepared(*TARGETS[name].needs), start(name, *args, stopped=True) as one, start(
            "fork_cow", stopped=True) as other:
        chosen = choose(Wanted(pids=(*one.pids, *other.pids)))

        def look() -> None:
            told = []
            for way in (readers, {}, readers):
                monkeypatch.setattr(at_once, "READERS", way)
                told.append(told_of(look_at_set(chosen, LiveProcesses())))
            assert told[0] == told[2]
            assert told[0] == told[1]

        look_again(look)


def told_of(found: Share) -> dict[str, Any]:
    told = found._asdict()
    looked: Looked = told.pop("looked")
    return told | {
        "both": None if found.both is None else found.both.tolist(), "members": looked.members,
        "tried": looked.tried._replace(stall_ns=0)}


def test_what_a_set_shares_is_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # A memfd that ends with the set, and memory that each maps twice: all but one walked at once.
    with start("fork_cow", stopped=True) as one, start("memfd", stopped=True) as two:
        chosen = choose(Wanted(pids=(*one.pids, *two.pids)))

        def look() -> None:
            monkeypatch.setattr(Walked, "add", refuse)
            found = look_at_set(chosen, LiveProcesses())
            assert len(found.looked.members) == len(one.pids) + len(two.pids)

        look_again(look)


@pytest.mark.parametrize("name", ["plain", "fork_cow"])
def test_page_tables_are_those_that_the_kernel_counts(name: str) -> None:
    with start(name, stopped=True) as running:
        found = pagewalk_here("share", *running.pids, "--format", "json").json
        for row in found["members"]:
            said = kernel_says.read_status_kib(row["pid"])["VmPTE"]
            assert row["page_tables"] == said << 10


def refuse(*_: object) -> None:
    raise AssertionError("walked alone")


def alone(pids: tuple[int, ...]) -> dict[int, dict[str, int | None]]:
    found = {}
    for pid in pids:
        try:
            found[pid] = {key: pagewalk.table(pid).totals[key] for key in NAMES}
        except pagewalk.PagewalkError:
            continue
    return found


@pytest.mark.parametrize("source", ["ebpf", "kcore"])
def test_processes_do_not_depend_on_what_is_beside_them(source: str) -> None:
    if source not in working_sources():
        pytest.skip(f"{source} does not work here")
    with start("fork_cow", stopped=True) as one, start("shared_fork", stopped=True) as two:

        def look() -> None:
            pids = (*two.pids, *one.pids)
            together = amounts_at_once(processes(pids), source).amounts
            each = [amounts_at_once(processes((pid,)), source).amounts for pid in pids]
            assert set(together) == set(pids)
            assert together == {pid: row for found in each for pid, row in found.items()}

        look_again(look)


@pytest.mark.parametrize("sequence", [spaces._SEQUENCE, "none before 6.13"])
def test_whoever_changed_or_ended_meanwhile_is_told_from_the_others(
    sequence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spaces, "_SEQUENCE", sequence)
    code = "import mmap\nkept = [mmap.mmap(-1, 1 << 20) for line in open(0)]"
    words = [sys.executable, "-I", "-S", "-c", code]
    with start("plain", stopped=True) as still, start("plain") as ends, subprocess.Popen(
            words, stdin=subprocess.PIPE, text=True) as moves, subprocess.Popen(
            ["true"]) as gone:
        assert moves.stdin is not None
        gone.wait()

        def look() -> Crowd:
            pids = [still.pid, moves.pid, ends.pid]
            with open_crowd(running("ebpf"), pids, ask=True) as found:
                assert found.pids.tolist() == pids
                assert found.unchanged().all()
                return found

        found = look_again(look)
        moves.stdin.write("\n")
        moves.stdin.flush()
        os.kill(ends.pid, signal.SIGKILL)

        def changed() -> None:
            assert found.unchanged().tolist() == [True, False, False]

        look_again(changed)
        moves.stdin.close()


def test_trees_that_are_read_together_are_those_that_are_read_alone() -> None:
    with start("plain", stopped=True) as one, start("fork_cow", stopped=True) as two:
        with open_crowd(running("ebpf"), (one.pid, *two.pids), ask=False) as found:
            kernel = found.running.kernel
            roots = [kernel.field("mm_struct", mm, "mm_mt.ma_root")
                     for mm in found.spaces.mm.tolist()]
        slots, tree, whole = read_maple_trees(kernel, np.array(roots, np.uint64))
        assert whole.all() and len(roots) == 1 + len(two.pids)
        for row, root in enumerate(roots):
            alone, torn = read_maple_tree(kernel, root)
            assert len(torn) == 0
            for ours, theirs in zip(slots, alone, strict=True):
                np.testing.assert_array_equal(ours[tree == row], theirs)


def test_top_does_not_depend_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with start("fork_cow", stopped=True) as one:

        def look() -> None:
            told = []
            for readers in ({"auto": "ebpf"}, {}, {"auto": "ebpf"}):
                monkeypatch.setattr(at_once, "READERS", readers)
                told.append(pagewalk_here("top", *one.pids, "--format", "json").json)
                told[-1].pop("stall_ns")
            assert told[0] == told[2]
            assert told[0]["lines"] == told[1]["lines"]
            assert told[0]["source"] == told[1]["source"]

        look_again(look)
