"""Physical memory as a picture: the screen of ``ram --map`` and its document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TextIO

import numpy as np
import numpy.typing as npt

from pagewalk.model.columns import I64, Withheld
from pagewalk.model.facts import Facts
from pagewalk.render.amounts import kib, size
from pagewalk.render.document import missing, write
from pagewalk.render.terminal import following, paint, say, say_grid, say_missing, width
from pagewalk.system.ram import GROUPS
from pagewalk.system.ram_map import RamMap

LETTERS = {"processes": "P", "cache": "C", "shared": "S", "kernel": "K", "free": ".", "boot": "B"}
MOST_ACROSS, LEAST_ACROSS = 64, 8  # stretches in a line


def text(found: RamMap, facts: Facts, out: TextIO, *, withheld: Iterable[Withheld] = ()) -> None:
    """Write a letter for each stretch, with addresses, then how much each letter stands for.

    A capital is the largest use of the RAM in a stretch; see `letters`.
    """
    total = int(found.stretches.pages.sum()) * facts.page_size
    each = facts.page_size << found.shift
    say(f"{size(total)} of RAM by physical address, {size(each)} each character. A capital is its"
        " largest use; where that is free, a small letter is the next one.", out, look="main")
    say(_free_piece(found, facts.page_size), out)
    print(file=out)
    for line in picture(found, each, width(out)):
        print(line if line.startswith("0x") else paint(out, "aside", line), file=out)
    print(file=out)
    say_grid(_legend(found, facts.page_size), {1, 2}, out, room=width(out), yields=2)
    say_missing(withheld, out)
    following(out, "ram", "ram --files", "ram --slab")


def picture(found: RamMap, each: int, room: int | None) -> Iterator[str]:
    """Yield the lines: an address and the letters from it on; where RAM is missing, how much is.

    ``each`` is the bytes of a stretch, ``room`` the columns that a line may take.
    """
    numbers = found.stretches.number
    digits = len(f"{(int(numbers.max(initial=0)) + 1) * each - 1:x}")
    across = _across(room, digits + 4)
    shown = letters(found.stretches.pages)
    lines = numbers // across
    begins = np.flatnonzero(np.diff(lines, prepend=-1))
    expected = 0
    for begin, end in zip(begins, [*begins[1:], len(numbers)], strict=True):
        line = int(lines[begin])
        if line != expected:
            yield f"{' ' * (digits + 4)}no RAM for {size((line - expected) * across * each)}"
        cells = np.full(across, " ")
        cells[numbers[begin:end] - line * across] = shown[begin:end]
        yield f"0x{line * across * each:0{digits}x}  {''.join(cells)}".rstrip()
        expected = line + 1


def letters(pages: I64) -> npt.NDArray[np.str_]:
    """Return the letter of each stretch, given its pages by group.

    A capital for what has most of its pages; where that is free memory a small one, for what comes
    next; a dot if all are free.
    """
    capitals = np.array(list(LETTERS.values()))
    free = list(LETTERS).index("free")
    used = pages.copy()
    used[:, free] = 0
    small = np.where(used.any(axis=1), np.char.lower(capitals)[used.argmax(axis=1)], ".")
    most = pages.argmax(axis=1)
    return np.where(most == free, small, capitals[most])


def _across(room: int | None, taken: int) -> int:
    # A power of two: then each line begins at a round address.
    across = MOST_ACROSS
    while room is not None and across > LEAST_ACROSS and taken + across > room:
        across //= 2
    return across


def _free_piece(found: RamMap, page: int) -> str:
    piece = found.largest_free
    if piece is None:
        return "No frame is free."
    return (f"The largest piece that is free is {size(piece.pages * page)}, from"
            f" {piece.pfn * page:#x} on.")


def _legend(found: RamMap, page: int) -> list[list[str]]:
    pages = found.stretches.pages.sum(axis=0).tolist()
    rows = [[kib(amount * page), letter, GROUPS[group]]
            for (group, letter), amount in zip(LETTERS.items(), pages, strict=True)]
    return [["", "", "WHAT"], *rows, [kib(sum(pages) * page), "", "total; a blank has no RAM"]]


def json(found: RamMap, facts: Facts, out: TextIO, *, withheld: Iterable[Withheld] = ()) -> None:
    """Write every stretch with its bytes by group."""
    page, piece = facts.page_size, found.largest_free
    each = page << found.shift
    rows = found.stretches.pages * page
    write(
        {
            "total": int(rows.sum()),
            "groups": dict(zip(GROUPS, rows.sum(axis=0).tolist(), strict=True)),
            "largest_free": None if piece is None else {
                "at": piece.pfn * page, "bytes": piece.pages * page},
            "each": each,
            "stretches": [
                {"at": number * each, **dict(zip(GROUPS, amounts, strict=True)),
                 "hole": each - sum(amounts)}
                for number, amounts in zip(
                    found.stretches.number.tolist(), rows.tolist(), strict=True)
            ],
            **missing(withheld),
        },
        out,
    )
