"""Groups of VMAs: each rule on VMAs written by hand, and sums that lose nothing."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.account.groups import BY, BY_KEY, KINDS, by_kind, grouped, kinds_of, may_be_go
from pagewalk.model.columns import EXEC, READ, SHARED, U64, WRITE, Backing, VMAs
from tests.by_hand import BIG, HEAP, MEMFD, PAGE, PROGRAM, table, vmas

RW, MIB64 = READ | WRITE, 64 << 20
ARENA, STACK = 0x7F10_0000_0000, 0x7F20_0000_0000
NONE = np.zeros(0, np.uint64)
ANON = Backing.ANON
PAGES = MIB64 // PAGE  # of a heap of an arena

# One VMA after another: (start, pages, perms, backing, name), and its kind.
ROWS = [
    ((0x40_0000, 4, READ | EXEC, Backing.FILE, "/usr/bin/program"), "file"),
    ((0x60_0000, 6, RW, ANON, "[heap]"), "heap"),
    ((ARENA, 33, RW, ANON, ""), "arena"),
    ((ARENA + 33 * PAGE, PAGES - 33, 0, ANON, ""), "arena"),
    # Two heaps that the kernel joined, and the rest of the second.
    ((ARENA + 2 * MIB64, PAGES + 5, RW, ANON, ""), "arena"),
    ((ARENA + 3 * MIB64 + 5 * PAGE, PAGES - 5, 0, ANON, ""), "arena"),
    # Not at a multiple of 64 MiB; and one with nothing behind it.
    ((ARENA + 5 * MIB64 + PAGE, 3, RW, ANON, ""), "anonymous"),
    ((ARENA + 5 * MIB64 + 4 * PAGE, PAGES - 4, 0, ANON, ""), "reserved"),
    ((ARENA + 7 * MIB64, 3, RW, ANON, ""), "anonymous"),
    ((STACK - PAGE, 1, 0, ANON, ""), "thread_stack"),
    ((STACK, 2048, RW, ANON, ""), "thread_stack"),
    # Without access, but not right below a stack.
    ((STACK + 4096 * PAGE, 1, 0, ANON, ""), "reserved"),
    ((STACK + 4098 * PAGE, 2048, RW, ANON, ""), "thread_stack"),
    ((STACK + 7000 * PAGE, 8, RW, ANON, "[anon:Go: heap]"), "named"),
    ((STACK + 7010 * PAGE, 8, RW | EXEC, ANON, ""), "code"),
    ((STACK + 7020 * PAGE, 8, RW | SHARED, Backing.SHMEM, "/memfd:cache (deleted)"), "shmem"),
    ((STACK + 7030 * PAGE, 8, RW | SHARED, Backing.HUGETLB, "/dev/hugepages/x"), "hugetlb"),
    ((STACK + 7040 * PAGE, 8, RW | SHARED, Backing.DRIVER, "/dev/dri/card0"), "device"),
    ((STACK + 7050 * PAGE, 1, READ | EXEC, Backing.KERNEL, "[vdso]"), "kernel"),
    ((STACK + 7060 * PAGE, 33, RW, ANON, "[stack]"), "stack"),
]
# The same of a program that Go built.
GO = 0xC0_0000_0000
GO_ROWS = [
    ((0x40_0000, 4, READ | EXEC, Backing.FILE, "/usr/bin/program"), "file"),
    ((GO - PAGE, 1, RW, ANON, ""), "anonymous"),
    ((GO, 512, RW, ANON, ""), "go"),
    ((GO + 512 * PAGE, 512, RW, ANON, ""), "go"),
    ((GO + 1024 * PAGE, PAGES - 1024, 0, ANON, ""), "go"),
    ((GO + 2 * MIB64, 512, RW, ANON, ""), "anonymous"),
    ((GO + (3 << 40), 1024, RW, ANON, ""), "go"),
    ((GO + (3 << 40) + 1024 * PAGE, 4, READ | EXEC, ANON, ""), "code"),
    ((GO + (3 << 40) + 1028 * PAGE, 4, RW, ANON, ""), "anonymous"),
    ((GO + (4 << 40), 1, RW, ANON, "[anon:mine]"), "named"),
    ((ARENA, 33, RW, ANON, ""), "arena"),
    ((ARENA + 33 * PAGE, PAGES - 33, 0, ANON, ""), "arena"),
    ((STACK, 2048, RW, ANON, ""), "thread_stack"),
]


def made(rows: list[tuple[tuple[int, int, int, Backing, str], str]]) -> VMAs:
    return vmas([(start, pages, perms, 0, backing, name)
                 for (start, pages, perms, backing, name), _ in rows])


VMAS, GO_VMAS = made(ROWS), made(GO_ROWS)
POINTERS = np.array([STACK + 100 * PAGE + 8, STACK + 4098 * PAGE + 2047 * PAGE], np.uint64)


# Goroutines wait too: their stacks are in the heap.
GO_POINTERS = np.array([GO + 8, STACK + 8], np.uint64)


def kinds(pointers: U64, of: VMAs = VMAS, go: str | None = None) -> list[str]:
    return [KINDS[code].key for code in kinds_of(of, pointers, go).tolist()]


def test_each_rule() -> None:
    assert kinds(POINTERS) == [kind for _, kind in ROWS]


@pytest.mark.parametrize("go", ["", "go1.19.8", "go1.25.5 X:none"])
def test_each_rule_of_a_program_that_go_built(go: str) -> None:
    assert kinds(GO_POINTERS, GO_VMAS, go) == [kind for _, kind in GO_ROWS]


@pytest.mark.parametrize("go", ["go1.26", "go1.27.3", "devel go1.28-0", "go2"])
def test_where_its_heap_may_be_anywhere_nothing_is_told_from_it(go: str) -> None:
    found = kinds(GO_POINTERS, GO_VMAS, go)
    assert set(found) == {"file", "anonymous", "reserved", "code", "named"}
    # As where an older one could not have the addresses that it wants.
    elsewhere = made(GO_ROWS[-3:])
    assert set(kinds(GO_POINTERS, elsewhere, "go1.19")) == {"anonymous", "reserved"}


def test_another_program_may_have_such_addresses_too() -> None:
    found = kinds(GO_POINTERS[1:], GO_VMAS)
    assert "go" not in found and found[-1] == "thread_stack"


def test_the_language_matters_only_where_something_may_be_gos_heap() -> None:
    for rows in (GO_ROWS[2:3], GO_ROWS[-1:], GO_ROWS[-3:-1]):
        assert may_be_go(made(rows), GO_POINTERS)
    main = made([((STACK, 33, RW, ANON, "[stack]"), "stack")])
    assert not may_be_go(main, GO_POINTERS) and not may_be_go(made(ROWS[:2]), NONE)


def test_each_kind_has_a_vma_here() -> None:
    assert {kind for _, kind in [*ROWS, *GO_ROWS]} == set(BY_KEY)
    assert len(BY_KEY) == len(KINDS)


def test_without_stack_pointers_no_stack_is_guessed() -> None:
    found = kinds(NONE)
    assert "thread_stack" not in found
    assert found[10] == "anonymous" and found[9] == "reserved"


def test_a_pointer_outside_every_vma_is_of_no_stack() -> None:
    assert "thread_stack" not in kinds(np.array([8, 1 << 63], np.uint64))


def test_no_vmas_are_no_groups() -> None:
    found = table()
    assert grouped(found, np.zeros(0, np.int64), ["heap"]) == []


@pytest.mark.parametrize("by", BY)
def test_groups_add_up_to_the_totals(by: str) -> None:
    found = table()
    groups = BY[by](found, NONE, None)
    assert sorted(row for group in groups for row in group.rows.tolist()) == list(range(4))
    assert [group.vmas for group in groups] == [len(group.rows) for group in groups]
    for name, column in found.columns.items():
        amounts = [group.amounts[name] for group in groups]
        if column is None:
            assert amounts == [None] * len(groups)
        else:
            assert sum(amount or 0 for amount in amounts) == int(column.sum())


def test_the_amounts_of_a_group_are_those_of_its_vmas() -> None:
    groups = {group.key: group for group in by_kind(table(), NONE)}
    assert [*groups] == ["heap", "anonymous", "file", "shmem"]  # in the order of KINDS
    assert groups["heap"].amounts["rss"] == 3 * PAGE
    assert groups["anonymous"].amounts["size"] == 1024 * PAGE
    assert groups["file"].amounts["uss"] == PAGE
    assert {PROGRAM, HEAP, MEMFD, BIG} == set(table().vmas.start.tolist())
