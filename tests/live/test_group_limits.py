"""Limits and swap of groups, what only the kernel counts, and groups that are not their own."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pagewalk.proc.cgroups import find_hierarchy
from tests.live.bracket import look_again
from tests.live.charged import MIB, Group, charging, explained, group
from tests.live.command import Ran, one_sentence, pagewalk, run
from tests.machine import fewer, prepared, remove_group

pytestmark = pytest.mark.live
OWN = f"pagewalk-limits-{os.getpid()}"
OLD = find_hierarchy().version == 1
needs_version_2 = pytest.mark.skipif(OLD, reason="only cgroup v2 has it")
LIMIT = "memory.limit_in_bytes" if OLD else "memory.max"
# Version 1 limits memory and swap together.
BOTH, SWAP = "memory.memsw.limit_in_bytes", "memory.swap.max"


def limit(where: Group, memory: int, swap: int) -> None:
    """Limit what a group may have in memory and in swap, bytes."""
    (where.directory / LIMIT).write_text(str(memory))
    (where.directory / (BOTH if OLD else SWAP)).write_text(str(memory + swap if OLD else swap))


def give_memory(where: Group) -> None:
    """Give groups below the memory controller too."""
    if not OLD:
        (where.directory / "cgroup.subtree_control").write_text("+memory")


def line(found: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the line of the ledger for a line of memory.stat."""
    [row] = [row for row in found["ledger"] if row["against"] == f"memory.stat {name}"]
    return dict(row)


# ---- limits and swap


def test_limits_above_leave_so_much_room_in_swap(prepare: Callable[..., None]) -> None:
    prepare("zram")
    with group(OWN) as above, group("in", above) as where:
        limit(above, 64 * MIB, 24 * MIB)
        limit(where, 48 * MIB, 32 * MIB)
        with charging(where, "swapped", 16 * MIB) as running:
            swap = running.step()["swap"]
            found = explained(where)
            text = pagewalk("explain", where.path).out
    assert found["swap"] == swap > 0
    assert found["limit"] == 48 * MIB
    assert [(row["path"], row["limit"]) for row in found["above"]] == [
        (above.path, 64 * MIB), ("/", None)]
    # that of the group above it is the smaller one
    assert found["swap_room"] == 24 * MIB - swap
    assert f"limited above it too: {above.path} is charged" in " ".join(text.split())


@needs_version_2  # version 1 has a limit for both alone, which a pageout does not ask
def test_a_group_without_any_swap_is_told_so(prepare: Callable[..., None]) -> None:
    prepare("zram")
    with group(OWN) as where:
        limit(where, 64 * MIB, 0)
        with charging(where, "swapped", 16 * MIB) as running:
            assert running.step() == {"swap": 0}
            found = explained(where)
    assert found["swap"] == found["swap_room"] == 0
    assert found["headroom"]["swappable"] >= 16 * MIB


@needs_version_2
def test_what_zswap_keeps_is_charged_and_counted_by_the_kernel() -> None:
    with (prepared("zswap"), group(OWN) as where,
          charging(where, "swapped", 16 * MIB) as running):
        before = explained(where)
        swap = running.step()["swap"]

        def look() -> dict[str, Any]:
            found = explained(where)
            told = {name: where.stat(name) for name in ("percpu", "sock", "zswap")}
            assert found["counted_by_the_kernel"] == sum(told.values())
            assert told["zswap"] == int((where.directory / "memory.zswap.current").read_text())
            assert told["zswap"] > 0
            return found

        found = look_again(look)
        text = pagewalk("explain", where.path).out
    assert before["swap"] == 0 and found["swap"] == swap > 0
    assert re.search(r"^ *[1-9]\d* +zswap$", text, re.MULTILINE), text


# ---- what only the kernel counts


def test_per_cpu_memory_of_groups_below() -> None:
    key = "percpu_not_told" if OLD else "counted_by_the_kernel"
    with group(OWN) as where:
        give_memory(where)
        before = explained(where)[key]
        made = [where.directory / f"g{number}" for number in range(fewer(200))]
        try:
            for path in made:
                path.mkdir()
            after = explained(where)[key]
            told = None if OLD else where.stat("percpu")
        finally:
            for path in made:
                path.rmdir()
    assert after - before > 0
    assert told in (None, after)


@pytest.mark.vmshort
@needs_version_2
def test_each_line_of_memory_stat_is_compared() -> None:
    with group(OWN) as where, charging(where, "threads", 50) as running:
        before = explained(where)
        running.step()
        after = explained(where)
    told = {row["against"] for row in after["ledger"]}
    assert told >= {f"memory.stat {name}" for name in (
        "anon", "file", "shmem", "kernel_stack", "pagetables", "vmalloc", "slab_reclaimable",
        "slab_unreclaimable", "swapcached", "anon_thp", "file_mapped", "unevictable")}
    grown = line(after, "kernel_stack")["ours"] - line(before, "kernel_stack")["ours"]
    assert grown == 50 * (16 << 10)  # THREAD_SIZE
    assert line(after, "pagetables")["ours"] == after["kinds"]["page_tables"] > 0


# ---- groups that are not their own


@needs_version_2
def test_a_threaded_group_is_charged_to_the_one_above() -> None:
    with group(OWN) as where, charging(where, "threads", 5) as running:
        running.step()
        below = where.directory / "threaded"
        below.mkdir()
        try:
            (below / "cgroup.type").write_text("threaded")
            thread = max(map(int, os.listdir(f"/proc/{running.pid}/task")))
            (below / "cgroup.threads").write_text(str(thread))
            ran = pagewalk("explain", f"{where.path}/threaded")
            listed = pagewalk("cgroups", "--format", "json").json["cgroups"]
            found = explained(where)
        finally:
            (where.directory / "cgroup.threads").write_text(str(thread))
            below.rmdir()
    assert ran.code == 2
    assert f"is charged to {where.path}; explain that" in one_sentence(ran)
    assert f"{where.path}/threaded" not in [row["path"] for row in listed]
    assert [process["pid"] for process in found["processes"]] == [running.pid]


def test_the_root_is_the_sum_of_its_rows() -> None:
    def look() -> None:
        ran = pagewalk("explain", "--cgroup", "/", "--format", "json")
        assert ran.code in (0, 3), ran.err  # a process may refuse to be looked at
        found = ran.json
        assert found["charged"] is None and found["limit"] is None
        assert [row for row in found["ledger"] if row["unexplained"]] == []
        assert found["pages"] + found["kernel_pages"] == sum(found["kinds"].values())

    with group(OWN) as where, charging(where, "anon", 8 * MIB):
        look_again(look, 3)
        ran = pagewalk("explain", "--cgroup", "/")
        assert "cgroup /" in ran.out and where.path in " ".join(ran.out.split())


def in_namespace(command: str) -> Ran:
    """Run a command of a shell in a group, in a cgroup namespace that begins above that.

    The group is /in there, and ``{group}`` in the command its directory here.
    """
    with group(OWN) as where:
        inner = where.directory / "in"
        inner.mkdir()
        # A process may not be beside groups that have the controller of version 2.
        enter = f"echo 0 > {inner}/cgroup.procs"
        if not OLD:
            enter += f" && echo +memory > {where.directory}/cgroup.subtree_control"
        words = f"{enter} && {command.format(group=inner)}"
        join = f"echo 0 > {where.procs} && exec unshare --cgroup --mount sh -c '{words}'"
        try:
            return run("sh", "-c", join)
        finally:
            remove_group(inner)


def test_in_a_cgroup_namespace_paths_are_its_own(tmp_path: Path) -> None:
    kind, explain = "cgroup -o memory" if OLD else "cgroup2", "-m pagewalk explain --cgroup"
    mount = f"mount -t {kind} none {tmp_path}"
    for word in ("/in", "in", "$$"):
        ran = in_namespace(f"{mount} && {sys.executable} {explain} {word} --format json")
        assert ran.code == 0, ran.err
        assert ran.json["cgroup"]["path"] == "/in" and ran.json["processes"]
        assert [row for row in ran.json["ledger"] if row["unexplained"]] == []
    # What is mounted begins above it: no path that it knows leads there.
    ran = in_namespace(f"{sys.executable} {explain} $$")
    assert ran.code == 1 and "/in is not below /.." in one_sentence(ran)
    ran = in_namespace(f"{sys.executable} {explain} {{group}}")
    assert ran.code == 0 and f"/../{OWN}/in" in ran.out, ran.err
