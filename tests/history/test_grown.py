"""By how much VMAs grew between two readings of smaps, made by hand."""

from __future__ import annotations

import numpy as np

from pagewalk.history.grown import grown
from pagewalk.model.columns import Backing
from pagewalk.proc.smaps import Smaps
from tests.history.spaces import vmas
from tests.snapshot.by_hand import PAGE

ANON = Backing.ANON


def smaps(*blocks: tuple[int, int, int]) -> Smaps:
    """Return smaps of VMAs from page to page, each with pages that it has alone."""
    start, end, amount = (np.array(column, np.int64) * PAGE for column in zip(*blocks, strict=True))
    none = np.zeros(len(blocks), np.int64)
    return Smaps(start.astype(np.uint64), end.astype(np.uint64),
                 {"Private_Clean": none, "Private_Dirty": amount, "Pss": amount, "Rss": amount,
                  "Swap": none}, (), none)


def test_each_has_what_it_has_more() -> None:
    now = vmas((10, 8, ANON, "[heap]", 0), (40, 4, ANON, "", 0))
    found = grown(now, smaps((10, 12, 2), (40, 44, 3)), smaps((10, 18, 7), (40, 44, 1)))
    assert [amount // PAGE for amount in found.each["uss"]] == [5, -2]
    assert found.each["swap"].tolist() == [0, 0] and not any(found.rest.values())


def test_a_stack_grows_at_its_beginning() -> None:
    found = grown(vmas((80, 20, ANON, "[stack]", 0)), smaps((90, 100, 3)), smaps((80, 100, 9)))
    assert found.each["rss"].tolist() == [6 * PAGE]


def test_of_what_was_unmapped_the_rest_is_told() -> None:
    found = grown(vmas((10, 8, ANON, "", 0)), smaps((10, 18, 2), (40, 44, 3)), smaps((10, 18, 2)))
    assert found.each["pss"].tolist() == [0] and found.rest["pss"] == -3 * PAGE


def test_a_new_process_has_grown_by_all_that_it_has() -> None:
    found = grown(vmas((10, 8, ANON, "", 0)), None, smaps((10, 18, 2)))
    assert found.each["pss"].tolist() == [2 * PAGE]
