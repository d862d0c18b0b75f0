"""Stacks, found by struct pthread at their end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pagewalk.heap.stacks import BLOCK, JOINED, TID, Stack, stacks
from pagewalk.model.columns import READ, WRITE, Backing
from tests.by_hand import PAGE, vmas
from tests.heap.test_glibc import Written

START = 0x7F30_0000_0000
SIZE = 64 * PAGE
VMAS = vmas([(START, 256, READ | WRITE, 0, Backing.ANON, "")])


def thread(written: Written, at: int, tid: int, start: int, size: int = SIZE, guard: int = PAGE
           ) -> None:
    """Write what of a struct pthread is looked at."""
    written.put(at, at, 0, at)
    written.put(at + TID, tid | 7 << 32)
    written.put(at + BLOCK, start, size, guard)


@pytest.mark.parametrize("ended", [0, JOINED])
def test_stacks_of_living_and_of_ended_threads(ended: int) -> None:
    written = Written(VMAS)
    thread(written, START + SIZE - 0x940, 1234, START)
    thread(written, START + 2 * SIZE - 0x940, ended, START + SIZE)
    written.put(START + 8, START + 8, 0, START + 8)  # points to itself, and is no thread
    assert stacks(written.memory, VMAS.ranges) == [
        Stack(1234, START, START + SIZE), Stack(0, START + SIZE, START + 2 * SIZE)]


@pytest.mark.parametrize(("start", "size", "guard", "tid"), [
    (START + SIZE, SIZE, PAGE, 1),  # elsewhere
    (START + 8, SIZE, PAGE, 1), (START, SIZE + 8, PAGE, 1), (START, SIZE, 8, 1),
    (START, SIZE, SIZE, 1), (START, 2**63, PAGE, 1), (START, SIZE, PAGE, 1 << 22), (0, 0, 0, 1),
])
def test_what_cannot_be_a_stack_is_none(start: int, size: int, guard: int, tid: int) -> None:
    written = Written(VMAS)
    thread(written, START + SIZE - 0x940, tid, start, size, guard)
    assert stacks(written.memory, VMAS.ranges) == []


def test_records_that_contradict_one_another_are_no_more_stacks_than_fit() -> None:
    # As a hostile process may write thousands of them to a page.
    written = Written(VMAS)
    for at in range(4):
        thread(written, START + 256 + 24 * at, 3 + at, START, 2 * SIZE)
    thread(written, START + 2 * SIZE - 0x940, 9, START + SIZE)
    thread(written, START + 3 * SIZE - 0x940, 10, START + 2 * SIZE)
    assert stacks(written.memory, VMAS.ranges) == [
        Stack(3, START, START + 2 * SIZE), Stack(10, START + 2 * SIZE, START + 3 * SIZE)]


def test_one_at_the_end_of_what_is_in_ram_is_cut_off() -> None:
    written = Written(VMAS)
    thread(written, START + SIZE - 0x100, 5, START)
    short = np.array([[START, START + SIZE]], np.uint64)
    memory = written.memory
    assert stacks(memory, VMAS.ranges) == [Stack(5, START, START + SIZE)]
    assert stacks(replace(memory, readable=short), VMAS.ranges) == []
