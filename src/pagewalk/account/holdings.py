"""Memory that a process holds without mapping it, and what is freed when it ends. No I/O."""

from typing import Any, NamedTuple

import numpy as np

from pagewalk.model.columns import I64, SHARED, Bool, VMAs, Withheld
from pagewalk.proc.objects import Object
from pagewalk.sources.outcome import Outcome
from pagewalk.walking.held import Held
from pagewalk.walking.walk import Walk

NO_PAGE_MAPCOUNT = Withheld(
    "distinct, freed",
    "this kernel keeps no mapcounts for pages of large folios (CONFIG_NO_PAGE_MAPCOUNT)",
)


class Holding(NamedTuple):
    """A memory object that a process holds.

    Of its ``resident`` bytes in RAM the process maps ``mapped`` and does not map ``unmapped``.
    ``ends`` says whether it ends with the process, None if that is not known.
    """

    name: str
    resident: int
    mapped: int
    unmapped: int
    ends: bool | None


def holdings(vmas: VMAs, outcome: Outcome, mapped: I64) -> list[Holding]:
    """Return the objects that a process holds, those with the most unmapped bytes first.

    ``mapped`` is i64 bytes by VMA, with each page of an object counted once.
    """
    found = []
    for held, ends in outcome.objects:
        here = int(mapped[rows_of(vmas, held)].sum())
        # A running process may have mapped more in the meantime.
        unmapped = max(held.resident - here, 0)
        found.append(Holding(held.name, held.resident, here, unmapped, ends))
    return sorted(found, key=lambda row: (-row.unmapped, -row.resident, row.name))


def freed(vmas: VMAs, outcome: Outcome, held: Held) -> I64 | None:
    """Return the bytes of each VMA that are freed when the process ends.

    None if the process has private use of pages of an object that may or may not end with it.
    """
    known, ends = np.zeros(len(vmas), bool), np.zeros(len(vmas), bool)
    for each, answer in outcome.objects:
        rows = rows_of(vmas, each)
        known[rows], ends[rows] = answer is not None, answer is True
    if held.sole[~known].any():
        return None
    return held.own + np.where(ends, held.sole, 0)


def rows_of(vmas: VMAs, held: Object) -> Bool:
    mask: Bool = (vmas.inode == held.inode) & (vmas.dev == held.dev)
    return mask


def held_columns(walk: Walk[Any], held: Held) -> dict[str, I64 | None]:
    """Return the columns ``distinct`` and ``freed`` for a consumed walk."""
    if walk.tells.frames and not walk.facts.average_mapcounts:
        return {"distinct": held.frames, "freed": freed(walk.vmas, walk.outcome, held)}
    if walk.tells.frames:
        walk.outcome.withheld.append(NO_PAGE_MAPCOUNT)
    return {"distinct": None, "freed": None}


def objects_held(
    walk: Walk[Any], mapped: Held | I64
) -> tuple[list[Holding] | None, int | None, int | None]:
    """Return the objects that the process of a consumed walk holds, and two sums in bytes.

    The objects are None if its pages cannot be told apart. The sums: what it does not map of them,
    None if one may be missing; and how much of that is freed when the process ends, None if that is
    not known. ``mapped`` is what Held found or, if no frames were read, the i64 bytes of each VMA.
    """
    pages = mapped.objects if isinstance(mapped, Held) else counted_once(walk.vmas, mapped)
    if not (walk.covered == walk.vmas.size.astype(np.int64)).all():
        return None, None, 0
    if pages is None:
        return None, None, None
    return objects_beside(walk.vmas, walk.outcome, pages)


def objects_beside(
    vmas: VMAs, outcome: Outcome, pages: I64
) -> tuple[list[Holding], int | None, int | None]:
    """Return what objects_held does of a process with ``vmas``, all of which were walked.

    ``pages`` is i64 bytes by VMA, with each page of an object counted once.
    """
    rows = holdings(vmas, outcome, pages)
    if not outcome.all_objects:
        return rows, None, None
    unsure = any(row.ends is None and row.unmapped for row in rows)
    more = None if unsure else sum(row.unmapped for row in rows if row.ends)
    return rows, sum(row.unmapped for row in rows), more


def counted_once(vmas: VMAs, mapped: I64) -> I64 | None:
    # Each page of an object is counted once only if no two VMAs map the same part of it and no
    # private mapping has copies of its own; else None.
    rows = np.flatnonzero(vmas.of_objects)
    if len(rows) == 0:
        return mapped
    private = vmas.perms[rows] & SHARED == 0
    order = rows[np.lexsort((vmas.offset[rows], vmas.inode[rows], vmas.dev[rows]))]
    end = vmas.offset[order] + vmas.size[order]
    same = (np.diff(vmas.inode[order]) == 0) & (np.diff(vmas.dev[order]) == 0)
    overlap = same & (vmas.offset[order][1:] < end[:-1])
    return None if private.any() or overlap.any() else mapped
