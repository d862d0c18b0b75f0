"""What the kernel counts under a name: of each kind of page, whether it is counted."""

from __future__ import annotations

import pytest

from pagewalk.model.columns import Bool
from pagewalk.model.frames import MAPPED_WHOLE, Kind
from pagewalk.system.census import Census, Count
from pagewalk.system.counted_as import in_swap_cache, in_writeback, on_lru, unevictable, whole
from tests.system.by_hand import Run, frames

LISTED = {Kind.ANON, Kind.KSM, Kind.FILE, Kind.SHMEM, Kind.SWAP_CACHE}


def census(*flags: str, order: int = 0, facts: int = 0) -> Census:
    """Return a page of each kind with these flags."""
    count = Count(9)
    count.add(frames(*(Run(kind, 1, flags, order=order, facts=facts) for kind in Kind)))
    return count.census


def kinds(found: Census, where: Bool) -> set[Kind]:
    return {Kind(kind) for kind in found.kind[where].tolist()}


def test_pages_on_lists_are_of_processes_and_files() -> None:
    found = census("lru", "swapbacked", "active")
    assert kinds(found, on_lru(found, anon=True)) == LISTED
    assert kinds(found, on_lru(found, anon=True, active=False)) == set()
    assert kinds(found, on_lru(found, anon=False)) == set()


@pytest.mark.parametrize(("flags", "counted"), [
    (("lru", "unevictable"), LISTED), (("unevictable",), set()), (("lru",), set()),
])
def test_unevictable_pages_are_on_their_list(flags: tuple[str, ...], counted: set[Kind]) -> None:
    found = census(*flags)
    assert kinds(found, unevictable(found)) == counted
    assert kinds(found, on_lru(found, anon=False)) == (LISTED if flags == ("lru",) else set())


def test_what_is_being_written_is_of_processes_or_files() -> None:
    found = census("writeback")
    assert kinds(found, in_writeback(found)) == LISTED


def test_what_is_in_swap_too() -> None:
    assert kinds(census(), in_swap_cache(census())) == {Kind.SWAP_CACHE}
    found = census("swapcache")  # of a file, the flag means another thing (PG_owner_priv_1)
    assert kinds(found, in_swap_cache(found)) == LISTED - {Kind.FILE}


def test_what_is_mapped_whole_is_huge() -> None:
    for order, counted in ((9, {Kind.FILE, Kind.SHMEM}), (8, set())):
        found = census(order=order, facts=MAPPED_WHOLE)
        assert kinds(found, whole(found, Kind.FILE, Kind.SHMEM)) == counted
