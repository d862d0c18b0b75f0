"""What changed between two address spaces made by hand."""

from __future__ import annotations

from typing import Any

from pagewalk.history.diff import Diff
from pagewalk.model.columns import Backing, State
from tests.history.spaces import SECOND, Space, compare, run, vmas
from tests.snapshot.by_hand import PAGE

MIB = (1 << 20) // PAGE  # pages
MAPS = vmas((0x1000, 64 * MIB, Backing.ANON, "[heap]", 0),
            (0x100000, 32 * MIB, Backing.FILE, "/srv/model.bin", 0))
BEFORE = Space(MAPS, [[run(0x1000, 8 * MIB, State.ANON, 1),
                       run(0x100000, 20 * MIB, State.FILE, 90_000, 2)]])
AFTER = Space(MAPS, [[run(0x1000, 4 * MIB, State.ANON, 1),
                      run(0x1000 + 4 * MIB, 4 * MIB, State.SWAPPED),
                      run(0x1000 + 8 * MIB, 24 * MIB, State.ANON, 40_000),
                      run(0x100000 + 10 * MIB, 12 * MIB, State.FILE, 90_000 + 10 * MIB, 2)]])


def found(by: str = "kind", **changed: Any) -> Diff:
    """Return what changed in a minute: a heap that grew, and a file that was dropped in part."""
    made = compare(BEFORE, AFTER, by=by)
    made = made._replace(after=made.after._replace(time=60 * SECOND))
    return made._replace(**changed)


def nothing() -> Diff:
    """Return what changed where nothing did."""
    small = Space(MAPS, [[run(0x1000, 2, State.ANON, 1)]])
    return compare(small, small)


LARGE, SMALL = (Space(MAPS, [[run(0x1000, many * MIB, State.ANON, 1)]]) for many in (16, 8))


def shrunk_between_runs() -> Diff:
    """Return what differs between two runs, of which the second has less."""
    return compare(LARGE, SMALL, same=False)


def grown_between_runs() -> Diff:
    """Return what differs between two runs, of which the second has more."""
    return compare(SMALL, LARGE, same=False)
