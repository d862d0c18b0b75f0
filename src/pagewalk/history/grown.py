"""How much more the VMAs of a process hold than at an earlier time: two readings of its smaps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.model.columns import I64, VMAs
from pagewalk.proc.smaps import Smaps

# What smaps calls the amounts of budget.Portion.
SAYS = {"uss": ("Private_Clean", "Private_Dirty"), "pss": ("Pss",), "rss": ("Rss",),
        "swap": ("Swap",)}


class Grown(NamedTuple):
    """By how much each VMA grew, i64 bytes by amount, and all that is in none of them, as a sum.

    The latter is what was unmapped meanwhile, negative.
    """

    each: dict[str, I64]
    rest: dict[str, int]


def grown(vmas: VMAs, before: Smaps | None, now: Smaps) -> Grown:
    """Return how much more the VMAs have ``now`` than ``before``, None if the process is new.

    What a VMA had before it was split, or grew downwards, counts with the one that has its place.
    """
    each = {name: np.zeros(len(vmas.start), np.int64) for name in SAYS}
    rest = dict.fromkeys(SAYS, 0)
    for side, sign in ((now, 1), (before, -1)):
        if side is None:
            continue
        # The last byte, as a stack grows at its beginning.
        last = side.end - np.uint64(1)
        at = np.searchsorted(vmas.start, last, side="right") - 1
        inside = (at >= 0) & (last < vmas.end[at])
        for name, keys in SAYS.items():
            none = np.zeros(len(side.start), np.int64)
            amounts = sum((side.columns.get(key, none) for key in keys), none)
            np.add.at(each[name], at[inside], sign * amounts[inside])
            rest[name] += sign * int(amounts[~inside].sum())
    return Grown(each, rest)
