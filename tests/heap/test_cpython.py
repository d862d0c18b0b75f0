"""CPython's pools, by their headers. tests/live/test_heap.py asks the interpreter itself."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.heap.cpython import COOKIE, LARGE, LAYOUTS, SMALL, Build, pools, python_build
from pagewalk.model.columns import READ, WRITE, Backing
from tests.by_hand import PAGE, vmas
from tests.heap.test_glibc import Written

POOL = LARGE[0]
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
    header(written, ARENA + 7 * POOL, POOL // 16, 0)  # more blocks than there is room for
    found = pools(written.memory, VMAS.ranges, POOL)
    assert found.used[:, 0].tolist() == [ARENA, ARENA + 3 * POOL]
    assert found.blocks == 7 * 16 + 1 * 96
    assert found.free.tolist() == [[ARENA + 2 * POOL, ARENA + 3 * POOL]]


def test_ranges_may_begin_and_end_within_a_pool() -> None:
    written = Written(VMAS)
    for at in range(8):
        header(written, ARENA + at * POOL, 1, 5)
    part = np.array([[ARENA + PAGE, ARENA + 4 * POOL + PAGE]], np.uint64)
    found = pools(written.memory, part, POOL)
    assert found.used[:, 0].tolist() == [ARENA + at * POOL for at in (1, 2, 3, 4)]


def test_older_ones_have_smaller_pools() -> None:
    small = SMALL[0]
    written = Written(VMAS)
    header(written, ARENA + small, 7, 2, limit=small - 16 * 3)
    header(written, ARENA + 2 * small, 0, 2, limit=small - 16 * 3)
    found = pools(written.memory, VMAS.ranges, small)
    assert found.used.tolist() == [[ARENA + small, ARENA + 2 * small]]
    assert found.free.tolist() == [[ARENA + 2 * small, ARENA + 3 * small]]


LIBRARY = 0x7F00_0000_0000


def built(path: str, *words: int) -> Build | None:
    """Return what is told of an interpreter at ``path`` with ``words`` among its variables."""
    written = Written(vmas([(LIBRARY, 4, READ | WRITE, 0, Backing.FILE, path)]))
    written.put(LIBRARY + 0x1040, *words)
    return python_build(written.memory)


@pytest.mark.parametrize("path", ["/usr/bin/perl", "/opt/python3.11/bin/node", "[python3.11]"])
def test_what_is_no_interpreter_is_none(path: str) -> None:
    assert built(path) is None


@pytest.mark.parametrize(("path", "minor"), [
    ("/usr/bin/python3.8", 8), ("/usr/bin/python3.11", 11), ("/usr/lib/libpython3.12.so.1.0", 12),
])
def test_up_to_3_12_the_name_tells(path: str, minor: int) -> None:
    assert built(path) == Build(minor, *LAYOUTS[minor], "")


HEX = 0x03_0D_05_F0  # PY_VERSION_HEX of 3.13.5


def test_from_3_13_on_it_says_itself_whether_there_is_a_gil() -> None:
    path = "/usr/lib/libpython3.13.so.1.0"
    assert built(path, COOKIE, HEX, 0) == Build(13, *LARGE, "")
    without = built("/usr/bin/python3.13t", COOKIE, HEX, 1)
    assert without is not None and without.pool == 0 and "without the GIL" in without.why


@pytest.mark.parametrize("words", [
    (), (COOKIE, HEX, 2), (COOKIE, 0x030E00F0, 0), (COOKIE + 1, HEX, 0),
])
def test_without_that_record_its_pools_are_withheld(words: tuple[int, ...]) -> None:
    found = built("/usr/bin/python3.13", *words)
    assert found is not None and found.pool == 0 and "was not found" in found.why


@pytest.mark.parametrize("minor", [4, 7, 15, 999])
def test_versions_that_are_not_known_are_withheld(minor: int) -> None:
    found = built(f"/usr/bin/python3.{minor}", COOKIE, 3 << 24 | minor << 16, 0)
    assert found == Build(minor, 0, 0, f"the pools of Python 3.{minor} are not known")
