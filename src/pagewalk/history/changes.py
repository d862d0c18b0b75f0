"""What may become of memory between two looks: classes, of which each byte is in exactly one.

A class is decided by what stood behind an address before and what stands there now, by one table
of states; pages that are of one kind in both are looked at more closely. Pure.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagewalk.model.columns import U8, U32, U64, Bool, Flag, Rows, State


class Class(NamedTuple):
    """What became of some memory: its key everywhere, and what is said of it."""

    key: str
    title: str
    doc: str


CLASSES = (
    Class("grown", "newly mapped", "in RAM, at addresses that were not mapped before"),
    Class("touched", "first touched", "anonymous, where nothing was"),
    Class("read_in", "read in", "a page of a file or of shared memory, where nothing was mapped"),
    Class("copied", "copied on write",
          "private now; a file's, shared memory's, the zero page or shared with others before"),
    Class("swapped_in", "swapped in", "in RAM, and was in swap"),
    Class("appeared", "now in RAM", "in RAM, and was not; of which kind is not told"),
    Class("more", "more (sums only)", "memory that cannot be compared page by page: what is more"),
    Class("began", "of new processes", "of a process that is only in the second"),
    Class("unmapped", "unmapped", "was in RAM, at addresses that are not mapped now"),
    Class("dropped", "dropped", "was in RAM; still mapped, with nothing behind it"),
    Class("swapped_out", "swapped out", "in swap, and was not"),
    Class("discarded", "gone from swap", "was in swap, and nothing is behind it now"),
    Class("less", "less (sums only)", "memory that cannot be compared page by page: what is less"),
    Class("ended", "of ended processes", "of a process that is only in the first"),
    Class("replaced", "replaced", "in RAM in both, as pages of different kinds"),
    Class("huge", "became huge", "in RAM in both, now mapped by a huge entry"),
    Class("split", "no longer huge", "in RAM in both, no longer mapped by a huge entry"),
    Class("shared", "became shared", "in RAM in both, mapped once before and more often now"),
    Class("private", "became private", "in RAM in both, mapped more often before and once now"),
    Class("moved", "moved", "in RAM in both, in another page frame"),
    Class("other", "changed otherwise", "in RAM in neither, such as a zero page or a guard"),
    Class("unchanged", "unchanged", "as it was"),
)
CODES = {one.key: code for code, one in enumerate(CLASSES)}
COUNT = len(CLASSES)
UNCHANGED = CODES["unchanged"]

# What takes RAM: what Rss counts, and hugetlb pages.
IN_RAM = frozenset({State.ANON, State.FILE, State.SHMEM, State.DEVICE, State.PRESENT,
                    State.MIGRATING, State.HUGETLB})
# Present of a kind that the entry does not say.
UNTOLD = frozenset({State.PRESENT, State.MIGRATING})
NOTHING = frozenset({State.EMPTY, State.NOT_MAPPED, State.ABSENT})
APPEARS = {
    State.ANON: "touched", State.HUGETLB: "touched", State.FILE: "read_in",
    State.SHMEM: "read_in", State.DEVICE: "read_in", State.PRESENT: "appeared",
    State.MIGRATING: "appeared",
}


def became(before: State, after: State) -> str:
    """Return the class of memory in states ``before`` and ``after``, as far as these tell it."""
    if after in IN_RAM:
        if before not in IN_RAM:
            return appeared(before, after)
        if before is after or before in UNTOLD or after in UNTOLD:
            return "unchanged"
        copied = after is State.ANON and before in (State.FILE, State.SHMEM)
        return "copied" if copied else "replaced"
    if after is State.SWAPPED and before is not State.SWAPPED:
        return "swapped_out"
    if before in IN_RAM:
        return "dropped"
    if before is after or (before in NOTHING and after in NOTHING):
        return "unchanged"
    return "discarded" if before is State.SWAPPED else "other"


def appeared(before: State, after: State) -> str:
    if after is State.ANON and before in (State.ZERO, State.SWAPPED):
        return "copied" if before is State.ZERO else "swapped_in"
    return APPEARS[after]


BECAME: U8 = np.array([[CODES[became(one, other)] for other in State] for one in State], np.uint8)
STAYED = np.array([state in IN_RAM for state in State], np.bool_)


class Ranges(Rows):
    """Stretches of memory that are alike throughout, as one side has them.

    ``state`` u8 (ABSENT where there is no entry), ``flags`` u32; ``frame`` u64 that of the first
    page, and ``mapcount`` u64, None where they are not told.
    """

    state: U8
    flags: U32
    frame: U64 | None
    mapcount: U64 | None


class Told(NamedTuple):
    """What both sides tell, so that it can be compared.

    ``frames``: numbers of frames mean the same in both; ``sharing``: mapcounts; ``huge``: which
    entries are huge.
    """

    frames: bool = True
    sharing: bool = True
    huge: bool = True


def classify(before: Ranges, after: Ranges, told: Told) -> U8:
    """Return the position in CLASSES, u8, of what became of each range; rows are side by side."""
    found: U8 = BECAME[before.state, after.state]
    both = np.flatnonzero((found == UNCHANGED) & STAYED[before.state] & STAYED[after.state])
    if not len(both):
        return found
    moved = differs(before.frame, after.frame, both) if told.frames else None
    became_now = np.full(len(both), UNCHANGED, np.uint8)
    # The first that holds is the last that is written.
    if moved is not None:
        became_now[moved] = CODES["moved"]
    if told.sharing and before.mapcount is not None and after.mapcount is not None:
        was, now = before.mapcount[both] > 1, after.mapcount[both] > 1
        became_now[~was & now] = CODES["shared"]
        became_now[was & ~now] = CODES["private"]
        if moved is not None:
            anon = after.state[both] == State.ANON.value
            became_now[was & ~now & moved & anon] = CODES["copied"]
    if told.huge:
        huge = np.uint32(Flag.HUGE.value)
        had, has = before.flags[both] & huge != 0, after.flags[both] & huge != 0
        became_now[~had & has] = CODES["huge"]
        became_now[had & ~has] = CODES["split"]
    found[both] = became_now
    return found


def differs(before: U64 | None, after: U64 | None, rows: np.ndarray) -> Bool | None:
    if before is None or after is None:
        return None
    different: Bool = before[rows] != after[rows]
    return different
