"""Rows about RAM, files, caches and cgroups add up to what they are rows of."""

from __future__ import annotations

from pagewalk.history import machine_rows as rows
from pagewalk.history.hidden import Hidden
from pagewalk.proc.cgroup_numbers import GroupNumbers
from pagewalk.snapshot.schema import RECORDS
from pagewalk.system.containers import Name
from pagewalk.system.files import Amounts, Charge, FilesReport, FilesTotal, Sort
from pagewalk.system.slabs import Cache
from pagewalk.system.slabs import Charge as ObjectCharge
from tests.system import by_hand

MIB = 1 << 20


def test_parts_of_ram_add_up() -> None:
    found = list(rows.ram_rows(by_hand.ram().parts or {}))
    assert sum(row["size"] for row in found) == 24 * MIB
    assert {row["state"] for row in found} == {
        "processes", "cache", "shared", "kernel", "free", "boot"}


def test_files_and_the_rest_of_their_sort_add_up() -> None:
    none = FilesTotal(0, Amounts(0, 0, 0, 0, 0))
    listed = (by_hand.file(Sort.FILE, "/a", 3 * MIB, MIB, charges=(Charge(0, MIB), Charge(9, 7))),
              by_hand.file(Sort.TMPFS, "/b", MIB))
    totals = dict.fromkeys(Sort, none) | {
        Sort.FILE: FilesTotal(5, Amounts(10 * MIB, 2 * MIB, 5, 6, 7)),
        Sort.TMPFS: FilesTotal(1, Amounts(MIB, 0, 0, 0, 0))}
    first, second, rest = rows.file_rows(FilesReport(listed, totals, {}, True), {9: "/app"})
    assert (first["name"], first["cgroup"], first["charged"]) == ("/a", "/app", 7)
    assert "cgroup" not in second and second["state"] == "tmpfs"
    assert rest == {"of_cgroup": None, "state": "file", "items": 4, "size": 7 * MIB, "mapped": MIB,
                    "dirty": 5, "active": 6, "huge": 7}


def test_what_is_withheld_of_a_file_is_withheld_of_the_rest() -> None:
    totals = {Sort.FILE: FilesTotal(2, Amounts(2, 0, 0, 0, None))}
    *_, rest = rows.file_rows(FilesReport((), totals, {}, True), {})
    assert rest["huge"] is None and rest["items"] == 2


def test_a_cache_has_who_is_charged_most() -> None:
    charges = (ObjectCharge(None, 3, 30), ObjectCharge("/app", 1, 10))
    caches = (Cache("dentry", 8192, 192, 2, 42, 40, 41, True, charges),
              Cache(None, 4096, 64, 1, 64, 1, 1, False, None))
    first, second = rows.cache_rows(caches)
    assert (first["cgroup"], first["charged"], first["reclaimable"]) == (None, 30, 8192)
    assert second == {"name": None, "size": 4096, "unit": 64, "items": 1, "reclaimable": 0}


def test_cgroups_as_a_tree_with_limits() -> None:
    names = {"/db": Name("container", "web", "docker")}
    found = list(rows.group_rows(by_hand.group_table(), names))
    assert [(row["cgroup"], row["parent"], row["allowed"], row["removed"]) for row in found] == [
        ("/", None, None, 0), ("/app", 100, 16 * MIB, 0), ("/db", 100, None, 0),
        ("/app/old", 101, None, 1)]
    assert (found[2]["state"], found[2]["name"]) == ("container", "web")
    assert found[0]["state"] == "cgroup"
    assert found[1]["size"] == 11 * MIB and found[1]["anon"] == 2 * MIB


def test_the_parts_of_one_cgroup() -> None:
    group = by_hand.group()
    found = rows.one_group(group, Name("unit", "app.service", "systemd"))
    (row,) = found["group"]
    assert row["size"] == 11 * MIB and row["allowed"] == 16 * MIB and row["state"] == "unit"
    held = row["anon"] + row["file"] + row["shmem"] + row["kernel"]
    assert held == sum(part["size"] for part in found["ram"]) + sum(
        one["size"] for one in found["cache"])
    assert row["unmapped"] == 7 * MIB
    assert {one["of_cgroup"] for kind in ("ram", "cache", "file") for one in found[kind]} == {
        group.path}


def test_a_cgroup_that_was_only_counted() -> None:
    stat = {"total_rss": 5 * MIB, "total_rss_huge": 2 * MIB, "total_cache": 4 * MIB,
            "total_shmem": MIB, "total_swap": 7 * MIB}
    numbers = GroupNumbers(current=11 * MIB, limit=16 * MIB, kmem=2 * MIB, stat=stat)
    found = rows.Counted("/app", 9, Name("unit", "app.service"), 1, numbers)
    row = rows.counted_group(found, Hidden(physical=False, scrub=False))
    assert row.keys() <= set(RECORDS["group"])
    held = [row[name] for name in ("size", "allowed", "anon", "file", "shmem", "kernel", "swap")]
    assert held == [one * MIB for one in (11, 16, 5, 3, 1, 2, 7)]
    assert (row["cgroup"], row["inode"], row["state"], row["name"]) == (
        "/app", 9, "unit", "app.service")
    scrubbed = rows.counted_group(found, Hidden(physical=False, scrub=True))
    assert "app" not in f"{scrubbed['cgroup']} {scrubbed['name']}" and scrubbed["anon"] == 5 * MIB
    untold = rows.Counted("/app", 9, Name("cgroup", "app"), 2, GroupNumbers(current=MIB))
    row = rows.counted_group(untold, Hidden(physical=False, scrub=False))
    assert row["size"] == MIB and {row[name] for name in ("allowed", "anon", "file", "shmem",
                                                          "kernel", "swap")} == {None}


def test_rows_have_the_columns_of_their_kind_only() -> None:
    found = rows.one_group(by_hand.group(), Name("", "x")) | {
        "group": list(rows.group_rows(by_hand.group_table(), {}))}
    for record, listed in found.items():
        for row in listed:
            assert row.keys() <= set(RECORDS[record])
        columns = rows.columns(listed, RECORDS[record])
        assert {len(column) for column in columns.values()} == {len(listed)}
