"""The table of pages as text: a column of cells for each name, without a loop over pages."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from pagewalk.model.columns import U8, U64, Pages
from pagewalk.model.rules import IS_PRESENT
from pagewalk.render import describe
from pagewalk.render import lines as pieces
from pagewalk.render.amounts import STYLE, human
from pagewalk.render.columns import titles
from pagewalk.snapshot.runs import ANEW

COLUMNS = ("phys", "size", "state", "mapcount", "flags")

# What goes on a narrow terminal, in this order.
LEAST_WANTED = ("phys", "pfn", "swap", "size", "mapcount", "state")
FLAGS = 10  # columns that flags need; they may take more than one line


class Cell(NamedTuple):
    """How a column is made of (rows, page size), and how wide it is; ``wide`` < 0: to the left."""

    wide: int
    made: Callable[[Pages, int], U8 | str]


def length(rows: Pages) -> U8:
    """Return the size of each row, in the unit that STYLE asks for."""
    if not STYLE.get().human:
        return pieces.decimal(rows.size >> np.uint64(10))
    distinct, index = np.unique(rows.size, return_inverse=True)  # few sizes are different
    texts = [human(size) for size in distinct.tolist()]
    wide = max(map(len, texts))
    return pieces.labels([text.rjust(wide) for text in texts], index)


def number(rows: Pages, column: U64 | None) -> U8 | str:
    """Return ``column``, of what is present, to the right; ``-`` where there is none."""
    if column is None:
        return "-"
    known = IS_PRESENT[rows.state] & (column < np.uint64(ANEW))
    told = pieces.decimal(np.where(known, column, np.uint64(0)))
    return pieces.where(known, told, "-".rjust(told.shape[1]))


CELLS = {
    "addr": Cell(-16, lambda rows, _: pieces.hexadecimal(rows.addr)),
    "phys": Cell(-16, lambda rows, page_size: describe.physical(rows, page_size, "-")),
    "size": Cell(9, lambda rows, _: length(rows)),
    "state": Cell(-10, lambda rows, _: describe.states(rows)),
    "mapcount": Cell(5, lambda rows, _: number(rows, rows.mapcount)),
    "pfn": Cell(10, lambda rows, _: number(rows, rows.pfn)),
    "swap": Cell(-12, lambda rows, _: describe.swap_place(rows, "", ":", "", "-")),
    "flags": Cell(0, lambda rows, _: pieces.beside(
        describe.flag_words(rows), describe.swap_place(rows, "swap ", ":", "", ""))),
}


def shown(columns: Sequence[str] | None) -> list[str]:
    """Return the columns in the order of the screen: flags, of any length, are the last."""
    wanted = COLUMNS if columns is None else columns
    return ["addr", *sorted(wanted, key=lambda name: CELLS[name].wide == 0)]


def fit(names: Sequence[str], room: int | None) -> list[str]:
    """Return the columns that fit into ``room``; flags go first, then what is not named first."""
    kept = list(names)
    for name in ("flags", *(name for name in LEAST_WANTED if name in names)):
        taken = sum(abs(CELLS[one].wide) or FLAGS for one in kept) + 2 * (len(kept) - 1)
        if room is None or taken <= room:
            break
        if name in kept:
            kept.remove(name)
    return kept


def heading(names: Sequence[str]) -> str:
    """Return the line above the pages."""
    told = titles("pages") | ({"size": "SIZE"} if STYLE.get().human else {})
    return "  ".join(
        told[name].ljust(-CELLS[name].wide) if CELLS[name].wide <= 0
        else told[name].rjust(CELLS[name].wide) for name in names
    ).rstrip()


def page_lines(rows: Pages, page_size: int, names: Sequence[str]) -> bytes:
    """Return a line for each of ``rows``, with the columns ``names``."""
    cells: list[U8 | str] = []
    for name in names:
        wide, made = CELLS[name]
        cell = pieces.text(made(rows, page_size), len(rows))
        if wide > 0 or name != names[-1]:
            cell = pieces.ljust(cell, -wide) if wide < 0 else pieces.rjust(cell, wide)
        gap = pieces.where(cell.max(axis=1, initial=0) != 0, "  ", "")
        cells += [gap, cell] if cells else [cell]
    return pieces.lines(*cells)
