"""How far numbers moved, VMA by VMA, with three readings made by hand."""

from __future__ import annotations

import numpy as np

from pagewalk.account.moves import align, compare, of_smaps, of_table, shift
from pagewalk.account.table import by_vma
from pagewalk.model.columns import READ, WRITE, Backing
from pagewalk.proc.smaps import Smaps
from tests import by_hand
from tests.by_hand import PAGE

KIB = 1024


def smaps(*rows: tuple[int, int, int, int]) -> Smaps:
    """Return smaps of VMAs (page number, pages, Rss KiB, Pss KiB)."""
    table = np.array(rows, np.int64).reshape(-1, 4)
    start = (table[:, 0] * PAGE).astype(np.uint64)
    end = start + (table[:, 1] * PAGE).astype(np.uint64)
    columns = {
        "Size": table[:, 1] * PAGE, "Rss": table[:, 2] * KIB, "Pss": table[:, 3] * KIB,
    }
    return Smaps(start, end, columns, (frozenset(),), np.zeros(len(table), np.int64))


def moves(
    before: Smaps, after: Smaps, *vmas: tuple[int, int], pss: tuple[int, ...] = ()
) -> tuple[int, int]:
    """Return how Pss moved, with a walk of ``vmas`` (page number, pages) that found ``pss`` KiB."""
    rows = [(first * PAGE, pages, READ | WRITE, 0, Backing.ANON, "") for first, pages in vmas]
    table = by_vma(by_hand.walk([], by_hand.vmas(rows)))
    table.columns["pss"] = np.array(pss, np.int64) * KIB
    first = of_smaps(before)
    last = first if after is before else of_smaps(after)
    return shift(compare(first, last, of_table(table)), "pss")


def test_an_amount_that_reads_the_same_twice_did_not_move_whatever_ours_is() -> None:
    same = smaps((1, 4, 16, 8), (9, 1, 4, 4))
    again = smaps((1, 4, 16, 8), (9, 1, 4, 4))
    assert moves(same, same, (1, 4), (9, 1), pss=(12, 4)) == (0, 0)
    assert moves(same, again, (1, 4), (9, 1), pss=(12, 4)) == (0, 0)


def test_a_vma_moved_by_the_span_of_all_three_readings() -> None:
    before, after = smaps((1, 4, 16, 8), (9, 1, 4, 4)), smaps((1, 4, 16, 9), (9, 1, 4, 4))
    # ours is 6, then 8 and 9: it moved by 3 KiB, because of others, since its Rss held still
    assert moves(before, after, (1, 4), (9, 1), pss=(6, 4)) == (0, 3 * KIB)


def test_moves_of_opposite_sign_do_not_cancel() -> None:
    before, after = smaps((1, 4, 16, 8), (9, 1, 4, 4)), smaps((1, 4, 16, 9), (9, 1, 4, 3))
    assert moves(before, after, (1, 4), (9, 1), pss=(8, 4)) == (0, 2 * KIB)


def test_a_vma_whose_rss_moved_was_changed_by_the_process() -> None:
    before, after = smaps((1, 4, 12, 8)), smaps((1, 4, 16, 12))
    assert moves(before, after, (1, 4), pss=(12,)) == (4 * KIB, 0)


def test_a_vma_missing_from_a_reading_moved_by_its_whole_amount() -> None:
    one, two = (1, 4, 16, 16), (9, 2, 8, 8)
    assert moves(smaps(one, two), smaps(one), (1, 4), pss=(16,)) == (8 * KIB, 0)
    assert moves(smaps(one), smaps(one), (1, 4), (9, 2), pss=(16, 8)) == (8 * KIB, 0)
    # it grew from two pages to three: each size counts as a VMA that came or went
    grown = (9, 3, 12, 12)
    assert moves(smaps(two), smaps(grown), (9, 2), pss=(8,)) == (20 * KIB, 0)


def test_the_same_edges_have_the_same_number() -> None:
    def edges(*pairs: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        table = np.array(pairs, np.uint64).reshape(-1, 2)
        return table[:, 0], table[:, 1]

    rows, count = align(edges((1, 2), (4, 6)), edges((1, 2), (4, 5)), edges((4, 6)))
    assert count == 3
    assert rows[0][0] == rows[1][0]
    assert rows[0][1] == rows[2][0]
    assert len({rows[0][0], rows[0][1], rows[1][1]}) == 3
