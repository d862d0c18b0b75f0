"""What a process holds, each frame once, and what is freed when it ends: checked by ending it.

The first is compared with pagemap, sorted; the second with the memory cgroup in which the process
is alone: its counters of anonymous memory and shmem, before and after, tolerance 0.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import pagewalk as library
from pagewalk.account.smaps import by_field
from pagewalk.account.table import Table
from pagewalk.model.columns import Backing
from pagewalk.proc import objects
from pagewalk.proc.kernel import release
from tests import kernel_says
from tests.kernel_says import PAGE
from tests.live.bracket import living_thread, working_sources
from tests.live.command import pagewalk, run
from tests.live.holder import HUGE, IPC_RMID, MIB, SIZE
from tests.machine import MachineLacks, memory_cgroup, prepared
from tests.targets import TARGETS, start

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif("ebpf" not in working_sources(), reason="nothing reads kernel memory here"),
]

HOLDER = Path(__file__).with_name("holder.py")
KPF_ZERO = kernel_says.KPF_ZERO
# memory.stat is updated every two seconds (FLUSH_TIME, mm/memcontrol.c).
FLUSHED = 2.2
LOOKS = 10
KINDS = ("thrice", "reader", "family", "named", "gone", "unmapped", "lent", "mapped_by_child",
         "shared_anonymous", "removed", "left", "attached_twice")


# ---- distinct: against pagemap, sorted


def frames_of(pid: int) -> int:
    """Return how many bytes of RAM a process maps, each frame once, by pagemap alone."""
    parts = [np.zeros(0, np.uint64)]
    for vma in kernel_says.read_smaps(pid):
        # Neither a PFN map nor a driver's special pages are in smaps.
        if vma.start >= 1 << 63 or not any(
            vma.fields.get(name) for name in ("Rss", "Shared_Hugetlb", "Private_Hugetlb")
        ):
            continue
        entry = kernel_says.read_pagemap(pid, vma.start, vma.end)
        parts.append(entry[entry & kernel_says.PRESENT != 0] & kernel_says.PFN)
    frames = np.unique(np.concatenate(parts))
    return int((kernel_says.read_folio_flags(frames) & KPF_ZERO == 0).sum()) * PAGE


@pytest.mark.parametrize("source", working_sources())
@pytest.mark.parametrize(
    "name",
    ["plain", "fork_cow", "fork_three", "memfd", "tmpfs", "sysv", "thp_part", "thp_split", "ksm",
     "shmem_thp", "file_thp", "huge_zero", "hugetlb_fork", "hugetlb_private", "hugetlb_pmd",
     "swap_forked", "python"],
)
def test_distinct_is_the_number_of_different_frames_in_pagemap(name: str, source: str) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:
        for pid in running.pids:
            said = living_thread(pid)
            for _ in range(LOOKS):  # khugepaged and compaction move even a stopped process's pages
                before = frames_of(said)
                table = library.table(pid, source=source)
                if before == frames_of(said) == table.totals["distinct"]:
                    break
            assert table.totals["distinct"] == before
            check_bounds(table)


def check_bounds(table: Table) -> None:
    totals = {name: amount or 0 for name, amount in table.totals.items()}
    assert totals["distinct"] <= totals["rss"] + totals["hugetlb"]
    assert totals["freed"] <= totals["distinct"] + (table.unmapped or 0)
    assert table.columns["distinct"] is not None
    assert int(table.columns["distinct"].sum()) == totals["distinct"]


def test_every_way_of_summing_gives_the_same() -> None:
    with holding("thrice") as (pid, _), holding("family") as (other, _):
        for each in (pid, other):
            tables = [library.table(each, source=source) for source in ("ebpf", "procfs")]
            tables.append(by_field(library.walk(each, source="ebpf")))
            for table in tables[1:]:
                np.testing.assert_array_equal(table.columns["distinct"],
                                              tables[0].columns["distinct"])


# ---- freed: against the memory cgroup


@contextmanager
def holding(
    kind: str, group: Path | None = None, before: tuple[str, ...] = ()
) -> Iterator[tuple[int, list[str]]]:
    """Start holder.py alone in a memory cgroup, and kill it and its children at the end.

    ``before`` are words in front of it, as of unshare.
    """
    words = [*before, sys.executable, "-I", "-S", str(HOLDER), kind]
    if group is not None:
        words = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs"), *words]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    said: list[str] = []
    try:
        assert process.stdout is not None
        while (line := process.stdout.readline().decode().strip()) != "ready":
            assert line, f"{kind} ended: {process.wait()}"
            said.append(line)
        yield process.pid, said
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if kind == "left":
            ctypes.CDLL(None).shmctl(int(said[0]), IPC_RMID, None)
        Path(f"/dev/shm/pagewalk-{process.pid}").unlink(missing_ok=True)


def charged(group: Path) -> dict[str, int]:
    """Return a memory cgroup's bytes of anonymous memory and of shmem, and of the page cache."""
    # On a slow machine the update may come late. Reading cpu.stat of a v2 cgroup makes it at once
    # in 6.1 and 6.12; in 6.18 each controller has its own (kernel/cgroup/rstat.c).
    with suppress(FileNotFoundError):
        (group / "cpu.stat").read_bytes()
    lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
    stat = {key: int(value) for key, value in lines}
    old = "rss" in stat  # cgroup v1
    cache = stat["cache"] if old else stat["file"]
    return {"held": stat["rss" if old else "anon"] + stat["shmem"], "file": cache - stat["shmem"]}


class Ended(NamedTuple):
    """A process that was ended: the predicted freed, and how much its cgroup shrank."""

    table: Table
    freed: int | None
    held: int
    file: int


def settled(groups: dict[str, Path]) -> dict[str, dict[str, int]]:
    before: dict[str, dict[str, int]] = {}
    for _ in range(LOOKS):
        now = {kind: charged(group) for kind, group in groups.items()}
        if now == before:
            break
        before = now
        time.sleep(FLUSHED)
    return before


@pytest.fixture(scope="module")
def ended() -> Iterator[dict[str, Ended]]:
    """Start a process of each kind in its own cgroup, walk each, end each, count again."""
    with ExitStack() as stack:
        try:
            groups = {kind: stack.enter_context(memory_cgroup(kind)) for kind in KINDS}
        except MachineLacks as lacks:
            pytest.skip(str(lacks))
        pids = {kind: stack.enter_context(holding(kind, groups[kind]))[0] for kind in KINDS}
        before = settled(groups)
        tables = {kind: library.table(pid) for kind, pid in pids.items()}
        assert settled(groups) == before
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
        for pid in pids.values():
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        after = settled(groups)
        yield {
            kind: Ended(
                table, table.totals["freed"],
                *(before[kind][name] - after[kind][name] for name in ("held", "file")),
            )
            for kind, table in tables.items()
        }


@pytest.mark.parametrize("kind", KINDS)
def test_freed_is_what_the_cgroup_loses(ended: dict[str, Ended], kind: str) -> None:
    found = ended[kind]
    assert found.freed == found.held
    # And the page cache does not change.
    assert found.file == 0
    check_bounds(found.table)


def test_uss_is_not_what_is_freed(ended: dict[str, Ended]) -> None:
    # The two flaws of USS that distinct and freed exist for.
    thrice, reader = ended["thrice"].table.totals, ended["reader"].table.totals
    assert (thrice["freed"] or 0) - (thrice["uss"] or 0) > SIZE // 2
    assert (thrice["rss"] or 0) - (thrice["distinct"] or 0) >= 2 * SIZE
    assert (reader["file"] or 0) > MIB


AMOUNTS = {  # of the object: in RAM, mapped by the process, whether it ends with it
    "thrice": (SIZE, SIZE, True),
    "named": (SIZE, SIZE // 2, False),
    "gone": (SIZE, SIZE // 2, True),
    "unmapped": (SIZE, 0, True),
    "lent": (SIZE, SIZE // 2, False),
    "mapped_by_child": (SIZE, SIZE, False),
    "shared_anonymous": (SIZE, SIZE, True),
    "removed": (SIZE // 2, SIZE // 2, True),
    "left": (SIZE // 2, SIZE // 2, False),
    "attached_twice": (SIZE // 2, SIZE // 2, False),
}


@pytest.mark.parametrize("kind", AMOUNTS)
def test_an_object_is_reported_with_how_much_is_mapped(ended: dict[str, Ended], kind: str) -> None:
    table = ended[kind].table
    (row,) = table.holdings or []
    assert (row.resident, row.mapped, row.ends) == AMOUNTS[kind]
    assert table.unmapped == row.unmapped == row.resident - row.mapped


def test_a_segment_with_inode_0_is_an_object_too() -> None:
    # The first of an IPC namespace: its inode is its id.
    with holding("removed", before=("unshare", "--ipc")) as (pid, _):
        table = library.table(pid)
    (row,) = [row for row, name in enumerate(table.vmas.name) if name.startswith("/SYSV")]
    assert (table.vmas.inode[row], table.vmas.backing[row]) == (0, Backing.SHMEM)
    assert [held.resident for held in table.holdings or []] == [SIZE // 2]


def free_huge_pages() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("HugePages_Free:")]
    return int(line.split()[1])


def test_hugetlb_pages_go_back_to_their_pool() -> None:
    with prepared("hugetlb"):
        with holding("hugetlb") as (pid, _):
            before = free_huge_pages()
            table = library.table(pid, source="ebpf")
        after = free_huge_pages()
    assert table.columns["freed"] is not None
    huge = table.vmas.backing == Backing.HUGETLB
    mapped = int(table.columns["freed"][huge].sum())
    rows = {row.name.split(" ")[0]: row for row in table.holdings or [] if row.resident}
    assert mapped == 3 * HUGE
    assert rows["/memfd:huge"].unmapped == table.unmapped == HUGE
    assert (after - before) * HUGE == mapped + HUGE


def test_an_objects_swapped_pages_are_not_in_ram() -> None:
    with prepared("zram"), start("swap_shmem", stopped=True) as running:
        table = library.table(running.pid)
    if release() < (6, 5):  # no cachestat(2)
        assert table.unmapped is None
        assert any("cachestat" in row.why for row in table.outcome.withheld)
        return
    fact = running.facts["shared"]
    row = max(table.holdings or [], key=lambda row: row.resident)
    assert row.resident == fact["shmem"] * PAGE
    assert row.mapped == row.resident


# ---- how it is reported


def document(*args: object) -> dict[str, Any]:
    ran = pagewalk(*args, "--format", "json")
    found: dict[str, Any] = ran.json
    return found


def test_the_first_screen_names_what_is_held_but_not_mapped() -> None:
    with holding("unmapped") as (pid, _):
        screen = " ".join(pagewalk("show", pid).out.split())
        found = {name: document(name, pid) for name in ("show", "maps", "explain")}
    assert "held but not mapped: 4096 KiB of /memfd:unmapped (deleted) (freed on exit)" in (
        screen
    )
    for name, said in found.items():
        assert said["unmapped"]["bytes"] == SIZE, name
        (row,) = said["unmapped"]["objects"]
        assert (row["name"], row["unmapped"], row["ends"]) == (
            "/memfd:unmapped (deleted)", SIZE, True,
        )
    assert found["explain"]["freed"] == found["show"]["totals"]["freed"] > SIZE


def test_a_source_that_does_not_know_says_so() -> None:
    with holding("unmapped") as (pid, _):
        said = document("show", pid, "--source", "procfs")
    assert said["unmapped"]["bytes"] == SIZE
    assert said["unmapped"]["objects"][0]["ends"] is said["totals"]["freed"] is None
    assert any("who else holds /memfd:unmapped" in row["why"] for row in said["withheld"])


DROPPED = (sys.executable, "-m", "tests.live.dropped", "--user", "65534")


def test_a_user_sees_what_their_own_process_holds() -> None:
    words = [sys.executable, "-c", USERS]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            said = json.loads(run(*DROPPED, "show", process.pid, "--format", "json").out)
        finally:
            process.kill()
    (row,) = said["unmapped"]["objects"]
    assert (row["resident"], row["mapped"]) == (MIB, 0)
    assert said["unmapped"]["bytes"] == MIB
    assert said["totals"]["distinct"] is said["totals"]["freed"] is None


USERS = """
import os, sys
sys.path[:0] = [os.getcwd()]
from tests.live.dropped import become
become(65534)
os.write(os.memfd_create("own"), b"x" * (1 << 20))
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_process_with_too_many_files_is_searched_only_in_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(objects, "MOST_FILES", 2)
    with holding("unmapped") as (pid, _):
        table = library.table(pid)
    assert table.unmapped is table.totals["freed"] is None
    assert any("too many open files" in reason for reason in table.outcome.partial)
