"""Free chunks, found in heaps built by hand: each set is known from how it was built."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pagewalk.heap import memory
from pagewalk.heap.chunks import Chunks, apart, in_fastbins, listed, look_through, reached
from pagewalk.heap.tcache import OLD
from tests.heap.built import BINS_AT, START, Built, build

SMALL_SIZES = (32, 48, 64, 128)


def layout(seed: int, count: int = 400) -> list[tuple[int, str]]:
    """Return chunks in a random order; no two free ones are neighbours: malloc merges them."""
    chance = random.Random(seed)
    found: list[tuple[int, str]] = []
    for _ in range(count):
        kind = chance.choice(("used", "used", "free", "fast"))
        if kind == "free" and found and found[-1][1] == "free":
            kind = "used"
        size = chance.choice(SMALL_SIZES) if kind == "fast" else 16 * chance.randint(2, 300)
        found.append((size, kind))
    return [*found, (32, "used")]


def free_in(built: Built, *holes: tuple[int, int]) -> tuple[list[tuple[int, int]], bool]:
    found = look_through(built.memory(*holes), built.ranges, (), OLD, 7)
    on, complete = listed(found.free, BINS_AT, built.heads)
    return pairs(found.free.take(on)), complete


def pairs(found: Chunks) -> list[tuple[int, int]]:
    return list(zip(found.addr.tolist(), found.size.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_all_free_chunks_are_found_and_no_others(seed: int) -> None:
    built = build(layout(seed), seed=seed)
    assert free_in(built) == (built.free, True)


@pytest.mark.parametrize("block", [4096, 8192])
def test_a_chunk_may_reach_across_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "BLOCK", block)
    for seed in range(20):
        built = build(layout(seed), seed=seed)
        assert free_in(built) == (built.free, True)


def test_pages_inside_a_free_chunk_may_be_gone() -> None:
    built = build([(64, "used"), (1 << 16, "free"), (64, "used"), (4096, "free"), (64, "used")])
    first = START + 64
    assert free_in(built, (first + 4096 - 64, first + (15 << 12) - 64)) == (built.free, True)


def test_what_is_on_no_list_is_not_free_and_what_leads_nowhere_is_not_complete() -> None:
    built = build([(64, "used"), (256, "free"), (64, "used"), (512, "free"), (64, "used")])
    (addr, size), other = built.free
    # As after unlink_chunk(): the size still stands at both ends, the neighbours do not point back.
    row = np.flatnonzero(built.heads == np.uint64(addr))
    built.heads[row] = 0
    found, complete = free_in(built)
    assert (addr, size) not in found and not complete
    assert other in found


@pytest.mark.parametrize("mangled", [True, False])
def test_all_chunks_in_fastbins_are_found(mangled: bool) -> None:
    for seed in range(10):
        built = build(layout(seed), mangled=mangled, seed=seed)
        found = look_through(built.memory(), built.ranges, SMALL_SIZES, OLD, 7)
        on = in_fastbins(found.small, built.fast)
        assert on is not None
        assert pairs(found.small.take(on)) == sorted(built.quick)


def test_a_fastbin_that_leads_elsewhere_is_torn() -> None:
    built = build([(64, "fast"), (64, "used"), (64, "fast"), (64, "used")])
    built.fast[2] = START + 8
    found = look_through(built.memory(), built.ranges, (64,), OLD, 7)
    assert in_fastbins(found.small, built.fast) is None


def test_of_too_many_chunks_it_is_said_that_these_are_not_all() -> None:
    built = build(layout(1))
    count = len(built.free)
    for most, whole in ((count, True), (count - 1, False)):
        found = look_through(built.memory(), built.ranges, (), OLD, 7, most)
        assert found.whole is whole


def test_a_list_is_followed_whatever_its_length_and_a_ring_ends() -> None:
    for count in (1, 2, 3, 1000, 1025):
        addr = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(16)
        order = np.random.default_rng(count).permutation(count)
        link = np.zeros(count, np.uint64)
        link[order[:-1]] = addr[order[1:]]
        on = reached(addr, link, addr[order[:1]])
        assert on is not None and on.all()
        half = reached(addr, link, addr[order[count // 2 : count // 2 + 1]])
        assert half is not None and half.sum() == count - count // 2
        link[order[-1]] = addr[order[0]]
        ring = reached(addr, link, addr[order[:1]])
        assert ring is not None and ring.all()


def test_chunks_that_begin_inside_another_are_dropped() -> None:
    addr, size = np.array([0, 16, 64, 80], np.uint64), np.array([64, 32, 16, 16], np.uint64)
    found = apart(Chunks(addr, size, addr, addr))
    assert found.addr.tolist() == [0, 64, 80]
