"""What JVMs answer, of each collector and two releases. Real ones: tests/live/test_jvm.py."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pagewalk.heap.attach import Answers
from pagewalk.heap.hotspot import Space
from pagewalk.heap.jvm import (
    CANNOT,
    CODE,
    COMMANDS,
    HEAP,
    METASPACE,
    NATIVE,
    NO_JVM,
    Asked,
    Tracked,
    ask_jvm,
    code_segments,
    heap_spaces,
    metaspaces,
    parsed,
    tracked,
)
from pagewalk.proc.target import Target

KIB, MIB = 1 << 10, 1 << 20
NONE = np.zeros((0, 2), np.uint64)
NOBODY = Target(0, "", None, -1, -1, [], {})


@pytest.mark.parametrize(("text", "spaces"), [
    (""" def new generation   total 19648K, used 684K [0x00000000fc000000, 0x00000000fd550000)
  eden space 17472K,   3% used [0x00000000fc000000, 0x00000000fc0ab120, 0x00000000fd110000)
 tenured generation   total 43712K, used 22793K [0x00000000fd550000, 0x0000000100000000)
   the space 43712K,  52% used [0x00000000fd550000, 0x00000000feb92438, 0x0000000100000000)
 Metaspace       used 9107K, committed 9344K, reserved 1114112K
  class space    used 1093K, committed 1216K, reserved 1048576K""",
     [Space("def new generation", 19648 * KIB, 684 * KIB),
      Space("tenured generation", 43712 * KIB, 22793 * KIB)]),
    ("""DefNew     total 19648K, used 866K [0x00000000fc000000, 0x00000000fd550000)
 eden space 17472K,   4% used [0x00000000fc000000, 0x00000000fc0d8ab8, 0x00000000fd110000)
Tenured    total 43712K, used 25493K [0x00000000fd550000, 0x0000000100000000)""",
     [Space("DefNew", 19648 * KIB, 866 * KIB), Space("Tenured", 43712 * KIB, 25493 * KIB)]),
    (""" garbage-first heap   total 65536K, used 44161K [0x00000000fc000000, 0x0000000100000000)
  region size 1024K, 1 young (1024K), 0 survivors (0K)""",
     [Space("garbage-first heap", 65536 * KIB, 44161 * KIB)]),
    ("garbage-first heap   total reserved 65536K, committed 32768K, used 2K [0xfc000000, 0x)",
     [Space("garbage-first heap", 32768 * KIB, 2 * KIB)]),
    (" ZHeap           used 48M, capacity 64M, max capacity 128M",
     [Space("ZHeap", 64 * MIB, 48 * MIB)]),
    ("""Shenandoah Heap
 65536K max, 65536K soft max, 32768K committed, 22684K used
 256 x 256K regions""", [Space("Shenandoah", 32768 * KIB, 22684 * KIB)]),
    ("nothing of this\x1b[2J total K, used K", []),
])
def test_the_spaces_of_each_collector(text: str, spaces: list[Space]) -> None:
    assert heap_spaces(text.splitlines()) == spaces


USAGE = """Usage:
  Non-class:  8235176 bytes used.
      Class:  1120776 bytes used.
       Both:  9355952 bytes used.

Virtual space:
  Non-class space:  67108864 bytes reserved, 8323072 bytes ( 12%) committed,  1 nodes.
      Class space:  1073741824 bytes reserved, 1245184 bytes ( <1%) committed,  1 nodes.
             Both:  1140850688 bytes reserved, 9568256 bytes ( <1%) committed. """


def test_metaspace_has_two_parts_and_one_that_is_not_whole_is_left_out() -> None:
    lines = USAGE.splitlines()
    both = [Space("metaspace", 8323072, 8235176), Space("class space", 1245184, 1120776)]
    assert metaspaces(lines) == both
    assert metaspaces([line for line in lines if "Class space" not in line]) == both[:1]


def test_the_segments_of_the_code_cache_or_the_whole() -> None:
    segments = """CodeHeap 'profiled nmethods': size=120036Kb used=1552Kb max_used=1552Kb
 bounds [0x00007fe1343ff000, 0x00007fe13466f000, 0x00007fe13b938000]
CodeHeap 'non-nmethods': size=5692Kb used=1245Kb max_used=1258Kb free=4446Kb
CodeCache: size=245764Kb, used=3118Kb, max_used=3131Kb, free=242643Kb""".splitlines()
    assert code_segments(segments) == [
        Space("profiled nmethods", 120036 * KIB, 1552 * KIB),
        Space("non-nmethods", 5692 * KIB, 1245 * KIB)]
    whole = "CodeCache: size=65536Kb used=3243Kb max_used=3251Kb free=62292Kb"
    assert code_segments([whole]) == [Space("code cache", 65536 * KIB, 3243 * KIB)]


def test_what_it_tracks_of_its_memory() -> None:
    lines = """Total: reserved=1314674382, committed=100841166
-                 Java Heap (reserved=67108864, committed=67108864)
                            (mmap: reserved=67108864, committed=67108864)
-      String Deduplication (reserved=704, committed=704)""".splitlines()
    assert tracked(lines) == [Tracked("Java Heap", 64 * MIB, 64 * MIB),
                              Tracked("String Deduplication", 704, 704)]


def test_what_was_not_answered_is_none() -> None:
    answers = Answers({METASPACE: USAGE, HEAP: "", NATIVE: "Native memory tracking is not enabled"},
                      started=True, took_ns=5, why=f"{CODE}: no answer")
    found, ranges = parsed(answers, NONE)
    assert found == Asked(None, metaspaces(USAGE.splitlines()), None, [], None, None, True, 5,
                          f"{CODE}: no answer")
    assert len(ranges) == 0


@pytest.mark.parametrize(("attachable", "why"), [(None, NO_JVM), (False, CANNOT)])
def test_whatever_does_not_say_that_it_may_be_asked_is_not(
    attachable: bool | None, why: str
) -> None:
    assert ask_jvm(NOBODY, attachable, NONE)[0].why == why


def test_what_is_in_ram_of_the_heap_and_of_the_code_is_where_the_jvm_says() -> None:
    heap = """ def new generation   total 19648K, used 1K [0xfc000000, 0xfd550000, 0xfd550000)
  eden space 17472K,   3% used [0xfc000000, 0xfc0ab120, 0xfd110000)
 tenured generation   total 43712K, used 1K [0xfd550000, 0xfe000000, 0x100000000)"""
    code = """CodeCache: size=65536Kb used=3243Kb max_used=3251Kb free=62292Kb
 bounds [0x00007f920c400000, 0x00007f920c730000, 0x00007f9210400000]"""
    anon = np.array([[0xFB000000, 0xFC001000], [0xFF000000, 0x1_0000_2000],
                     [0x7F920C400000, 0x7F920C500000]], np.uint64)
    answers = Answers({HEAP: heap, CODE: code}, started=False, took_ns=1, why="")
    found, ranges = parsed(answers, anon)
    assert found.heap_present == 0x1000 + 0x1000000 and found.code_present == 0x100000
    assert ranges.tolist() == [[0xFC000000, 0x1_0000_0000], [0x7F920C400000, 0x7F9210400000]]


@pytest.mark.parametrize("text", [
    "[0x5, 0x1)", "[0x11111111111111111, 0x2)", "[0x0, 0xffffffffffffffff)", "[0x, 0x)", "[0x1",
])
def test_ranges_that_make_no_sense_do_no_harm(text: str) -> None:
    answers = Answers({HEAP: text, CODE: text}, started=False, took_ns=1, why="")
    anon = np.array([[0x1000, 0x3000]], np.uint64)
    assert parsed(answers, anon)[0].heap_present in (None, 0x2000)


@pytest.mark.parametrize("line", [
    " " * 1_000_000, "a" * 1_000_000, "a " * 500_000, " 1K max, " + "1" * 1_000_000,
    "- a" + " (reserved=1" * 90_000, "CodeHeap '" * 100_000, "[0x1, " * 150_000,
])
def test_a_line_as_long_as_an_answer_may_be_takes_no_time(line: str) -> None:
    answers = Answers(dict.fromkeys(COMMANDS, line), started=False, took_ns=1, why="")
    began = time.process_time()
    parsed(answers, NONE)
    assert time.process_time() - began < 5  # a minute if it grew with the square
