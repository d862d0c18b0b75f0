"""Totals that a walk withholds and smaps_rollup has: marked as the kernel's, kept from ours."""

from __future__ import annotations

from dataclasses import replace

from pagewalk.account.rollup import filled, missing
from pagewalk.proc.smaps import parse_smaps
from tests import by_hand

KIB = 1024
ROLLUP = parse_smaps(
    b"00400000-7f0000600000 ---p 00000000 00:00 0   [rollup]\n"
    b"Rss: 2072 kB\nPss: 2062 kB\nPrivate_Clean: 4 kB\nPrivate_Dirty: 2052 kB\nKSM: 4 kB\n"
    b"Swap: 8388608 kB\n"
)


def test_a_withheld_total_is_taken_from_the_kernel() -> None:
    table = filled(by_hand.table(frames=False), ROLLUP)
    told = {name: table.totals[name] for name in table.from_kernel}
    assert told == {"pss": 2062 * KIB, "uss": 2056 * KIB, "ksm": 4 * KIB}
    # The kernel gives the total only, not the amount of each VMA.
    assert all(table.columns[name] is None for name in told)


def test_a_total_without_a_line_on_this_kernel_stays_withheld() -> None:
    table = filled(by_hand.table(frames=False), by_hand.ROLLUP)
    assert (table.from_kernel, table.totals["uss"]) == (("pss",), None)


def test_a_total_of_ours_stays_ours() -> None:
    table = by_hand.table()
    assert missing(table) == []
    assert filled(table, ROLLUP).totals == table.totals


def test_swap_is_never_the_kernels() -> None:
    # 6.18 adds a whole large entry for each page of it.
    table = by_hand.table(frames=False)
    without = replace(table, totals={**table.totals, "swap": None})
    assert filled(without, ROLLUP).totals["swap"] is None
