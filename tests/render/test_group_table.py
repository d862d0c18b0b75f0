"""Groups in words: names, counts, and sentences that appear when their rule says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pagewalk.account.groups import BY_KEY, by_kind, by_perms
from pagewalk.account.table import Table
from pagewalk.model.columns import READ, WRITE, Backing
from pagewalk.render.group_table import COLUMNS, answers, rows, what
from tests import by_hand

NONE = np.zeros(0, np.uint64)
RW, PAGE = READ | WRITE, by_hand.PAGE


def test_the_groups_and_what_they_add_up_to() -> None:
    table = by_hand.table()
    found = rows(table, by_kind(table, NONE), COLUMNS)
    assert found[0] == ("RSS", "USS", "SWAP", "SIZE", "WHAT")
    assert found[1] == ("12", "4", "4", "24", "heap")
    assert found[2] == ("2048", "2048", "0", "4096",
                        "other anonymous, 2048 in huge pages")
    assert found[3][-1] == "files: program 8"
    assert found[-1] == ("2072", "2056", "4", "4148", "total")


def named(*names: str, backing: Backing = Backing.FILE) -> str:
    """Return what a group of one-page VMAs with these names is."""
    of = by_hand.vmas([(PAGE * (2 * at + 1), 1, RW, 0, backing, name)
                       for at, name in enumerate(names)])
    table = by_hand.by_vma(by_hand.walk([], of))
    (group,) = by_kind(table, NONE)
    return what(table, group)


def test_the_largest_files_are_named_and_the_others_counted() -> None:
    assert named("/a/one") == "files: one 0"
    assert named("/a/one", "/a/one", "/b/two") == "files: one 0, two 0"
    assert named("/a/one", "/b/two", "/c/three") == "files: one 0, two 0, 1 other 0"
    assert named("/a", "/b", "/c", "/d") == "files: a 0, b 0, 2 others 0"
    assert named("/dev/shm/x\x1b[2J", backing=Backing.SHMEM) == "shared memory: x\\x1b[2J 0"


@pytest.mark.parametrize(("room", "told"), [
    (80, "files: a 0, b 0, 2 others 0"), (26, "files: a 0, 3 others 0"), (20, "files, 4"),
    (3, "files, 4"),
])
def test_where_there_is_no_room_fewer_are_named(room: int, told: str) -> None:
    of = by_hand.vmas([(PAGE * (2 * at + 1), 1, RW, 0, Backing.FILE, f"/{name}")
                       for at, name in enumerate("abcd")])
    table = by_hand.by_vma(by_hand.walk([], of))
    (group,) = by_kind(table, NONE)
    assert what(table, group, room) == told


def test_huge_pages_and_guards_are_told_where_there_is_room() -> None:
    table = by_hand.table()
    (_, group, *_) = by_kind(table, NONE)
    group = group._replace(amounts={**group.amounts, "guard": 2 * PAGE, "shmem_huge": 4 << 20})
    told = f"{BY_KEY[group.key].title}, 6144 in huge pages, 8 in guard regions"
    assert what(table, group) == what(table, group, len(told)) == told
    assert what(table, group, len(told) - 1) == BY_KEY[group.key].title


def test_amounts_are_never_shortened_but_the_least_wanted_are_left_out() -> None:
    table = by_hand.table()
    whole = list(zip(*rows(table, by_perms(table), COLUMNS), strict=True))
    counts = []
    for room in range(1, 80):
        found = list(zip(*rows(table, by_perms(table), COLUMNS, room), strict=True))
        assert found[:-1] == [column for column in whole if column in found[:-1]]
        assert found[0][0] == "RSS"
        counts.append(len(found))
    assert counts == sorted(counts) and counts[0] == 2 and counts[-1] == len(whole)


def test_bars_are_the_shares_of_the_first_amount() -> None:
    table = by_hand.table()
    groups = by_perms(table)
    lines = rows(table, groups, ("size", "rss"), 80, "#")
    assert lines[0][:3] == ("SIZE", "SHARE", "RSS") and lines[-1][1] == ""
    whole = table.totals["size"]
    assert whole is not None
    assert [len(line[1]) for line in lines[1:-1]] == [
        (group.amounts["size"] or 0) * 10 // whole for group in groups]


def test_several_vmas_are_counted() -> None:
    assert named("", "", backing=Backing.ANON) == "other anonymous, 2 VMAs"
    table = by_hand.table()
    assert what(table, by_perms(table)[0]) == "rw-p, 2 VMAs"


def said(**totals: int | None) -> str:
    table: Table = by_hand.table()
    table = replace(table, totals={**table.totals, **totals})
    return " ".join(answers(table, by_kind(table, NONE)))


@pytest.mark.parametrize(("totals", "words"), [
    ({}, "2072 KiB are in RAM, 4 KiB are in swap"),
    ({"swap": 0}, "2072 KiB are in RAM; ending the process frees"),
    ({"freed": None}, "4 KiB are in swap."),
    ({"lazyfree": 4096}, "When memory runs short the kernel takes back at most 8 KiB of files and"
     " 4 KiB released with MADV_FREE; the rest can only go to swap, if there is any."),
])
def test_each_sentence(totals: dict[str, Any], words: str) -> None:
    assert words in said(**totals)


def empty(*rows: tuple[int, int, Backing], swap: bool = True) -> str:
    """Return what is said of VMAs of (pages, perms, backing) in which nothing is present."""
    of = by_hand.vmas([(at << 40, pages, perms, 0, backing, "/file" * (backing == Backing.FILE))
                       for at, (pages, perms, backing) in enumerate(rows, 1)])
    table = by_hand.by_vma(by_hand.walk([], of))
    if not swap:
        table = replace(table, columns={**table.columns, "swap_private": None})
    return " ".join(answers(table, by_kind(table, NONE)))


def test_what_is_reserved_is_told_if_it_is_most_of_the_address_space() -> None:
    reserved, memory = (512, 0, Backing.ANON), (256, RW, Backing.ANON)
    file = (256, RW, Backing.FILE)
    assert ("4096 KiB of address space, 3072 KiB of it anonymous memory with nothing behind it:"
            " reserved and not used, or given back, 2048 KiB without any access."
            ) in empty(reserved, file, memory)
    # A file is still behind what is not present of it.
    assert "address space" not in empty(memory, file)
    assert "address space" not in empty(reserved, file, memory, swap=False)


def told_of_locked(*locked: int) -> str:
    table: Table = by_hand.table()
    table.outcome.locked = np.isin(np.arange(len(table.vmas)), locked)
    return " ".join(answers(table, by_kind(table, NONE)))


def test_what_the_kernel_can_drop_are_pages_of_files_that_are_not_locked() -> None:
    # Of four VMAs the first maps a file, of which two pages are present; the shmem page is swapped.
    assert ("the kernel takes back at most 8 KiB of files; the rest is locked, or can only"
            " go to swap, if there is any.") in told_of_locked(1, 2, 3)
    assert "the rest can only go to swap" in told_of_locked()
    assert "takes back" not in told_of_locked(0)


def test_where_it_is_not_known_what_is_locked_only_lazyfree_is_told() -> None:
    table: Table = by_hand.table()
    table.outcome.locked = None
    groups = by_kind(table, NONE)
    assert "takes back" not in " ".join(answers(table, groups))
    table = replace(table, totals={**table.totals, "lazyfree": 4096})
    said = " ".join(answers(table, groups))
    assert said.endswith("the kernel takes back 4 KiB released with MADV_FREE.")
