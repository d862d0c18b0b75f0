"""Pages and VMAs as text: the pieces that each output format lays out in its own way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pagewalk.model.bits import KPAGEFLAGS, names
from pagewalk.model.columns import ENTRY_FLAGS, U8, U64, Flag, Pages, State
from pagewalk.model.rules import IS_PRESENT
from pagewalk.model.soft import unpack
from pagewalk.render import lines as pieces
from pagewalk.snapshot.runs import ANEW

STATE_LABELS = [state.label for state in State]
SHOWN_FLAGS = np.uint32(sum(int(flag) for flag in ENTRY_FLAGS.values()))


def states(rows: Pages) -> U8:
    """Return the name of each row's state."""
    return pieces.labels(STATE_LABELS, rows.state)


def physical(
    rows: Pages, page_size: int, otherwise: str, before: str = "", after: str = ""
) -> U8:
    """Return the physical address in 16 hexadecimal digits between the given texts.

    It is ``otherwise`` where it is withheld, as in a recording made without --physical, or the
    page is not present.
    """
    if rows.pfn is None:
        return pieces.text(otherwise, len(rows))
    address = pieces.hexadecimal(rows.pfn * np.uint64(page_size))
    known = IS_PRESENT[rows.state] & (rows.pfn < np.uint64(ANEW))
    return pieces.where(known, pieces.beside(before, address, after), otherwise)


def number(rows: Pages, column: U64 | None, otherwise: str) -> U8:
    """Return a column of ``rows`` (pfn, mapcount) in decimal.

    It is ``otherwise`` where it is withheld or the page is not present.
    """
    if column is None:
        return pieces.text(otherwise, len(rows))
    known = IS_PRESENT[rows.state] & (column < np.uint64(ANEW))
    return pieces.where(known, pieces.decimal(column), otherwise)


def swap_place(rows: Pages, before: str, between: str, after: str, otherwise: str) -> U8:
    """Return the number of the swap device and the offset in pages, joined by the given texts."""
    if rows.pfn is None:
        return pieces.text(otherwise, len(rows))
    kind, offset = map(pieces.decimal, unpack(rows.pfn))
    place = pieces.beside(before, kind, between, offset, after)
    return pieces.where(rows.flags & np.uint32(Flag.SWAP) != 0, place, otherwise)


def flag_words(rows: Pages, quote: str = "", joint: str = ",") -> U8:
    """Return the names of each row's entry flags and frame flags, ``quote``d and joined."""
    left = spell(
        (rows.flags & SHOWN_FLAGS).astype(np.uint64),
        lambda word: [name for name, flag in ENTRY_FLAGS.items() if word & flag],
        quote, joint,
    )
    if rows.kflags is None:
        return left
    right = spell(rows.kflags, lambda word: names(word, KPAGEFLAGS), quote, joint)
    both = (left[:, 0] != 0) & (right[:, 0] != 0)
    return pieces.beside(left, pieces.where(both, joint, ""), right)


def spell(words: U64, name: Callable[[int], list[str]], quote: str, joint: str) -> U8:
    # Many rows share few distinct words: each is spelled out once.
    distinct, index = np.unique(words, return_inverse=True)
    texts = [joint.join(f"{quote}{n}{quote}" for n in name(word)) for word in distinct.tolist()]
    return pieces.labels(texts, index)
