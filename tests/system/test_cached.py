"""The page cache by file and owner, from frames laid out by hand; and in how much memory."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.model.bits import kpf
from pagewalk.model.frames import ORDER_SHIFT, Frames, Kind
from pagewalk.system import cached
from pagewalk.system.cached import CachedFiles, CacheSums, add_up_files
from tests.system import large

A, B, C = 0xFFFF_8880_0000_1000, 0xFFFF_8880_0000_2000, 0xFFFF_8880_0000_3000
ONE, TWO = 0xFFFF_8881_0000_0000, 0xFFFF_8881_0000_1000
DIRTY, ACTIVE, WRITEBACK = (int(kpf(name)) for name in ("dirty", "active", "writeback"))

# pages, kind, flags, order, mapcount, owner, object
Run = tuple[int, Kind, int, int, int, int, int]


def batch(*runs: Run, owned: bool = True, orders: bool = True) -> Frames:
    columns = zip(*runs, strict=True) if runs else [()] * 7
    pages, kind, flags, order, mapcount, owner, object_ = columns
    count = np.array(pages, np.int64)
    return Frames(
        pfn=np.cumsum(count) - count, pages=count, kind=np.array(kind, np.uint8),
        flags=np.array(flags, np.uint64),
        facts=np.array(order, np.uint8) << ORDER_SHIFT if orders else None,
        mapcount=np.array(mapcount, np.int32),
        owner=np.array(owner, np.uint64) if owned else None,
        object=np.array(object_, np.uint64), counts=None,
    )


def rows(found: CachedFiles) -> set[tuple[int, ...]]:
    columns = (found.object, found.owner, found.pages, found.mapped, found.dirty, found.active,
               found.huge, found.shmem)
    every = [tuple(map(int, row)) for row in zip(*columns, strict=True)]
    assert len(every) == len(set(every))
    return set(every)


FIRST = batch(
    (4, Kind.FILE, 0, 0, 0, ONE, A),
    (100, Kind.ANON, DIRTY, 0, 1, ONE, 0),
    (2, Kind.FILE, DIRTY, 0, 3, ONE, A),
    (512, Kind.SHMEM, DIRTY | ACTIVE, 9, 1, TWO, B),
    (7, Kind.SLAB, 0, 0, 0, 0, C),
)
SECOND = batch(
    (1, Kind.FILE, WRITEBACK | ACTIVE, 0, 0, TWO, A),
    (8, Kind.FILE, ACTIVE, 3, 0, ONE, A),
    (16, Kind.FILE, 0, 4, 0, 0, C),
)


def test_each_file_and_owner_is_a_row() -> None:
    assert rows(add_up_files([FIRST, SECOND])) == {
        #            pages mapped dirty active huge shmem
        (A, ONE, 14, 2, 2, 8, 0, 0),
        (A, TWO, 1, 0, 1, 1, 0, 0),
        (B, TWO, 512, 512, 512, 512, 512, 1),
        (C, 0, 16, 0, 0, 0, 0, 0),
    }


def test_rows_of_a_file_follow_one_another() -> None:
    assert add_up_files([SECOND, FIRST]).object.tolist() == [A, A, B, C]


def test_what_no_frame_tells_is_withheld() -> None:
    found = add_up_files([batch((4, Kind.FILE, 0, 0, 0, 0, A), owned=False, orders=False)])
    assert (found.owner, found.huge) == (None, None)
    assert (found.object.tolist(), found.pages.tolist()) == ([A], [4])
    mixed = add_up_files([FIRST, batch((4, Kind.FILE, 0, 0, 0, 0, A), orders=False)])
    assert mixed.huge is None
    assert mixed.owner is not None


def test_nothing_cached() -> None:
    assert len(add_up_files([])) == 0
    assert len(add_up_files([batch(), batch((1, Kind.ANON, 0, 0, 1, ONE, 0))])) == 0


def test_many_batches_add_up_to_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    # in every order of known, new and merged rows
    monkeypatch.setattr(cached, "_FEWEST", 50)
    chance = np.random.default_rng(13)
    sums = CacheSums()
    expected: dict[tuple[int, int], int] = {}
    for _ in range(60):
        which, owner = chance.integers(0, 300, 40), chance.integers(0, 3, 40)
        pages = chance.integers(1, 1000, 40)
        sums.add(batch(*(
            (size, Kind.FILE, 0, 0, 0, ONE + 64 * of, A + 4096 * at)
            for at, of, size in zip(which.tolist(), owner.tolist(), pages.tolist(), strict=True)
        )))
        for at, of, size in zip(which.tolist(), owner.tolist(), pages.tolist(), strict=True):
            key = (A + 4096 * at, ONE + 64 * of)
            expected[key] = expected.get(key, 0) + size
    found = sums.files()
    assert {row[:2]: row[2] for row in rows(found)} == expected
    assert (np.diff(found.object.astype(np.int64)) >= 0).all()


def test_two_pairs_with_the_same_key_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    # with this factor the key of a pair is the sum of its addresses
    monkeypatch.setattr(cached, "_FACTOR", np.uint64(1))
    monkeypatch.setattr(cached, "_FEWEST", 1)
    one = (3, Kind.FILE, 0, 0, 0, ONE, A + 4096)
    two = (5, Kind.FILE, 0, 0, 0, ONE + 4096, A)
    found = add_up_files([batch(one, two), batch(two), batch(one), batch(two, one)])
    assert found.owner is not None
    by_pair = dict.fromkeys([(A + 4096, ONE), (A, ONE + 4096)], 0)
    for at, of, size in zip(found.object, found.owner, found.pages, strict=True):
        by_pair[int(at), int(of)] += int(size)
    assert list(by_pair.values()) == [9, 15]


def test_more_pages_than_32_bits_hold() -> None:
    half = (1 << 31, Kind.FILE, DIRTY, 0, 0, ONE, A)
    found = add_up_files([batch(half), batch(half), batch(half, (3, Kind.FILE, 0, 0, 0, TWO, A))])
    assert rows(found) == {
        (A, ONE, 3 << 31, 0, 3 << 31, 0, 0, 0), (A, TWO, 3, 0, 0, 0, 0, 0),
    }


def test_a_million_files_in_256_gib_take_less_than_150_mb() -> None:
    peak, _ = large.measured("files")
    assert peak < 150
