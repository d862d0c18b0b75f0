"""Which process and which mapping is which."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from pagewalk.history.matching import Pair, in_order, match, same_addresses, same_places
from pagewalk.model.columns import Backing, VMAs
from tests.history.spaces import member, vmas
from tests.snapshot.by_hand import PAGE

ANON, FILE = Backing.ANON, Backing.FILE
OLD = member(1, started=5)


def sections(before: VMAs, after: VMAs, *, same: bool = True) -> list[tuple[int, ...]]:
    """Return what corresponds, in pages, and in which VMAs."""
    found = same_addresses(before, after) if same else same_places(before, after, True)
    columns = (found.before // PAGE, found.after // PAGE, found.size // PAGE, found.vma,
               found.vma_after)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_a_process_is_the_same_if_it_was_started_at_the_same_time_of_the_same_boot() -> None:
    assert match([OLD], [OLD], True).pairs == (Pair(OLD, OLD, True),)
    again = member(1, started=6)
    assert match([OLD], [again], True).pairs == (Pair(OLD, again, False),)
    assert match([OLD], [OLD], False).pairs == (Pair(OLD, OLD, False),)
    unknown = member(1, started=None)
    assert match([unknown], [unknown], True).pairs[0].same is False


def test_processes_of_two_runs_are_matched_by_what_only_they_have() -> None:
    first = [member(1, command="a"), member(2, command="b"), member(3, program="/x", command="")]
    then = [member(7, command="b"), member(8, command="a"), member(9, program="/x", command="")]
    found = match(first, then, False)
    assert [(pair.before.pid, pair.after.pid) for pair in found.pairs] == [(2, 7), (1, 8), (3, 9)]
    assert found.ended == found.began == ()


def test_what_could_be_either_is_not_matched() -> None:
    first = [member(1, command="a")]
    then = [member(7, command="a"), member(8, command="a")]
    found = match(first, then, False)
    assert (found.pairs, found.ended, found.began) == ((), tuple(first), tuple(then))
    # Of two that are alike one is the very same process: so the other is new.
    found = match(first, [first[0], then[0]], True)
    assert found.pairs == (Pair(first[0], first[0], True),) and found.began == (then[0],)


def test_the_same_address_of_the_same_mapping() -> None:
    before = vmas((10, 8, ANON, "[heap]", 0), (30, 4, FILE, "/a", 2), (40, 4, FILE, "/b", 0))
    # The heap grew, /a was mapped again two pages further up, another file is where /b was.
    after = vmas((10, 12, ANON, "[heap]", 0), (32, 4, FILE, "/a", 4), (40, 4, FILE, "/c", 0))
    assert sections(before, after) == [(10, 10, 8, 0, 0), (32, 32, 2, 1, 1)]
    # /a at an offset that does not fit
    assert sections(before, vmas((30, 4, FILE, "/a", 3))) == []


def test_a_mapping_that_was_split_or_merged_is_the_same() -> None:
    whole = vmas((10, 8, ANON, "", 0))
    split = vmas((10, 3, ANON, "", 0), (13, 2, ANON, "", 0), (15, 3, ANON, "", 0))
    assert sections(whole, split) == [(10, 10, 3, 0, 0), (13, 13, 2, 0, 1), (15, 15, 3, 0, 2)]
    assert sections(split, whole) == [(10, 10, 3, 0, 0), (13, 13, 2, 1, 0), (15, 15, 3, 2, 0)]


def test_in_another_process_files_are_compared_by_their_place() -> None:
    before = vmas((10, 8, ANON, "[heap]", 0), (30, 4, FILE, "/a", 0), (34, 4, FILE, "/a", 4),
                  (50, 2, FILE, "/b", 0), (60, 2, FILE, "/b", 0))
    after = vmas((110, 8, ANON, "[heap]", 0), (130, 4, FILE, "/a", 0), (134, 9, FILE, "/a", 4),
                 (150, 2, FILE, "/b", 0), (160, 2, FILE, "/b", 0))
    assert sections(before, after, same=False) == [
        (30, 130, 4, 1, 1), (34, 134, 4, 2, 2), (50, 150, 2, 3, 3), (60, 160, 2, 4, 4)]


def test_mappings_in_another_order_are_left_out() -> None:
    before = vmas((10, 1, FILE, "/a", 0), (20, 1, FILE, "/b", 0), (30, 1, FILE, "/c", 0))
    after = vmas((10, 1, FILE, "/b", 0), (20, 1, FILE, "/c", 0), (30, 1, FILE, "/a", 0))
    assert sections(before, after, same=False) == [(20, 10, 1, 1, 0), (30, 20, 1, 2, 1)]


@pytest.mark.parametrize("seed", range(30))
def test_as_many_are_in_order_as_can_be(seed: int) -> None:
    rng = random.Random(seed)
    seconds = rng.sample(range(20), rng.randrange(9))
    pairs = list(enumerate(seconds))
    found = in_order(pairs)
    assert found == [pair for pair in pairs if pair in found]
    assert [b for _, b in found] == sorted(b for _, b in found)
    longest = max(n for n in range(len(pairs) + 1) for some in combinations(seconds, n)
                  if list(some) == sorted(some))
    assert len(found) == longest
