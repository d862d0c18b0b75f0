"""A cgroup on a screen, in JSON and in CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from pagewalk.account.ledger import Cause
from pagewalk.model.columns import Withheld
from pagewalk.proc.cgroup_numbers import UNLIMITED, GroupNumbers
from pagewalk.proc.cgroups import SOCKETS
from pagewalk.proc.places import Place
from pagewalk.render import group_words, view
from pagewalk.render.group_words import changed, in_advance, rows, working_set
from pagewalk.system.files import Sort
from pagewalk.system.group import Dying, Group
from tests.render import written
from tests.render.written import MIB
from tests.system.by_hand import file, group


def kinds(anon: int, file: int, shmem: int, kernel: int = 0) -> dict[str, int]:
    """Return bytes by kind, as in Group.mapped."""
    return {"anon": anon, "file": file, "shmem": shmem, "kernel": kernel}


def said(**changed: Any) -> str:
    return " ".join(group_words.answers(group(**changed)))


def wrote(format_name: str, found: Group) -> str:
    out = io.StringIO()
    view(format_name, "group")(found, written.arguments("group")[1], out)
    return out.getvalue()


def test_rows_add_up_to_the_charge() -> None:
    found = group()
    whole = sum(row.charged for row in rows(found) if not row.depth)
    assert whole == found.numbers[-1].current == 11 * MIB
    for title in ("anonymous memory", "files in cache", "shared memory", "kernel memory"):
        [at] = [at for at, row in enumerate(rows(found)) if row.what == title]
        below = []
        for row in list(rows(found))[at + 1 :]:
            if not row.depth:
                break
            below.append(row.charged)
        assert sum(below) == list(rows(found))[at].charged


def test_the_first_sentence_says_who_holds_it() -> None:
    assert said().startswith("Its only process maps 3072 KiB of the 11264 KiB that are charged")
    assert said(processes=()).startswith("No process is in it, and 11264 KiB are charged to it.")


def test_of_what_no_process_maps_the_file_that_has_most_is_named() -> None:
    # The largest file is mapped whole; the one that nobody maps is smaller, and it is all of it.
    files = group().files
    assert files is not None
    both = (file(Sort.FILE, "/srv/model", 5 * MIB, 5 * MIB),
            file(Sort.DELETED, "/var/log/app.log", 3 * MIB, nlink=0))
    text = said(files=files._replace(files=both), mapped=kinds(0, 2 * MIB, 0))
    assert ("3072 KiB are page cache of files that no process of it maps, 3072 KiB of it one file,"
            " /var/log/app.log (deleted)") in text


def test_a_deleted_file_in_shared_memory_stays_until_it_is_closed() -> None:
    files = group().files
    assert files is not None
    one = (file(Sort.DELETED, "/dev/shm/x", 3 * MIB, nlink=0, file_system="tmpfs"),)
    text = said(files=files._replace(files=one), mapped=kinds(0, 5 * MIB, 0))
    assert "/dev/shm/x (deleted); it stays until closed." in text


@pytest.mark.parametrize(("held", "told"), [(11 * MIB, True), (11 * MIB - 1, False)])
def test_what_others_are_charged_for_is_said_if_it_is_as_much_as_the_charge(
    held: int, told: bool
) -> None:
    elsewhere = {"/usr/lib/x.so": held - 3 * MIB, "": MIB, "b": MIB, "c": MIB - 1, "d": 1}
    all_of_it = {"anon": 2 * MIB, "file": 5 * MIB, "shmem": 3 * MIB, "kernel": 0}
    text = said(elsewhere=elsewhere, mapped=all_of_it)
    assert "Its processes map" not in said(elsewhere=elsewhere)  # another thing stands out
    assert ("Its processes map 11264 KiB that others are charged for: /usr/lib/x.so 8192 KiB,"
            " anonymous memory 1024 KiB, b 1024 KiB, 2 others." in text) == told


def test_the_largest_of_what_no_process_maps_is_named() -> None:
    # 4 MiB of files, 3 of them one deleted file; 3 MiB of shared memory
    assert ("4096 KiB are page cache of files that no process of it maps, 3072 KiB of it one"
            " file, /var/log/app.log (deleted), open in 812 java.") in said()
    shared = said(mapped=kinds(2 * MIB, 5 * MIB, 0))
    assert ("3072 KiB are shared memory that no process of it maps, 3072 KiB of it one file,"
            " memfd:cache (never had a path); it stays until deleted and closed.") in shared


def test_small_things_are_not_worth_a_sentence() -> None:
    everything = kinds(2 * MIB, 5 * MIB, 3 * MIB)
    assert len(list(group_words.answers(group(mapped=everything)))) == 2


def test_kernel_memory_and_removed_groups_get_a_sentence() -> None:
    mapped = kinds(2 * MIB, 5 * MIB, 3 * MIB)
    parts = group().parts | {"page_tables": 2 * MIB}  # beside 64 and 384 KiB
    assert "2496 KiB are kernel memory: page tables 2048 KiB" in said(mapped=mapped, parts=parts)
    assert ("1024 KiB are charged to 3 removed groups below it that still live on"
            in said(mapped=mapped, dying=Dying(3, 9 * MIB, MIB)))


PAGES = {"anon": 2 * MIB, "file_unmapped": 5 * MIB, "shmem_unmapped": 3 * MIB}
ALL_MAPPED = kinds(2 * MIB, 5 * MIB, 3 * MIB)


def numbers(charge: int, **changed: Any) -> tuple[GroupNumbers, ...]:
    return (GroupNumbers(current=charge, stat={}, **changed),) * 2


@pytest.mark.parametrize(("share", "words", "changed"), [
    # of 5 MiB of files, and of 3 MiB of shared memory, so much is not mapped
    (20, "are page cache of files", lambda left: {"mapped": ALL_MAPPED | {"file": 5 * MIB - left}}),
    (20, "are shared memory", lambda left: {"mapped": ALL_MAPPED | {"shmem": 3 * MIB - left}}),
    (10, "are kernel memory", lambda left: {"objects": (), "parts": {"page_tables": left}}),
    (20, "are charged to 2 removed groups", lambda left: {"dying": Dying(2, 0, left)}),
])
def test_what_stands_out_does_from_a_share_of_the_charge_on(
    share: int, words: str, changed: Callable[[int], dict[str, Any]]
) -> None:
    for left, told in ((MIB, True), (MIB - 1, False)):
        found = {"mapped": ALL_MAPPED, "objects": (), "parts": PAGES, "files": None,
                 "numbers": numbers(share * MIB)}
        assert (words in said(**(found | changed(left)))) == told


@pytest.mark.parametrize(("version", "swap"), [
    (2, lambda left: {"swap_current": left}), (1, lambda left: {"both": 20 * MIB + left}),
])
def test_what_is_in_swap_is_told_from_a_twentieth_of_the_charge_on(
    version: int, swap: Callable[[int], dict[str, Any]]
) -> None:
    for left, told in ((MIB, True), (MIB - 1, False)):
        found = {"version": version, "numbers": numbers(20 * MIB, **swap(left))}
        assert ("more are in swap." in said(**found)) == told
        assert ("more are in swap." in said(processes=(), **found)) == told


def test_a_file_that_makes_up_half_of_what_is_not_mapped_is_named() -> None:
    files = group().files
    assert files is not None
    for cached, named in ((2 * MIB, True), (2 * MIB - 1, False)):  # 4 MiB of files are not mapped
        one = files._replace(files=(file(Sort.FILE, "/var/x", cached),))
        assert ("KiB of it one file, /var/x." in said(files=one)) == named


def test_of_what_stands_out_the_largest_is_told() -> None:
    # 4 MiB of files and 3 MiB of shared memory that are not mapped, 5 MiB of removed groups
    text = said(mapped=kinds(2 * MIB, MIB, 0), dying=Dying(1, 9 * MIB, 5 * MIB))
    assert "5120 KiB are charged to 1 removed group below it that still lives on" in text
    assert "no process of it" not in text


def test_the_screen_says_what_could_be_reclaimed_in_all() -> None:
    rows = [line.split() for line in wrote("text", group()).splitlines()]
    [total] = [row for row in rows if "memory.current:" in row]
    # clean files and dentries, as the rows above it say
    assert total[:2] == ["11264", "5376"]
    [files] = [row for row in rows if row[3:] == ["files", "in", "cache"]]
    [kernel] = [row for row in rows if row[3:] == ["kernel", "memory"]]
    assert int(files[2]) + int(kernel[2]) == 5376


def test_groups_below_are_named_the_largest_first() -> None:
    below = tuple((f"/a/{at}", at * MIB) for at in range(1, 7))
    text = " ".join(wrote("text", group(below=below)).split())
    assert ("of it charged to groups below: /a/6 6144 KiB, /a/5 5120 KiB, /a/4 4096 KiB,"
            " /a/3 3072 KiB, /a/2 2048 KiB, 1 other" in text)
    assert "groups below" not in wrote("text", group())


def test_removed_groups_below_are_told_with_what_is_found_and_what_their_counters_say() -> None:
    text = " ".join(wrote("text", group(dying=Dying(3, 9 * MIB, MIB))).split())
    assert ("removed groups below that live on: 3, with 1024 KiB found in RAM (their counters,"
            " which may be out of date, say 9216 KiB)" in text)
    assert "removed groups" not in wrote("text", group(dying=Dying(0, 0, 0)))
    assert "removed groups" not in wrote("text", group(dying=None))


def test_processes_that_could_not_be_looked_at_are_not_said_to_map_nothing() -> None:
    one = said(mapped=None, not_looked=((812, "no"),), processes=(), by_others=None)
    assert one.startswith("Its only process could not be looked at; 11264 KiB are charged to it.")
    assert "no process of it maps" not in one
    some = said(not_looked=((9, "no"),))
    assert some.startswith("Of its 2 processes 1 could be looked at: mapped there are 3072 KiB of")
    assert "no process of it maps" not in some


def test_what_could_be_reclaimed() -> None:
    # 5 MiB of clean files and 256 KiB of dentries; 2 MiB and 3 MiB to swap; 256 KiB of the kernel's
    assert ("At most 5376 KiB could be reclaimed at once before a process is killed;"
            " 5376 KiB could not (there is no room in swap).") in said()
    room = group().headroom._replace(dirty=MIB, slab_reclaimable=0)
    assert ("5120 KiB could be reclaimed at once before a process is killed, 1024 KiB after"
            " writing them and 2048 KiB by swapping; 3328 KiB could not."
            ) in said(headroom=room, swap_room=2 * MIB)


def test_what_memory_min_of_groups_below_protects_is_told() -> None:
    assert ("could be reclaimed at once before a process is killed, but memory.min protects up to"
            " 2048 KiB of it; 5376 KiB could not") in said(protected=2 * MIB)
    assert "memory.min" not in said(protected=0)


def test_what_could_be_reclaimed_of_each_row_adds_up() -> None:
    found = group()
    assert sum(row.reclaim or 0 for row in rows(found)) == found.headroom.at_once
    assert sum(found.headroom) + found.swap_room == sum(
        row.charged for row in rows(found) if not row.what.startswith(("per-CPU", "charged"))
        and not row.depth)


def test_a_limit_of_a_group_above_is_told() -> None:
    above = (("/system.slice", GroupNumbers(current=12 * MIB, limit=13 * MIB)),
             ("/", GroupNumbers(current=20 * MIB)))
    assert ("limited above it too: /system.slice is charged 12288 KiB of 13312 KiB\n"
            in wrote("text", group(above=above)))


def test_the_working_set_is_the_charge_without_inactive_files() -> None:
    assert working_set(group()) == (7 * MIB, 4 * MIB)


def test_a_file_says_what_it_is_and_who_keeps_it() -> None:
    names = [group_words.file_name(one) for one in (
        file(Sort.FILE, "/a\n", 1), file(Sort.DEVICE, "x", 1),
        file(Sort.FILE, "x", 1)._replace(place=None, inside=None),
        file(Sort.FILE, "/x", 1)._replace(place=Place(b"/x", (), 812)))]
    assert names == ["/a\\n", "block device 8:0", "inode 12 on ext4 8:0",
                     "/x, as pid 812 sees it"]


def test_the_screen_ends_the_table_with_the_kernels_number() -> None:
    text = wrote("text", group())
    assert "memory.current: unexplained 0" in text
    assert "mapped by its processes and charged to others: 1028 KiB (/usr/lib/libc.so.6" in text
    assert "unit app.service: 11264 KiB charged, a limit of 16384 KiB" in text


def test_json_adds_up() -> None:
    document = json.loads(wrote("json", group()))
    parts = ("pages", "kernel_pages", "kernel_objects", "counted_by_the_kernel",
             "charged_in_advance", "percpu_not_told", "second_pages", "changed_meanwhile")
    assert sum(document[key] for key in parts) == document["charged"] == 11 * MIB
    assert document["cgroup"]["name"] == "app.service"
    assert document["files"][0]["kept_by"] == [{"pid": 812, "name": "java", "on_host": False}]


def test_csv_is_the_ledger() -> None:
    lines = list(csv.DictReader(io.StringIO(wrote("csv", group()))))
    assert {row["against"] for row in lines} >= {"memory.current", "memory.stat anon"}


def test_what_is_in_swap_and_what_others_map_is_told() -> None:
    from pagewalk.proc.cgroup_numbers import GroupNumbers

    one = GroupNumbers(current=11 * MIB, both=12 * MIB, tcp=4096, stat={})
    found = group(version=1, numbers=(one, one), by_others=kinds(0, MIB, 0),
                  uncharged={"/dev/hugepages/x": 2 * MIB})
    assert "1024 KiB more are in swap." in " ".join(group_words.answers(found))
    text = wrote("text", found)
    assert "mapped by its processes and charged to nobody: 2048 KiB (/dev/hugepages/x" in text
    assert "charged to it and mapped, but not seen in a process of it: at most 1024 KiB" in text
    assert "in swap, beside what is charged: 1024 KiB" in text
    assert "buffers of sockets, which version 1 counts apart: 4 KiB" in text
    document = json.loads(wrote("json", found))
    assert (document["swap"], document["sockets"]) == (MIB, 4096)


def test_a_file_that_only_others_map_is_named() -> None:
    files = group().files
    assert files is not None
    shared = files._replace(files=(file(Sort.FILE, "/usr/lib/x.so", 4 * MIB, 4 * MIB),))
    assert "4096 KiB of it one file, /usr/lib/x.so, mapped by others." in said(
        files=shared, mapped=kinds(2 * MIB, 0, 3 * MIB))
    assert "one file" not in said(files=shared)  # ours may be who maps it


def test_counters_alone_add_up_and_leave_out_the_rest() -> None:
    found = group(
        charge=None, parts={"anon": 2 * MIB, "file": 4 * MIB, "shmem": 3 * MIB}, objects=(),
        mapped=None, files=None, headroom=None, dying=None, by_others=None, lines=[],
        not_looked=((812, "no"),), processes=(), elsewhere={})
    whole = [row.charged for row in rows(found) if not row.depth]
    assert sum(whole) == 11 * MIB
    text = wrote("text", found)
    assert ("11264 KiB are charged to it: 2048 KiB anonymous memory, 4096 KiB files in cache,"
            in " ".join(text.split()))
    assert "AGAINST" not in text
    document = json.loads(wrote("json", found))
    assert document["kinds"]["file"] == 4 * MIB
    assert document["headroom"] is document["files"] is document["processes"] is None


def test_what_changed_meanwhile_is_not_called_charged_in_advance() -> None:
    found = group()
    first = found.lines[0]
    moved = first._replace(causes=(Cause("object_stock", -100, False, 8192),
                                   Cause("frames_changed", 4096, False, 8192)))
    told = group(lines=[moved, *found.lines[1:]])
    assert (in_advance(told), changed(told)) == (100, -4096)
    assert [row.what for row in rows(told)][-2:] == [
        "charged in advance, for kernel objects (at most 8 KiB)",
        "allocated or freed while RAM was read"]


def test_what_this_kernel_charges_to_nobody_is_no_silent_zero() -> None:
    off = (Withheld(SOCKETS, "booted with cgroup.memory=nosocket"),)
    text, document = (wrote(name, group(withheld=off)) for name in ("text", "json"))
    assert f"n/a: {SOCKETS}: booted with cgroup.memory=nosocket" in text
    assert json.loads(document)["sockets"] is None
    assert json.loads(document)["withheld"] == [{"what": SOCKETS, "why": off[0].why}]
    assert json.loads(document)["partial"] == []
    assert json.loads(wrote("json", group()))["sockets"] == 0


def test_what_the_kernel_kept_of_the_past_is_told() -> None:
    text, document = wrote("text", group()), json.loads(wrote("json", group()))
    lines = text.splitlines()
    assert "the most that was charged to it at any time: 15360 KiB" in lines
    assert "memory.min, low and high: guaranteed 4096 KiB, slowed down above 14336 KiB" in lines
    assert ("the limit of it or of one below it was reached 3 times; 1 process killed for lack of"
            " memory" in lines)
    assert ("waited for memory: some of its threads for 2.500 s, all of them at once for 1.000 s"
            in lines)
    assert document["peak"] == 15 * MIB
    assert (document["high"], document["low"], document["min"]) == (14 * MIB, 0, 4 * MIB)
    assert document["events"] == {"low": 0, "max": 3, "oom_kill": 1}
    assert document["pressure"] == {"some": 2_500_000, "full": 1_000_000}


def test_of_the_past_nothing_is_said_that_the_kernel_does_not_tell() -> None:
    one = GroupNumbers(current=11 * MIB, low=0, min=0, events={"failcnt": 2, "oom_kill": 0},
                       pressure={"some": 0, "full": 0}, stat={})
    found = group(version=1, numbers=(one, one))
    assert list(group_words.so_far(found)) == [
        "the limit of it was reached twice; 0 processes killed for lack of memory"]
    whole = GroupNumbers(low=UNLIMITED)
    assert list(group_words.so_far(group(numbers=(whole, whole)))) == [
        "memory.min, low and high: protected all of it"]
    bare = group(numbers=(GroupNumbers(), GroupNumbers()))
    assert list(group_words.so_far(bare)) == []
    document = json.loads(wrote("json", bare))
    assert document["peak"] is document["events"] is document["pressure"] is None
