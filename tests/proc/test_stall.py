"""How long a read may hold the target's lock: measured, and the next read sized to fit."""

from __future__ import annotations

import pytest

from pagewalk.proc.stall import Slice, Stall

BUDGET = 5_000_000


def test_the_longest_read_is_kept_with_its_file() -> None:
    stall = Stall()
    for took, where in ((10, "maps"), (30, "pagemap"), (20, "smaps")):
        stall.note(took, where)
    assert (stall.longest_ns, stall.where, stall.last_ns, stall.reads) == (30, "pagemap", 20, 3)


def test_a_read_that_fails_is_timed_too() -> None:
    stall = Stall()
    with pytest.raises(OSError), stall.timed("maps"):
        raise OSError
    assert (stall.reads, stall.where) == (1, "maps")
    assert stall.longest_ns > 0


@pytest.mark.parametrize(
    ("took", "expected"),
    [
        (BUDGET, 50),  # over a tenth of the budget: halve
        (BUDGET // 10 + 1, 50),
        (BUDGET // 10, 100),
        (BUDGET // 25, 100),
        (BUDGET // 25 - 1, 200),  # far below: double
        (0, 200),
    ],
)
def test_a_slice_keeps_reads_near_a_tenth_of_the_budget(took: int, expected: int) -> None:
    stall = Stall(BUDGET)
    stall.note(took, "pagemap")
    piece = Slice(100, 1, 1000)
    piece.adapt(stall)
    assert piece.size == expected


@pytest.mark.parametrize(("took", "expected"), [(BUDGET, 64), (0, 160)])
def test_a_slice_stays_within_its_limits(took: int, expected: int) -> None:
    stall = Stall(BUDGET)
    stall.note(took, "pagemap")
    piece = Slice(100, 64, 160)
    for _ in range(5):
        piece.adapt(stall)
    assert piece.size == expected


def test_a_smaller_budget_means_shorter_reads() -> None:
    # On a machine that needs 10 us per unit of work, the size settles where a read takes no more
    # than a fifth of the budget.
    def settled(budget_ns: int) -> int:
        stall, piece = Stall(budget_ns), Slice(1 << 14, 1, 1 << 20)
        for _ in range(40):
            stall.note(10_000 * piece.size, "pagemap")
            piece.adapt(stall)
        return piece.size

    assert settled(BUDGET) * 10_000 <= BUDGET // 5
    assert settled(BUDGET // 100) * 10_000 <= BUDGET // 500
