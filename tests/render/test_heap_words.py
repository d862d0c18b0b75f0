"""Sentences about a heap: each appears when its rule says so, and not otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from pagewalk.heap.cpython import Build
from pagewalk.heap.heap import Heap, PoolBytes, Stacks
from pagewalk.heap.hotspot import Space
from pagewalk.heap.returnable import Returnable
from pagewalk.render.heap_words import answers, besides, reading, rows
from tests.render.written import MAIN, MIB, OTHER, PYTHON, heap

# 61 of 80 MiB in use.
LITTLE = PoolBytes(9, 80 * MIB, 19 * MIB, 61 * MIB)


def said(found: Heap) -> str:
    return " ".join(answers(found))


def test_what_trimming_gives_back() -> None:
    assert [*answers(heap(MAIN))] == ["malloc_trim(0) would give back 30720 KiB."]


def test_scattered_memory_is_told_where_it_is_much() -> None:
    # 22 of 56 MiB that are free and in RAM; of the main arena alone 2 of 32.
    assert "22528 KiB more are free but scattered" in said(heap(MAIN, OTHER))
    assert "scattered" not in said(heap(MAIN))
    little = MAIN._replace(trim=0, scattered=MIB - 1)
    assert "scattered" not in said(heap(little))
    assert "scattered" in said(heap(little._replace(scattered=MIB)))


def test_what_is_locked_is_told_whatever_it_is() -> None:
    assert "4 KiB more are free but locked in RAM" in said(heap(MAIN._replace(locked=4096)))
    assert "locked" not in said(heap(MAIN))


def test_after_a_fork_the_machine_gets_less() -> None:
    forked = heap(MAIN._replace(trim_exclusive=10 * MIB))
    assert "but only 10240 KiB to the machine" in said(forked)
    assert "machine" not in said(heap(MAIN._replace(trim_exclusive=None)))


def test_estimates_say_so_and_name_the_remedy() -> None:
    found = said(heap(MAIN, exact=False, why="it ran", stop_helps=True))
    assert "estimates: it ran" in found and "--freeze" in found
    # It does not help against everything.
    assert "--freeze" not in said(heap(MAIN, exact=False, why="some is in swap"))


def test_what_is_not_known_has_its_reason() -> None:
    torn = heap(MAIN._replace(trim=None), exact=False, why="no list was whole")
    assert said(torn) == "What is free inside the allocator is not known: no list was whole."


def test_what_is_not_mallocs_is_told_where_it_is_much() -> None:
    # Of 180 MiB a quarter is 45.
    some = said(heap(MAIN, explained=135 * MIB))
    assert "46080 KiB of anonymous memory are not malloc's: the program maps them itself" in some
    some = said(heap(MAIN, explained=100 * MIB, others=("jemalloc",)))
    assert "81920 KiB of anonymous memory are not malloc's: jemalloc is in the program too" in some
    assert "not malloc's" not in said(heap(MAIN, explained=135 * MIB + 1))


def test_free_pools_are_told_where_they_are_many() -> None:
    assert "Python" not in said(heap(MAIN, pools=LITTLE, python=PYTHON))
    assert "81920 KiB are free inside Python's" in said(
        heap(MAIN, pools=PoolBytes(9, 20 * MIB, 80 * MIB, 20 * MIB), python=PYTHON))


def test_pools_that_are_hardly_used_are_told() -> None:
    sparse = LITTLE._replace(blocks=60 * MIB)
    assert "The program uses 61440 KiB of 81920 KiB in pools of Python's own allocator" in said(
        heap(MAIN, pools=sparse, python=PYTHON))
    assert "The program uses" not in said(
        heap(MAIN, pools=sparse._replace(blocks=60 * MIB + 1), python=PYTHON))


def test_pools_that_are_not_told_have_their_reason() -> None:
    found = heap(MAIN, python=Build(13, 0, 0, "it has no GIL"))
    assert "what Python's own allocator holds is not known: it has no GIL" in [*besides(found)]


NOTHING = Returnable(0, 0, 0, 0, 0, 0, 0, 0, 100 * MIB)


@pytest.mark.parametrize(("found", "words"), [
    (NOTHING, "In all 0 KiB of 102400 in RAM could be reclaimed while it runs; the rest could only"
              " go to swap, if there is any."),
    (NOTHING._replace(clean_file=3 * MIB), "When memory runs short the kernel drops 3072 KiB of"
                                           " files."),
    (NOTHING._replace(clean_file=MIB, lazyfree=MIB), "1024 KiB of files and 1024 KiB released"),
    (NOTHING._replace(clean_file=None, lazyfree=None), "In all at least 0 KiB"),
    (NOTHING._replace(huge=8 * MIB, huge_looked_at=8 * MIB, huge_zeros=2 * MIB),
     "2048 KiB of 8192 KiB in huge pages are pages of zeros"),
    (NOTHING._replace(huge=9 * MIB, huge_looked_at=4 * MIB, huge_zeros=2 * MIB),
     "4096 KiB in huge pages (of 9216 KiB; the others were not looked at)"),
    (NOTHING._replace(huge=9 * MIB, huge_looked_at=4 * MIB), "In all at least 0 KiB"),
    (NOTHING._replace(waiting=None, idle_stacks=None), "In all at least 0 KiB"),
    (NOTHING._replace(locked=MIB), "the rest, except 1024 KiB that are locked, could only go to"),
    (NOTHING._replace(waiting=1, idle_stacks=MIB), "1024 KiB of stacks lie below where a thread"),
    (NOTHING._replace(waiting=9, idle_stacks=MIB), "below where 9 threads wait"),
])
def test_what_could_be_reclaimed_besides(found: Returnable, words: str) -> None:
    assert words in said(heap(MAIN, returnable=found))


def test_little_has_no_sentence() -> None:
    little = NOTHING._replace(huge=8 * MIB, huge_looked_at=8 * MIB, huge_zeros=2 * MIB - 1,
                              waiting=1, idle_stacks=MIB - 1)
    assert len([*answers(heap(MAIN, returnable=little))]) == 2
    # Where the allocator is not read, more than was found may be free.
    unread = said(heap(allocator=None, why="no allocator", returnable=NOTHING))
    assert "In all at least" in unread


def test_what_it_is() -> None:
    assert reading(heap(MAIN, OTHER)).startswith("glibc's malloc, 2 arenas, in /lib/libc.so.6; 143")
    stopped = reading(heap(MAIN, stopped_ns=31_000_000))
    assert stopped.split("; ")[1] == "read while stopped for 31 ms"
    in_vain = reading(heap(MAIN, stopped_ns=31_000_000, exact=False))
    assert in_vain.split("; ")[1] == "stopped for 31 ms"
    assert reading(heap(allocator="jemalloc")).startswith("jemalloc; ")
    assert reading(heap(allocator=None)).startswith("no allocator recognised; ")


def test_a_space_that_hotspot_does_not_have_is_left_out() -> None:
    # `jstat -gc` has 0.0 for S0C where the performance data have 8 bytes.
    java = [Space("s0", 8, 0), Space("s1", 2 * MIB, MIB)]
    assert "the Java heap, as of its last collection: s1 1024 of 2048 KiB" in [
        *besides(heap(MAIN, java=java))]


def test_one_stack_is_no_stacks() -> None:
    def last(*stacks: int) -> list[str]:
        return [*besides(heap(MAIN, stacks=Stacks(*stacks)))][1:]

    assert last(1, MIB, 4096, 1, 8192) == [
        "stack of a thread: 4 of 1024 KiB in RAM",
        "stack of an ended thread, kept for new ones: 8 KiB"]
    assert last(2, MIB, 4096, 3, 8192) == [
        "stacks of 2 threads: 4 of 1024 KiB in RAM",
        "3 stacks of ended threads, kept for new ones: 8 KiB"]


def test_the_table_has_totals_where_there_is_more_than_one_arena() -> None:
    assert [row[0] for row in rows(heap(MAIN))] == ["ARENA", "main"]
    table = rows(heap(MAIN, OTHER, OTHER))
    assert [row[0] for row in table] == ["ARENA", "main", "2 of threads", "total"]
    assert table[2][1:] == ("102400", "20480", "81920", "2048", "6144", "40960")
    assert rows(heap(MAIN._replace(free=None)))[1][3] == "n/a"


@pytest.mark.parametrize(("changed", "sentences"), [
    ({}, 1), ({"pools": PoolBytes(1, 1, 1, 1)}, 2), ({"stacks": Stacks(3, MIB, 4096, 0, 0)}, 2),
    ({"stacks": Stacks(3, MIB, 4096, 1, 4096)}, 3), ({"rest_later": True}, 2),
    ({"written": 4096}, 2),
])
def test_what_else_is_known(changed: dict[str, Any], sentences: int) -> None:
    assert len([*besides(heap(MAIN, **changed))]) == sentences
