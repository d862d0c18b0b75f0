"""VMAs of different moments pieced together, with hand-made input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pagewalk.model.columns import READ, SHARED, WRITE, Backing
from pagewalk.sources.pieces import pieced, unflagged, unread
from tests import by_hand
from tests.by_hand import PAGE

USER_END = 1 << 47
GATE = 0xFFFFFFFFFF600000
MAPS = by_hand.vmas(
    [
        (10 * PAGE, 10, READ, 3 * PAGE, Backing.FILE, "/lib/x"),
        (30 * PAGE, 2, READ | WRITE, 0, Backing.ANON, "[heap]"),
        (50 * PAGE, 4, READ | WRITE, 0, Backing.ANON, ""),
        (60 * PAGE, 4, READ | SHARED, 0, Backing.SHMEM, "/memfd:y"),
        (GATE, 1, READ, 0, Backing.GATE, "[vsyscall]"),
    ]
)
MAPS = replace(MAPS, inode=np.array([1, 0, 0, 2, 0], np.uint64))
VM_READ, VM_WRITE = 1, 2


def test_a_vma_of_another_moment_is_named_after_the_one_it_was_part_of() -> None:
    # Only the second half of the library is left, the heap has grown, the memfd has gone, and
    # nothing could be read where the other anonymous VMA was.
    rows = [
        (15 * PAGE, 5, READ, 8 * PAGE, Backing.FILE, "/dev 8:1 inode 1"),
        (30 * PAGE, 8, READ | WRITE, 0, Backing.ANON, ""),
        (70 * PAGE, 1, READ, 0, Backing.ANON, ""),
    ]
    raw = replace(
        by_hand.vmas(rows),
        inode=np.array([1, 0, 0], np.uint64),
        flags=np.array([VM_READ, VM_READ | VM_WRITE, VM_READ], np.uint64),
    )
    lost = np.array([[48 * PAGE, 52 * PAGE]], np.uint64)
    vmas, told = pieced(raw, MAPS, lost, USER_END)
    assert [(a // PAGE, b // PAGE) for a, b in vmas.ranges.tolist()][:4] == [
        (15, 20), (30, 38), (50, 54), (70, 71)
    ]
    assert vmas.name == ("/lib/x", "[heap]", "", "", "[vsyscall]")
    assert vmas.offset.tolist() == [8 * PAGE, 0, 0, 0, 0]
    assert vmas.flags is not None and vmas.flags.tolist() == [1, 3, 0, 1, 0]
    assert told.tolist() == [4 * PAGE]
    assert f"{4 * PAGE} bytes" in unflagged(told).why


def test_nothing_is_reported_if_nothing_is_missing() -> None:
    assert unread(np.zeros((0, 2), np.uint64), USER_END) is None


def test_vmas_that_were_never_read_are_reported_with_their_bytes() -> None:
    lost = np.array([[0x1000, 0x3000], [USER_END - 0x1000, 1 << 63]], np.uint64)
    said = unread(lost, USER_END)
    assert said is not None and said.partial
    assert "in 2 places, 12288 bytes at most" in said.why
