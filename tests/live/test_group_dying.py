"""Groups that were removed and live on, nested groups, and many of them."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pagewalk.proc.cgroup_numbers import read_numbers
from pagewalk.proc.cgroups import find_hierarchy
from tests.live.bracket import look_again
from tests.live.charged import MIB, Group, anonymous, caches, charging, explained, group
from tests.live.command import Ran, pagewalk
from tests.machine import fewer, remove_group

pytestmark = pytest.mark.live
OWN = f"pagewalk-dying-{os.getpid()}"
OLD = find_hierarchy().version == 1
MANY = 500
LIMIT = "memory.limit_in_bytes" if OLD else "memory.max"


def dying(path: str) -> dict[str, Any]:
    """Return what is said of a removed group, and in ``kept_by`` what keeps it."""
    ran = pagewalk("cgroups", "--dying", "--format", "json")
    assert ran.code == 0, ran.err
    [row] = [row for row in ran.json["cgroups"] if row["path"] == path]
    [kept] = [row["kept_by"] for row in ran.json["dying"] if row["path"] == path]
    return {**row, "kept_by": kept}


def is_dying(path: str) -> bool:
    ran = pagewalk("cgroups", "--dying", "--format", "json")
    assert ran.code == 0, ran.err
    return path in [row["path"] for row in ran.json["cgroups"]]


def test_a_file_keeps_a_removed_group_until_it_is_deleted(disk: Path) -> None:
    path = disk / "kept"
    with group(OWN) as where, charging(where, "written", path, 8 * MIB):
        pass
    found = dying(where.path)
    assert found["removed"] and found["file"] >= 8 * MIB
    assert f"8192 KiB of {path}" in found["kept_by"]
    path.unlink()

    # The kernel lets go of it in the background. Blocks of the disk that it wrote for the directory
    # and the inode are in cache still, and are files too.
    def look() -> None:
        if is_dying(where.path):
            found = dying(where.path)
            assert str(path) not in found["kept_by"] and found["file"] < 8 * MIB

    look_again(look)


def test_pages_of_a_process_that_moved_keep_a_removed_group() -> None:
    with (group(f"{OWN}-new") as after, group(f"{OWN}-old") as before,
          charging(before, "moved", after.procs, 8 * MIB) as running):
        running.step()
        remove_group(before.directory)
        found, moved = dying(before.path), explained(after)
        assert found["anon"] >= 8 * MIB and "of anonymous memory" in found["kept_by"]
        # neither version moves a charge: the new group maps what is not its own
        assert sum(row["bytes"] for row in moved["mapped_elsewhere"]) >= 8 * MIB
        assert moved["kinds"].get("anon", 0) < 8 * MIB

    def gone() -> None:
        assert not is_dying(before.path) or dying(before.path)["anon"] == 0

    look_again(gone)


def test_kernel_objects_go_to_the_parent_when_a_group_is_removed(tmp_path: Path) -> None:
    count = fewer(5000)
    with group(OWN) as above:
        with group("child", above) as where:
            with charging(where, "names", tmp_path, count) as running:
                running.step()
            held = caches(explained(where))["dentry"]
            assert held >= count
            # A file of it, so that the group lives on.
            kept = Path(f"/dev/shm/pagewalk-{os.getpid()}-kept")
            with charging(where, "written", kept, MIB):
                pass
        try:
            found = dying(where.path)
            assert caches(explained(above))["dentry"] >= count
        finally:
            kept.unlink()
    assert found["shmem"] == MIB
    assert found["kernel"] == 0 and "dentry" not in found["kept_by"]


def test_children_add_up_as_the_kernel_does() -> None:
    with nested() as (top, one, other, deep):
        (one.directory / LIMIT).write_text(str(64 * MIB))
        shared = f"/dev/shm/pagewalk-{os.getpid()}-other"
        with charging(deep, "anon", 12 * MIB), charging(other, "deleted", shared, 6 * MIB):
            whole, inner = explained(top), explained(one)
            tree = pagewalk("cgroups", "--format", "json").json["cgroups"]
    rows = {row["path"]: row for row in tree}
    assert whole["kinds"]["shmem_unmapped"] == 6 * MIB
    assert anonymous(inner) >= 12 * MIB
    assert inner["limit"] == 64 * MIB
    assert {row["path"] for row in whole["below"]} == {one.path, other.path}
    assert sum(row["charged"] for row in whole["below"]) <= whole["charged"]
    assert rows[top.path]["shmem"] == 6 * MIB == rows[other.path]["shmem"]
    assert rows[deep.path]["anon"] == rows[one.path]["anon"] >= 12 * MIB
    assert rows[top.path]["anon"] == rows[one.path]["anon"] + rows[other.path]["anon"]
    assert rows[one.path]["limit"] == 64 * MIB


@contextmanager
def nested() -> Iterator[tuple[Group, ...]]:
    """Make a group with two below it, and one more below the first of those."""
    with (group(OWN) as top, group("a", top) as one, group("b", top) as other,
          group("deep", one) as deep):
        yield top, one, other, deep


@contextmanager
def many(count: int) -> Iterator[Group]:
    """Make a group with ``count`` groups below it, in each of them its own limit."""
    with group(OWN) as above:
        control = above.directory / "cgroup.subtree_control"
        if not OLD:
            control.write_text("+memory")
        made = [above.directory / f"g{number}" for number in range(count)]
        try:
            for path in made:
                path.mkdir()
            yield above
        finally:
            for path in made:
                if path.exists():
                    remove_group(path)


def test_500_groups_are_listed_sorted_and_limited(tmp_path: Path) -> None:
    with many(MANY) as above, charging(Group(above.directory / "g7"), "anon", 16 * MIB):
        def listed(*options: object) -> Ran:
            ran = pagewalk("cgroups", *options)
            assert ran.code == 0, ran.err
            return ran

        every = listed("--format", "json").json["cgroups"]
        assert sum(row["path"].startswith(f"{above.path}/") for row in every) == MANY
        rows = list(csv.DictReader(io.StringIO(listed("--format", "csv").out)))
        assert {row["path"] for row in rows} == {row["path"] for row in every}
        by_anon = listed("--sort", "anon", "--format", "json").json["cgroups"]
        amounts = [row["anon"] for row in by_anon]
        assert amounts == sorted(amounts, reverse=True)
        assert f"{above.path}/g7" in [row["path"] for row in by_anon[:20]]
        first = listed("--sort", "path", "--limit", 3, "--format", "json").json["cgroups"]
        assert [row["path"] for row in first] == sorted(row["path"] for row in every)[:3]
        text = listed().out
        [more] = re.findall(r"(\d+) more: --limit (\d+) shows all", text)
        assert int(more[1]) - int(more[0]) == 20 and int(more[1]) > MANY


def test_charges_are_those_of_the_kernel() -> None:
    with group(OWN) as where, charging(where, "anon", 16 * MIB):
        def look() -> None:
            before = read_numbers(find_hierarchy(), where.path).current
            [row] = [row for row in pagewalk("cgroups", "--format", "json").json["cgroups"]
                     if row["path"] == where.path]
            assert before == read_numbers(find_hierarchy(), where.path).current == row["charged"]

        look_again(look)
