"""Programs that people run, as sets: their sums close, and ending them frees what was said.

The witnesses are pagemap and kpagecount, frame by frame, and the memory cgroup of each program:
what it gains when one more worker is started, and what it loses when all of them are killed.
"""

from __future__ import annotations

import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.kernel_says import PAGE
from tests.live.bracket import look_again, working_sources
from tests.live.command import pagewalk_here
from tests.live.family_sums import LOOKS, Look, check_matrix, look_at
from tests.live.programs import (
    BACKENDS,
    LOADED,
    MIB,
    PROGRAMS,
    ROWS,
    WIDTH,
    WRITTEN,
    Family,
    members,
    unlinked,
    wait,
)
from tests.live.test_held import settled
from tests.machine import IN_GUEST, memory_cgroup
from tests.targets import stop

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(IN_GUEST, reason="so many programs take too long to start there"),
    pytest.mark.skipif("ebpf" not in working_sources(), reason="nothing reads kernel memory here"),
]
# Charged in advance, for each CPU: MEMCG_CHARGE_BATCH (mm/memcontrol.c)
ADVANCE = 64 * PAGE * (os.cpu_count() or 1)
WITH_WORKERS = ("postgresql", "gunicorn", "frozen", "loader", "unlinked")


class Charged(NamedTuple):
    """What a cgroup was charged: ``held`` is anonymous and shared memory, ``kernel`` objects."""

    held: int
    file: int
    kernel: int
    whole: int


class Seen(NamedTuple):
    """A program before and after one more worker was started, or one was killed.

    ``workers`` have all done the same. The cgroup was ``charged`` then, and when all were killed.
    """

    looks: tuple[Look, Look]
    workers: tuple[set[int], set[int]]
    charged: tuple[Charged, Charged, Charged]


def go_on(family: Family) -> None:
    for pid in family.pids:
        os.kill(pid, signal.SIGCONT)


def charges(groups: dict[str, Path]) -> dict[str, Charged]:
    """Return what cgroups are charged, when their counters stand still."""
    told = settled(groups)
    return {name: Charged(*told[name].values(), *whole(group)) for name, group in groups.items()}


def whole(group: Path) -> tuple[int, int]:
    if (group / "memory.usage_in_bytes").exists():
        names = ("memory.kmem.usage_in_bytes", "memory.usage_in_bytes")
        kernel, every = (int((group / name).read_text()) for name in names)
        return kernel, every
    rows = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(rows["kernel"]), int((group / "memory.current").read_text())


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, Seen]]:
    """Start all programs, look, start one more worker of each, look again, and kill them all."""
    with ExitStack() as stack:
        # /tmp may be a tmpfs, and PostgreSQL's user must get there.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        folder.chmod(0o755)
        groups = {name: stack.enter_context(memory_cgroup(name)) for name in PROGRAMS}
        running, families = stack.enter_context(ExitStack()), dict[str, Family]()
        for name, program in PROGRAMS.items():
            (folder / name).mkdir()
            families[name] = running.enter_context(program(groups[name], folder / name))
            if families[name].shared is not None:
                stack.callback(families[name].shared.unlink)
        first = {name: look_at(family) for name, family in families.items()}
        workers = {name: set(family.workers()) for name, family in families.items()}
        before = charges(groups)
        second = first | {name: changed(family) for name, family in families.items()
                          if family.one_more is not None}
        second["redis"] = without(families["redis"], first["redis"].found["children"][0]["pid"])
        at = charges(groups)
        result = {name: ((first[name], second[name]), (workers[name], set(family.workers())))
                  for name, family in families.items()}
        running.close()
        after = charges(groups)
    yield {name: Seen(*pairs, (before[name], at[name], after[name]))
           for name, pairs in result.items()}


def changed(family: Family) -> Look:
    """Look at a family again, after one more worker has started."""
    assert family.one_more is not None
    go_on(family)
    family.one_more()
    return look_at(family)


def without(family: Family, pid: int) -> Look:
    """Look at a family again, of which one process was killed while all stood still."""
    os.kill(pid, signal.SIGKILL)
    wait(lambda: pid not in members(family.group), f"{pid} to end")
    return look_at(family)


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest, seen: dict[str, Seen]) -> Seen:
    """Return each of the programs, whose members' and common sums were checked by look_at."""
    return seen[request.param]


def test_the_matrix_is_symmetric_and_counts_the_frames_of_each_pair(program: Seen) -> None:
    for look in program.looks:
        check_matrix(look)


def test_freed_is_what_the_cgroup_loses_when_all_are_killed(program: Seen) -> None:
    found, (_, at, after) = program.looks[-1].found, program.charged
    assert found["freed"] == at.held - after.held
    kernel = at.kernel - after.kernel
    assert kernel >= found["page_tables"]
    # The whole charge is that, the kernel's objects and page cache, but for what is in advance.
    told = found["freed"] + kernel + at.file - after.file
    assert abs(at.whole - after.whole - told) <= ADVANCE


@pytest.mark.parametrize("name", WITH_WORKERS)
def test_one_more_worker_costs_what_was_said(name: str, seen: dict[str, Seen]) -> None:
    (first, look), (before, after), (charged, more, _) = seen[name]
    (new,) = after - before
    gained = more.held - charged.held
    assert gained == (len(look.anonymous(*look.pids)) - len(first.anonymous(*first.pids))) * PAGE
    cost, old = ({row["pid"]: row["alone"] for row in one.found["children"]}
                 for one in (look, first))
    (row,) = [row for row in look.found["members"] if row["pid"] == new]
    assert cost[new] == row["freed"] + row["page_tables"]
    # Said was what one of the workers cost before; all of them have done the same.
    likely = [cost[pid] for pid in after] + [old[pid] for pid in before]
    assert min(likely) <= first.found["one_more"] <= max(likely)
    # The others write too, while it is started: to pages that all of them had, or one alone.
    assert abs(gained + row["page_tables"] - first.found["one_more"]) <= (
        max(likely) - min(likely) + abs(gained - row["freed"]))


def test_shared_buffers_are_held_once_however_many_have_read_them(seen: dict[str, Seen]) -> None:
    (look, _), (backends, _), _ = seen["postgresql"]
    shmem = {row["pid"]: row["shmem"] for row in look.found["members"]}
    assert len(backends) == BACKENDS
    assert all(shmem[pid] > ROWS * WIDTH for pid in backends)
    assert look.found["rss_sum"] > 5 * look.found["held"]
    (buffers,) = look.found["objects"]
    assert max(shmem.values()) <= buffers["resident"] < look.found["freed"] < look.found["held"]
    # Each worker maps them, and none frees them.
    assert all(child["alone"] < MIB * 4 for child in look.found["children"])


def test_the_copy_on_write_meter_of_a_server_that_saves(seen: dict[str, Seen]) -> None:
    (look, _), _, (before, at, _) = seen["redis"]
    (child,) = look.found["children"]
    (parent,) = set(look.pids) - {child["pid"]}
    ours, theirs = look.anonymous(parent), look.anonymous(child["pid"])
    assert child["parent"] == parent
    assert child["kept"] == len(ours & theirs) * PAGE
    assert sum(row["bytes"] for row in child["diverged"]) == len(theirs - ours) * PAGE
    # Of each page that the parent wrote to there are two now, and one when the child has ended. A
    # key is written every 40 keys, of some 300 bytes each: nearly each in a page of its own.
    freed = {row["pid"]: row["freed"] for row in look.found["members"]}
    assert freed[parent] == len(ours - theirs) * PAGE > WRITTEN * PAGE / 2
    assert freed[child["pid"]] == len(theirs - ours) * PAGE == before.held - at.held
    assert len(theirs - ours) > WRITTEN / 2


def test_gc_freeze_makes_one_more_worker_cheap(seen: dict[str, Seen]) -> None:
    thawed, frozen = (seen[name].looks[0].found for name in ("gunicorn", "frozen"))
    assert frozen["one_more"] < thawed["one_more"] / 4
    # The garbage collector wrote to all of the data in each of the workers.
    assert thawed["held"] > 2 * frozen["held"] and frozen["rss_sum"] > 3 * frozen["held"]


def test_a_batch_in_shared_memory_is_freed_once_it_has_no_name(seen: dict[str, Seen]) -> None:
    named, nameless = (seen[name].looks[0].found for name in ("loader", "unlinked"))
    assert named["objects"] == [] and named["freed"] < named["held"] - LOADED
    assert [row["resident"] for row in nameless["objects"]] == [LOADED]
    assert nameless["freed"] > LOADED
    assert seen["loader"].charged[2].held == LOADED  # it is still there
    assert nameless["held"] < 2 * LOADED < nameless["rss_sum"] / 2


def test_what_a_jvm_has_started_is_no_worker_of_it(seen: dict[str, Seen]) -> None:
    found = seen["java"].looks[0].found
    assert len(found["members"]) == 4
    assert found["children"] == [] and found["one_more"] is None


def test_the_processes_of_a_browser_come_from_its_zygotes(seen: dict[str, Seen]) -> None:
    found = seen["chromium"].looks[0].found
    assert len(found["members"]) > 5 and found["children"]
    assert found["rss_sum"] > 2 * found["held"]


# ---- MemFree


def free() -> int:
    """Return the bytes of RAM that are free, those in the CPUs' own lists too."""
    text = Path("/proc/zoneinfo").read_text()
    # Each CPU has counted up to the threshold of a zone on its own; reading this adds that up.
    Path("/proc/sys/vm/stat_refresh").read_bytes()
    lists = sum(map(int, re.findall(r"^ +count: +(\d+)$", text, re.MULTILINE)))
    (pages,) = re.findall(r"^nr_free_pages (\d+)$", Path("/proc/vmstat").read_text(), re.MULTILINE)
    return (int(pages) + lists) * PAGE


def test_free_memory_grows_by_what_was_freed(tmp_path: Path) -> None:
    with memory_cgroup("free") as group:

        def look() -> None:
            with unlinked(group, tmp_path, 512 * MIB) as family:
                stop(*family.pids)
                found = pagewalk_here("share", "--cgroup", group.name, "--format", "json").json
                kernel, _ = whole(group)
                begun, before = time.monotonic(), free()
            after, took = free(), time.monotonic() - begun
            others = moved_by_others(took)
            # Page tables are freed besides, and up to all other objects of the kernel for it.
            least = found["freed"] + found["page_tables"] - others
            assert least <= after - before <= found["freed"] + kernel + others
            assert others < found["freed"] / 4

        look_again(look, LOOKS)


def moved_by_others(seconds: float) -> int:
    """Return by how much free memory changes in ten times as long, at most, while we do nothing."""
    told = [free()]
    for _ in range(10):
        time.sleep(seconds)
        told.append(free())
    return max(told) - min(told)
