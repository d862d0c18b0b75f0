"""Which files are listed, and as what; the kernel's own are in tests/live/test_files.py."""

from __future__ import annotations

import numpy as np

from pagewalk.kernel.structs.inodes import FileSystems
from pagewalk.system.files import Sort, largest, sorts_of


def test_the_sort_of_a_file() -> None:
    #                       names, on disk or in RAM
    rows = [
        ("ext4", 1, False, False, Sort.FILE),
        ("ext4", 0, False, False, Sort.DELETED),
        ("tmpfs", 1, False, True, Sort.TMPFS),
        ("tmpfs", 0, False, True, Sort.DELETED),
        ("tmpfs", 0, True, True, Sort.UNNAMED),
        ("bdev", 1, True, False, Sort.DEVICE),
        ("bdev", 0, False, False, Sort.DEVICE),
        ("", 0, False, True, Sort.GONE),
    ]
    names = ("bdev", "ext4", "tmpfs")
    systems = FileSystems(
        np.zeros(len(rows), np.uint64), names,
        np.array([names.index(row[0]) if row[0] else -1 for row in rows], np.int64),
        np.array([row[1] for row in rows], np.uint32), np.array([row[2] for row in rows]),
    )
    found = sorts_of(systems, np.array([row[3] for row in rows]))
    assert [Sort(sort) for sort in found.tolist()] == [row[4] for row in rows]


def test_the_largest_of_each_sort_in_the_order_of_the_screen() -> None:
    sorts = np.array([1, 1, 0, 1, 3, 0, 1], np.uint8)
    pages = np.array([5, 9, 1, 7, 2, 8, 9], np.int64)
    assert largest(sorts, pages, 2).tolist() == [5, 2, 1, 6, 4]
    assert largest(sorts, pages, 0).tolist() == []
    assert largest(sorts[:0], pages[:0], 5).tolist() == []
