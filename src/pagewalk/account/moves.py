"""How much amounts moved while they were read, VMA by VMA. No I/O.

There are three readings: two by one reader and, between them, one by the other (smaps and our own
walk, either way round). A VMA that looks the same to the first reader both times did not change, as
far as we can tell; for one that does not, the other's reading is a third sample of a moving amount.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from pagewalk.account.table import Table
from pagewalk.model.columns import I64, U64, Bool
from pagewalk.proc.smaps import Smaps

# The fields of smaps that add up to each of our columns.
FIELDS = {
    "size": ("Size",), "rss": ("Rss",), "pss": ("Pss",), "uss": ("Private_Clean", "Private_Dirty"),
    "anon": ("Anonymous",), "lazyfree": ("LazyFree",), "swap": ("Swap",), "locked": ("Locked",),
}


class Reading(NamedTuple):
    """What was read of each VMA: its edges (u64) and columns (i64 bytes, None if not reported)."""

    start: U64
    end: U64
    columns: Mapping[str, I64 | None]


class Moves(NamedTuple):
    """Three readings side by side; each VMA that occurs in any of them has a number.

    ``rows`` (i64) are the numbers of each reading's VMAs. By number, ``alone`` (bool) marks VMAs
    that are not in all three, and ``own`` (bool) those whose edges or Rss moved, which no other
    process can cause.
    """

    readings: tuple[Reading, Reading, Reading]
    rows: tuple[I64, I64, I64]
    alone: Bool
    own: Bool


def of_smaps(smaps: Smaps) -> Reading:
    """Return smaps as a Reading."""
    zero = np.zeros(len(smaps.start), np.int64)
    columns = {
        name: sum((smaps.columns.get(field, zero) for field in fields), zero)
        for name, fields in FIELDS.items()
    }
    return Reading(smaps.start, smaps.end, columns)


def of_table(table: Table) -> Reading:
    """Return a walk as a Reading."""
    return Reading(table.vmas.start, table.vmas.end, table.columns)


def compare(first: Reading, last: Reading, other: Reading) -> Moves:
    """Align two readings by one reader with the ``other`` reader's in between."""
    readings = (first, last, other)
    rows, count = align(*((reading.start, reading.end) for reading in readings))
    alone = np.bincount(np.concatenate(rows), minlength=count) < len(rows)
    moves = Moves(readings, rows, alone, alone)
    return moves._replace(own=alone | moved(moves, "rss"))


def align(*edges: tuple[U64, U64]) -> tuple[tuple[I64, I64, I64], int]:
    """Return the numbers (i64) of three readings' VMAs and how many there are.

    VMAs with the same start and end have the same number.
    """
    first = edges[0]
    if all(np.array_equal(first, other) for other in edges[1:]):
        row = np.arange(len(first[0]))
        return (row, row, row), len(row)
    start, end = (np.concatenate([pair[i] for pair in edges]) for i in (0, 1))
    order = np.lexsort((end, start))
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(start[order]) != 0) | (np.diff(end[order]) != 0)
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(new) - 1
    ends = np.cumsum([len(pair[0]) for pair in edges])
    one, two, three = np.split(number, ends[:-1])
    return (one, two, three), int(new.sum())


def shift(moves: Moves | None, column: str) -> tuple[int, int]:
    """Return how far ``column`` moved: the spread of its readings, for each VMA that changed.

    In bytes: of the VMAs whose edges or Rss moved, and of those that only other processes changed,
    by mapping the same pages. If a reader does not report the column, nothing is known to have
    moved.
    """
    if moves is None or not (which := moved(moves, column) | moves.alone).any():
        return 0, 0
    told = [values for i in range(3) if (values := at(moves, i, column)) is not None]
    if len(told) < 2:
        return 0, 0
    spread = np.maximum.reduce(told) - np.minimum.reduce(told)
    own = which & moves.own
    return int(spread[own].sum()), int(spread[which & ~own].sum())


def moved(moves: Moves, column: str) -> Bool:
    first, last = at(moves, 0, column), at(moves, 1, column)
    if first is None or last is None or moves.readings[0] is moves.readings[1]:
        return np.zeros(len(moves.alone), bool)
    differ: Bool = first != last
    return differ


def at(moves: Moves, which: int, column: str) -> I64 | None:
    # One reading's values by VMA number, 0 for a VMA that it does not have.
    values = moves.readings[which].columns.get(column)
    if values is None:
        return None
    out = np.zeros(len(moves.alone), np.int64)
    out[moves.rows[which]] = values
    return out
