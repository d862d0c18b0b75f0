"""Each kind of charge, made by a real program, comes out as what the program did, to the byte."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pagewalk.proc.cgroups import find_hierarchy
from tests.live.charged import MIB, caches, charging, explained, files, group, mapped, sentences
from tests.live.command import pagewalk
from tests.live.test_inodes import mounted

pytestmark = pytest.mark.live
OWN = f"pagewalk-kinds-{os.getpid()}"
OLD = find_hierarchy().version == 1


def test_threads_are_stacks_and_tasks() -> None:
    with group(OWN) as where, charging(where, "threads", 200) as running:
        before = explained(where)
        assert running.step() == {"threads": 200}
        after = explained(where)
    assert caches(after)["task_struct"] - caches(before).get("task_struct", 0) == 200
    # THREAD_SIZE is 16 KiB; the kernel may give a new thread a stack that it kept (two a CPU,
    # NR_CACHED_STACKS in kernel/fork.c), and those are charged anew too (account_kernel_stack)
    stacks = after["kinds"]["kernel_stack"] - before["kinds"].get("kernel_stack", 0)
    assert stacks == 200 * (16 << 10)


def test_descriptors_are_objects_of_filp() -> None:
    with group(OWN) as where, charging(where, "descriptors", 5000) as running:
        before = explained(where)
        running.step()
        after = explained(where)
        told = pagewalk("explain", where.path).out
    assert caches(after)["filp"] - caches(before).get("filp", 0) == 5000
    assert " filp, 50" in told


def test_a_bpf_map_is_vmalloc() -> None:
    with group(OWN) as where, charging(where, "bpf_map", 4 * MIB) as running:
        before = explained(where)
        made = running.step()["bytes"]
        after = explained(where)
    assert after["kinds"]["vmalloc"] - before["kinds"].get("vmalloc", 0) == made > 4 * MIB


def test_page_tables_of_a_sparse_giant() -> None:
    with group(OWN) as where, charging(where, "tables", 4000) as running:
        before, tables = explained(where), running.facts["tables"]
        tables = running.step()["tables"] - tables
        after = explained(where)
        told = sentences(where)
    assert after["kinds"]["page_tables"] - before["kinds"].get("page_tables", 0) == tables
    assert tables >= 4000 * 4096
    assert "are kernel memory: page tables" in told


def test_buffers_of_unix_sockets_are_kernel_objects() -> None:
    with group(OWN) as where, charging(where, "unix_sockets", 50) as running:
        before = explained(where)
        sent = running.step()["bytes"]
        after = explained(where)
    assert sent > 0
    held = [found["kernel_pages"] + found["kernel_objects"] for found in (before, after)]
    assert held[1] - held[0] >= sent


def test_buffers_of_tcp_are_counted_by_the_kernel() -> None:
    with group(OWN) as where:
        if OLD:  # it counts them only where they have a limit
            (where.directory / "memory.kmem.tcp.limit_in_bytes").write_text(str(1 << 30))
        with charging(where, "tcp_sockets") as running:
            before = explained(where)["sockets"] or 0
            sent = running.step()["bytes"]
            after = explained(where)["sockets"]
    assert after - before >= sent > 0


def test_kernel_pages_that_are_mapped_are_told_as_mapped() -> None:
    with group(OWN) as where, charging(where, "rings", 32768) as running:
        before = explained(where)
        rings = running.step()
        after = explained(where)
        told = sentences(where)
    grown = mapped(after)["kernel"] - mapped(before).get("kernel", 0)
    # up to 6.9 the rings are mapped without their struct pages, and are not in the RSS
    assert grown == rings["bytes"] and rings["bytes"] in (0, rings["mapped"])
    assert after["kinds"]["kernel_other"] >= rings["mapped"] > 2 * MIB
    assert f"maps {sum(mapped(after).values()) >> 10} KiB of the " in told


def test_what_is_in_swap_is_told_beside_the_charge(prepare: Callable[..., None]) -> None:
    prepare("zram")
    with group(OWN) as where, charging(where, "swapped", 32 * MIB) as running:
        assert explained(where)["swap"] == running.facts["swap"] == 0
        swap = running.step()["swap"]
        assert swap > 0
        found = explained(where)
        assert found["swap"] == swap
        told = sentences(where)
    assert f"{swap >> 10} KiB more are in swap." in told


def test_huge_pages(prepare: Callable[..., None]) -> None:
    prepare("thp")
    with group(OWN) as where, charging(where, "huge", 8 * MIB):
        found = explained(where)
    assert found["kinds"]["anon_huge"] == 8 * MIB
    assert mapped(found)["anon"] >= 8 * MIB


def test_hugetlb_pages_are_mapped_and_charged_to_nobody(prepare: Callable[..., None]) -> None:
    prepare("hugetlb")
    with group(OWN) as where, charging(where, "hugetlb", 4):
        found = explained(where)
    assert "hugetlb_used" not in found["kinds"]
    [pages] = [row for row in found["mapped_uncharged"] if "hugepage" in row["name"]]
    assert pages == {"name": "/anon_hugepage (deleted)", "bytes": 8 * MIB}


def test_locked_memory_cannot_be_reclaimed() -> None:
    with group(OWN) as where, charging(where, "locked", 16 * MIB) as running:
        found = explained(where)
    assert running.facts["locked"] == 16 * MIB
    assert found["headroom"]["locked"] == 16 * MIB


def test_what_is_dirty_on_a_ramfs_is_locked_and_not_counted_as_dirty(tmp_path: Path) -> None:
    with mounted(tmp_path / "ramfs", "-t", "ramfs", "none") as ramfs, group(OWN) as where, \
            charging(where, "deleted", ramfs / "file", 16 * MIB):
        found = explained(where)  # which demands that nothing is unexplained
    [line] = [line for line in found["ledger"] if line["against"].endswith("dirty")]
    # what else is dirty is of the program's own start: less than what is on the ramfs
    assert line["ours"] < 16 * MIB <= found["headroom"]["locked"]


def test_memory_given_back_with_madv_free_can() -> None:
    with group(OWN) as where, charging(where, "lazyfree", 16 * MIB):
        found = explained(where)
    # The kernel marks pages in batches of 31 (PAGEVEC_SIZE, include/linux/pagevec.h); the last
    # batch may wait on the one CPU that the program ran on.
    assert 0 <= 16 * MIB - found["headroom"]["lazyfree"] <= 31 * 4096


def test_a_file_that_another_group_read_first(disk: Path) -> None:
    path = disk / "shared"
    with group(f"{OWN}-first") as first, group(f"{OWN}-second") as second:
        with charging(first, "written", path, 8 * MIB), charging(second, "maps", path):
            owner, user = explained(first), explained(second)
            told = pagewalk("explain", first.path).out
        assert files(owner)[str(path)]["cached"] == 8 * MIB
        assert mapped(owner)["file"] == 0
        assert {"kind": "file", "bytes": 8 * MIB} in owner["mapped_by_others_only"]
        [row] = [row for row in user["mapped_elsewhere"] if row["name"] == str(path)]
        assert row["bytes"] == 8 * MIB
        assert str(path) not in files(user)
        told = " ".join(told.split())
        assert re.search(r" 8192 \S+/shared ", told)
        assert "mapped, but not seen in a process of it: at most 8192 KiB" in told
