"""CPython's pools, by their headers. tests/live/test_heap.py asks the interpreter itself."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.heap.cpython import POOL, is_python, pools
from pagewalk.model.columns import READ, WRITE, Backing
from tests.by_hand import PAGE, vmas
from tests.heap.test_glibc import Written

ARENA = 0x7F40_0010_0000
VMAS = vmas([(ARENA, 256, READ | WRITE, 0, Backing.ANON, "")])


def header(
    written: Written, at: int, count: int, size_class: int, limit: int | None = None
) -> None:
    """Write a struct pool_header whose blocks are of size 16 * (size_class + 1)."""
    most = POOL - 16 * (size_class + 1) if limit is None else limit
    written.put(at, count, at + 64, ARENA, ARENA, 3 | size_class << 32, 4096 | most << 32)


def test_pools_with_and_without_a_block_in_use() -> None:
    written = Written(VMAS)
    header(written, ARENA, 7, 0)
    header(written, ARENA + 2 * POOL, 0, 31)
    header(written, ARENA + 3 * POOL, 1, 5)
    header(written, ARENA + 4 * POOL, 1, 5, limit=POOL)  # does not follow from the size class
    header(written, ARENA + 5 * POOL, 1, 32)
    header(written, ARENA + 6 * POOL + 64, 1, 5)  # not at a pool's start
    found = pools(written.memory, VMAS.ranges)
    assert found.used[:, 0].tolist() == [ARENA, ARENA + 3 * POOL]
    assert found.free.tolist() == [[ARENA + 2 * POOL, ARENA + 3 * POOL]]


def test_ranges_may_begin_and_end_within_a_pool() -> None:
    written = Written(VMAS)
    for at in range(8):
        header(written, ARENA + at * POOL, 1, 5)
    part = np.array([[ARENA + PAGE, ARENA + 4 * POOL + PAGE]], np.uint64)
    found = pools(written.memory, part)
    assert found.used[:, 0].tolist() == [ARENA + at * POOL for at in (1, 2, 3, 4)]


@pytest.mark.parametrize(("path", "python"), [
    ("/usr/bin/python3.11", True), ("/usr/lib/libpython3.13.so.1.0", True),
    ("/usr/bin/perl", False), ("/opt/python3.11/bin/node", False),
])
def test_an_interpreter_is_told_by_its_name(path: str, python: bool) -> None:
    assert is_python(vmas([(0x1000, 1, READ, 0, Backing.FILE, path)])) is python
