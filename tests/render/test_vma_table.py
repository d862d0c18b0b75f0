"""The table of VMAs as text: which columns fit, the totals, and which are the kernel's own."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from pagewalk.render.vma_table import LEAST_WANTED, VmaTable, total, vma_table
from tests import by_hand

COLUMNS = ("rss", *LEAST_WANTED)
ROWS = list(range(len(by_hand.VMAS)))


def fitted(room: int | None) -> VmaTable:
    return vma_table(by_hand.table(), ROWS, COLUMNS, room, "NAME", foot=True, flags=False)


def test_the_least_important_columns_are_dropped_until_the_rest_fits() -> None:
    rooms = range(40, 200)
    for room in rooms:
        found = fitted(room)
        gone = [name for name in COLUMNS if name not in found.shown]
        assert set(gone) == set(LEAST_WANTED[: len(gone)])
        assert len(found.left_out) == len(gone)
        assert len(gone) == len(LEAST_WANTED) or max(map(len, found.lines)) <= room
    assert all(set(fitted(a).shown) <= set(fitted(b).shown) for a, b in pairwise(rooms))
    assert fitted(None).shown == fitted(rooms[-1]).shown == list(COLUMNS)
    assert len(fitted(rooms[0]).shown) < len(COLUMNS)


def test_the_footer_is_the_total_and_without_a_total_there_is_none() -> None:
    sizes = [str(size >> 10) for size in by_hand.VMAS.size[:2].tolist()]
    for foot, end in ((False, []), (True, [total(by_hand.table(), "size")])):
        found = vma_table(by_hand.table(), ROWS[:2], ("size",), None, "two", foot=foot, flags=False)
        cells = [line.split()[2] for line in found.lines[:3]]
        assert cells == ["SIZE", *sizes]
        assert [line.split("  total")[0].strip() for line in found.lines[3:]] == end


def test_a_total_from_the_kernel_is_marked() -> None:
    table = replace(by_hand.table(), from_kernel=("pss",))
    assert total(table, "pss") == total(by_hand.table(), "pss") + "*"
    assert not total(table, "rss").endswith("*")
