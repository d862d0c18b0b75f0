"""The recipes of docs/recipes: their commands run as printed, and what they claim is so.

Each runs on a process that has the very problem, made by tests/recipes.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pagewalk.proc.cgroups import find_hierarchy
from tests import recipes
from tests.kernel_says import read_cached
from tests.live.bracket import look_again, looking_again, working_sources
from tests.live.command import pagewalk, run
from tests.machine import MM, memory_cgroup, prepared, setting
from tests.recipes import MIB, PROBLEMS, Ran
from tests.targets import CannotProvoke

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif("ebpf" not in working_sources(), reason="nothing reads kernel memory here"),
]

# A partial result (3), a watch that timeout(1) has ended (124), and what find(1) says if a process
# has ended while it looked (1).
ENDED = {"timeout": {124}, "find": {0, 1}}

PAGE = os.sysconf("SC_PAGESIZE")
KHUGEPAGED = MM / "transparent_hugepage/khugepaged"


def totals(pid: int) -> dict[str, Any]:
    return dict(pagewalk(pid, "--format", "json").json["totals"])


@pytest.fixture(scope="module", params=PROBLEMS)
def recipe(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, list[Ran]]]:
    """Yield the name of a recipe, and what its commands printed."""
    with PROBLEMS[request.param](tmp_path_factory.mktemp("recipe")) as said:
        ran = recipes.run(request.param, **said)
    yield request.param, ran


def test_every_command_of_a_page_works(recipe: tuple[str, list[Ran]]) -> None:
    name, ran = recipe
    assert len(ran) == len(recipes.commands(name)) > 0
    for each in ran:
        assert each.out, each.block.text
        assert each.code in ENDED.get(each.block.text.split()[0], {0, 3}), each


def test_what_a_page_explains_is_on_the_screen(recipe: tuple[str, list[Ran]]) -> None:
    name, ran = recipe
    printed = " ".join(" ".join(each.out for each in ran).split())
    assert len(recipes.explained(name)) > 2
    assert [words for words in recipes.explained(name) if words not in printed] == []


def test_every_page_has_a_process_with_its_problem() -> None:
    assert {path.stem for path in recipes.FOLDER.iterdir()} == set(PROBLEMS)


# ---- "My RSS is 6 GB"


def test_rss_is_mostly_what_malloc_has_kept(tmp_path: Path) -> None:
    # Where every process gets huge pages, khugepaged soon fills again what was trimmed.
    with prepared("thp"), recipes.rss(tmp_path) as said:
        rss = totals(said["PID"])["rss"]
        heap = pagewalk("heap", said["PID"], "--format", "json").json
        recipes.run("rss", **said)  # gdb among them
        after = totals(said["PID"])["rss"]
    # To call a function in it, gdb makes it touch a few pages of its own and of libraries.
    assert abs(rss - after - heap["trim"]) < MIB
    assert heap["trim"] > rss / 2
    # Five blocks of 20 MB or 40 MB in all 120 MB, of which a hundredth is in use.
    assert heap["free"] > 100 * MIB > 10 * heap["in_use"]


def test_khugepaged_fills_what_was_trimmed_unless_it_is_told_not_to() -> None:
    pace, holes = KHUGEPAGED / "scan_sleep_millisecs", KHUGEPAGED / "max_ptes_none"
    with prepared("thp"), setting(pace, 10), setting(holes, 0), recipes.started(
        "reports.py", GLIBC_TUNABLES="glibc.malloc.hugetlb=1"  # malloc asks for huge pages
    ) as said:
        call = "call (int)malloc_trim(0)"
        run("gdb", "-p", said["PID"], "--batch", "-ex", call)
        trimmed = totals(said["PID"])
        wait_for_scans()
        assert totals(said["PID"])["rss"] == trimmed["rss"]
        holes.write_text("511")
        wait_for_scans()
        filled = totals(said["PID"])
    assert filled["anon_huge"] - trimmed["anon_huge"] > 16 * MIB
    assert filled["rss"] - trimmed["rss"] > 8 * MIB


def wait_for_scans() -> None:
    """Wait until khugepaged has looked at every process once more, from its beginning."""
    scans = KHUGEPAGED / "full_scans"
    first = int(scans.read_text())
    while int(scans.read_text()) < first + 2:
        time.sleep(0.05)


# ---- "Java takes more than -Xmx"


def test_direct_buffers_are_outside_the_java_heap(tmp_path: Path) -> None:
    with recipes.java(tmp_path) as said:
        rss = totals(said["PID"])["rss"]
        heap = pagewalk("heap", said["PID"], "--ask", "--format", "json").json
    asked = heap["asked"]
    (native,) = [kind["committed"] for kind in asked["native"] if kind["name"] == "Other"]
    # 120 buffers of 1 MiB, each a block of malloc, with a header and rounded to a page.
    assert 120 * MIB <= native < 121 * MIB <= heap["mmapped"]
    assert asked["heap_present"] <= 64 * MIB < 120 * MIB < rss - asked["heap_present"]


# ---- "What does one more worker cost?"


def test_the_parts_of_a_service_are_not_its_rss(tmp_path: Path) -> None:
    with recipes.workers(tmp_path) as said:
        pids = [said["PID"], *children(said["PID"])]
        parts = [totals(pid) for pid in pids]
    assert len(parts) == 5
    together = sum(part["pss"] for part in parts)
    # At least the objects are in each RSS and once in RAM, unless a worker has copied them.
    assert max(part["rss"] for part in parts) < together < sum(part["rss"] for part in parts) / 1.5


def test_freed_is_what_one_more_worker_costs(tmp_path: Path) -> None:
    with memory_cgroup("workers") as group, recipes.started("shop.py", group=group) as said:
        recipes.collect(said["PORT"], said["WORKER"])
        predicted = totals(said["WORKER"])["freed"]
        old = children(said["PID"])
        held, before = freed(old), charged(group)
        os.kill(said["PID"], signal.SIGTTIN)
        while not (new := children(said["PID"]) - old):
            time.sleep(0.01)
        recipes.collect(said["PORT"], *new)
        cost = charged(group) - before
        # Others may have answered, and collected garbage for the first time.
        cost -= freed(old) - held
    assert predicted > 5 * MIB
    # Page tables and the kernel's stack come on top, less than 1 MiB; what is charged in advance
    # (64 pages a CPU, MEMCG_CHARGE_BATCH) may have been there before, or not.
    assert abs(cost - predicted) < MIB + 64 * PAGE * (os.cpu_count() or 1)


def test_gc_freeze_makes_workers_cheap(tmp_path: Path) -> None:
    cost = {}
    for words in ((), ("freeze",)):
        with recipes.workers(tmp_path, *words) as said:
            cost[words] = totals(said["WORKER"])["freed"]
    assert cost["freeze",] < cost[()] / 4


def freed(pids: set[int]) -> int:
    return sum(totals(pid)["freed"] for pid in pids)


def children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def charged(group: Path) -> int:
    names = {"v1": "memory.usage_in_bytes", "v2": "memory.current"}
    return int((group / names[recipes.version()]).read_text())


# ---- "The sum of RSS is more than the machine has"


def test_the_sum_of_rss_is_more_than_the_limit_and_what_is_held_is_far_below(
    tmp_path: Path
) -> None:
    with recipes.sum_of_rss(tmp_path) as said:
        found = pagewalk("share", "--tree", said["PID"], "--format", "json").json
        charge = pagewalk("explain", "--cgroup", said["PID"], "--format", "json").json["charged"]
    assert found["rss_sum"] > said["LIMIT"] > charge
    assert found["rss_sum"] > 5 * found["held"] and found["one_more"] < 4 * MIB
    assert found["uss_sum"] < found["freed"] < found["held"]
    # PSS is what they hold, less the part of others in what these map too.
    assert found["held"] - found["elsewhere"]["bytes"] < found["pss_sum"] < found["held"]
    (buffers,) = found["objects"]
    assert max(row["shmem"] for row in found["members"]) <= buffers["resident"] < 64 * MIB


# ---- "Is my model in RAM?"


@looking_again  # reclaim may drop any of the file's pages, even while the process maps others
def test_a_model_is_in_three_places(tmp_path: Path) -> None:
    with recipes.model(tmp_path) as said:
        size = Path(said["MODEL"]).stat().st_size
        if read_cached(said["MODEL"]) == size:
            raise CannotProvoke(f"{tmp_path} is in RAM")
        maps = pagewalk("maps", said["PID"], "--format", "json").json

        def look() -> int:
            # The kernel may drop what was read ahead at any time.
            before = read_cached(said["MODEL"])
            ran = pagewalk("maps", said["PID"], "--cache", "--format", "json")
            [told] = [file for file in ran.json["files"] if file["name"] == said["MODEL"]]
            assert before == read_cached(said["MODEL"])
            assert (told["size"], told["mapped"], told["cached"]) == (size, size // 4, before)
            return before

        before = look_again(look)
        (row,) = [vma for vma in maps["vmas"] if vma["name"] == said["MODEL"]]
        freed = totals(said["PID"])["freed"]
        Path(said["MODEL"]).read_bytes()
        # A quarter was used; a second one was only read, and the kernel may have read ahead.
        assert row["rss"] == size // 4 and row["size"] == size and row["freed"] == 0
        assert size // 2 <= before < size
        assert read_cached(said["MODEL"]) == size
        assert totals(said["PID"])["freed"] == freed
    assert read_cached(said["MODEL"]) == size  # the process has ended


# ---- "The container was killed"


@pytest.mark.vmshort  # the host may have cgroup v1; the other kernels have v2
def test_the_memory_of_a_killed_container_was_in_no_rss(tmp_path: Path) -> None:
    with recipes.killed(tmp_path) as said:
        ran = {each.block.text: each.out for each in recipes.run("killed", **said)}
        status = Path(f"/proc/{said['PID']}/status").read_text()
    printed = "\n".join(ran.values())
    assert "oom_kill 1\n" in printed
    (shmem,) = re.findall(r"^shmem (\d+)$", printed, re.MULTILINE)
    assert int(shmem) >= 40 * MIB
    (rss,) = re.findall(r"VmRSS:\s+(\d+)", status)
    (freed,) = re.findall(r"ending the process frees (\d+) KiB", printed)
    assert int(rss) << 10 < 40 * MIB < int(freed) << 10


# ---- "Why is my container full?"


@pytest.mark.vmshort
@looking_again  # reclaim may drop pages of the log
def test_a_container_is_full_of_a_log_that_was_deleted(tmp_path: Path) -> None:
    with recipes.container(tmp_path) as said:
        group = Path(find_hierarchy().mount, said["CONTAINER"][1:])
        shared, before = shared_memory(group), charged(group)
        first, _, emptied, *_ = recipes.run("container", **said)
        after = charged(group)
    told = " ".join(first.out.split())
    assert f"charged, a limit of {128 * MIB >> 10} KiB" in told
    # The root of a guest is in RAM: there the log is a file of a tmpfs.
    kind = "shared memory that no process of it maps" if shared >= 64 * MIB else (
        "page cache of files that no process of it maps")
    assert re.search(rf"{kind}, {64 * MIB >> 10} KiB of it one file, \S*{said['LOG']} "
                     rf"\(deleted\), open in {said['PID']} python", told), told
    assert "unexplained 0" in told
    assert said["CONTAINER"] in emptied.out
    # Both may hold what is charged in advance: 64 pages a CPU (MEMCG_CHARGE_BATCH).
    assert before - after > 64 * MIB - 64 * PAGE * (os.cpu_count() or 1)


def test_what_keeps_a_removed_container_is_named(tmp_path: Path) -> None:
    with recipes.container(tmp_path) as said:
        dying = pagewalk("cgroups", "--dying", "--format", "json").json["dying"]
    # Of a test before there may be another that was called so.
    report = str(Path(said["LOG"]).with_name("report.csv"))
    assert [row for row in dying if row["path"] == said["JOB"] and report in row["kept_by"]]


def shared_memory(group: Path) -> int:
    names = {"v1": "total_shmem", "v2": "shmem"}
    stat = dict(row.split() for row in (group / "memory.stat").read_text().splitlines())
    return int(stat[names[recipes.version()]])


# ---- "Where did my RAM go?"


def test_ending_the_small_process_gives_more_back(tmp_path: Path) -> None:
    with ExitStack() as both:
        spool = both.enter_context(recipes.full(tmp_path))["PID"]
        model = both.enter_context(recipes.model(tmp_path))["PID"]
        small, large = totals(spool), totals(model)
        full = meminfo()
    if large["freed"] is None:
        raise CannotProvoke(f"{tmp_path} is in RAM: what its files free is withheld")
    assert small["rss"] < large["rss"] and small["freed"] > 160 * MIB > 10 * large["freed"]
    assert full["Shmem"] > 160 * MIB

    def given_back() -> None:
        # Others come and go meanwhile, but not with a quarter of it.
        assert full["Shmem"] - meminfo()["Shmem"] > 120 * MIB

    look_again(given_back)


def test_memory_that_nobody_maps_is_named_with_who_keeps_it(tmp_path: Path) -> None:
    with recipes.full(tmp_path) as said:
        kinds = pagewalk("ram", "--format", "json").json["kinds"]
        files = pagewalk("ram", "--files", "--format", "json").json["files"]
        _, screen, *_ = (each.out for each in recipes.run("full", **said))
    kept = [(file["inside"], file["cached"], file["mapped"]) for file in files
            if said["PID"] in [one["pid"] for one in file["kept_by"] or ()]]
    assert kept == [("memfd:spool", 160 * MIB, 0)]
    assert kinds["shmem_unmapped"] >= 160 * MIB
    assert f"memfd:spool, kept by {said['PID']} " in screen


def meminfo() -> dict[str, int]:
    rows = (row.split() for row in Path("/proc/meminfo").read_text().splitlines())
    return {row[0].rstrip(":"): int(row[1]) << 10 for row in rows if row[-1] == "kB"}
