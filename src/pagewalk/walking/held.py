"""Which page frames a process holds, each once, and which of them only it maps. No I/O.

A page that is mapped once is one frame, which only this process maps. An anonymous page that is
mapped more often is also one frame, which others map too. Only the rest, pages of files and objects
and pages that KSM merged, need memory here: three bytes per frame, however often it is mapped. A
process that shares its libraries and its heap costs a few pages; a terabyte of a file 768 MiB.
"""

import mmap
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pagewalk.model.columns import I64, U8, Amounts, Bool, Keeper, Shared, take
from pagewalk.model.rules import HELD
from pagewalk.model.states import maybe_repeated
from pagewalk.walking.sums import TOGETHER, keepers

CHUNK_SHIFT = np.uint64(24)
CHUNK = 1 << 24  # frames: 64 GiB of RAM
MOST = 254  # mappings of a frame by this process that a byte can count
# So few mappings are cheaper to sort than to place by frame: frames are far apart in RAM, and each
# place may be in a page of its own, which has to be faulted in.
FEW = 1 << 14


class Seen(NamedTuple):
    """The frames of one chunk: how often this process was seen to map each (``times`` u8), and the
    first VMA that does (``owner`` u16 or u32). Pages of these arrays that are never touched take no
    memory."""

    times: U8
    owner: npt.NDArray[np.unsignedinteger[Any]]


@dataclass(eq=False)
class Held:
    """Bytes by VMA, i64; a frame that several VMAs map counts in the first of them.

    ``frames`` is all of them, ``objects`` those of shmem and hugetlb objects. Of the frames that
    no other process maps, ``own`` are freed with their last mapping, ``sole`` with their object.
    """

    frames: I64
    objects: I64
    own: I64
    sole: I64
    waiting: list[Shared] = field(default_factory=list)
    chunks: dict[int, Seen] = field(default_factory=dict)
    # How many may wait, to be sorted by frame.
    few: int = FEW
    # Frames mapped more often than a byte can count, and more than once by this process: (row, how
    # many more times this process maps it).
    often: list[tuple[Shared, I64]] = field(default_factory=list)

    def add(self, pages: Amounts) -> None:
        """Add those of ``pages`` that this process maps once."""
        if pages.mapcount is None or pages.kflags is None:
            return
        rows = np.flatnonzero(HELD[pages.state] & ~maybe_repeated(pages))
        if len(rows) == 0:
            return
        alone = pages.mapcount[rows] == 1
        vma, size = pages.vma[rows], pages.size[rows].astype(np.int64)
        keeper = keepers(pages.state[rows], pages.kflags[rows])
        tally(self.frames, vma, size)
        own = (keeper == Keeper.MAPPINGS.value) & alone
        of_object = keeper == Keeper.OBJECT.value
        tally(self.own, vma, size, own)
        tally(self.objects, vma, size, of_object)
        tally(self.sole, vma, size, of_object)

    def add_shared(self, rows: Shared) -> None:
        """Add pages that may be mapped more than once."""
        self.waiting.append(rows)
        if self.chunks or sum(map(len, self.waiting)) > self.few:
            for part in self.waiting:
                self.place(part)
            self.waiting.clear()

    def place(self, rows: Shared) -> None:
        for at in range(0, len(rows), TOGETHER):
            part = take(rows, slice(at, at + TOGETHER))
            number = part.pfn >> CHUNK_SHIFT
            for chunk in range(int(number.min()), int(number.max()) + 1):
                here = number == chunk
                if here.all():
                    self.look(chunk, part)
                elif here.any():
                    self.look(chunk, take(part, here))

    def look(self, chunk: int, rows: Shared) -> None:
        # A frame that occurs twice in these rows, which is rare, becomes one row. For frames mapped
        # more than MOST times a byte cannot show whether it does.
        seen = self.chunks.get(chunk) or self.chunks.setdefault(chunk, self.blank())
        at = (rows.pfn & np.uint64(CHUNK - 1)).astype(np.int64)
        twice = (rows.mapcount > MOST) | (rows.mapcount == 0)
        rest = np.flatnonzero(~twice)
        place = at[rest]
        before = seen.times[place]
        np.add.at(seen.times, place, np.uint8(1))
        twice[rest] = seen.times[place] != before + np.uint8(1)
        seen.times[place] = before
        if twice.any():
            single, several = np.flatnonzero(~twice), np.flatnonzero(twice)
            several = several[np.argsort(rows.vma[several], kind="stable")]
            _, first, times = np.unique(at[several], return_index=True, return_counts=True)
            self.step(seen, at[several[first]], times, take(rows, several[first]))
            at, rows = at[single], take(rows, single)
        if len(rows):
            self.step(seen, at, 1, rows)

    def blank(self) -> Seen:
        few = len(self.frames) < 1 << 16
        return Seen(untouched(np.uint8), untouched(np.uint16 if few else np.uint32))

    def step(self, seen: Seen, at: I64, times: I64 | int, rows: Shared) -> None:
        # `rows` are distinct frames, at `at`, that this process maps `times` more often.
        before = seen.times[at].astype(np.int64)
        after = before + times
        seen.times[at] = np.minimum(after, MOST)
        self.count_first(seen, at, before == 0, rows)
        mapcount = rows.mapcount.astype(np.int64)
        often = mapcount > MOST
        if often.any():
            more = np.flatnonzero(often & (after > 1))
            self.often.append((take(rows, more), (after - np.maximum(before, 1))[more]))
            self.often = [fewer(self.often)]
        mine = (before < mapcount) & (after >= mapcount) & ~often
        if mine.any():
            self.count_sole(seen, at, mine, rows)

    def count_first(self, seen: Seen, at: I64, new: Bool, rows: Shared) -> None:
        # A frame counts in its first VMA: it moves there if a later VMA was seen first.
        size, vma = rows.size.astype(np.int64), rows.vma
        of_object = rows.keeper == Keeper.OBJECT.value
        if not new.all():
            owner = seen.owner[at].astype(np.int64)
            moves = ~new & (vma < owner)
            tally(self.frames, owner, -size, moves)
            tally(self.objects, owner, -size, moves & of_object)
            new = new | moves
            at, vma, size, of_object = at[new], vma[new], size[new], of_object[new]
        tally(self.frames, vma, size)
        tally(self.objects, vma, size, of_object)
        seen.owner[at] = vma

    def count_sole(self, seen: Seen, at: I64, mine: Bool, rows: Shared) -> None:
        owner, size = seen.owner[at].astype(np.int64), rows.size.astype(np.int64)
        tally(self.own, owner, size, mine & (rows.keeper == Keeper.MAPPINGS.value))
        tally(self.sole, owner, size, mine & (rows.keeper == Keeper.OBJECT.value))

    def finish(self) -> None:
        """Add what is only known after the last page; to be called once, after that."""
        if self.waiting:  # these are few: their frames are renumbered consecutively
            few = joined(self.waiting)
            _, number = np.unique(few.pfn, return_inverse=True)
            self.place(replace(few, pfn=number.astype(np.uint64)))
            self.waiting.clear()
        for rows, more in self.often:
            mine = more + 1 >= rows.mapcount.astype(np.int64)
            at = (rows.pfn & np.uint64(CHUNK - 1)).astype(np.int64)
            for chunk, seen in self.chunks.items():
                here = mine & (rows.pfn >> CHUNK_SHIFT == chunk)
                self.count_sole(seen, at[here], mine[here], take(rows, here))
        self.often.clear()


def empty(count: int) -> Held:
    """Return the sums of a walk over ``count`` VMAs before its first page."""
    frames, objects, own, sole = (np.zeros(count, np.int64) for _ in range(4))
    return Held(frames, objects, own, sole)


def untouched(kind: type[np.unsignedinteger[Any]]) -> npt.NDArray[Any]:
    # CHUNK zeros that take memory only where they are written. np.zeros may reuse memory, and would
    # then have to clear all of it.
    return np.frombuffer(mmap.mmap(-1, CHUNK * np.dtype(kind).itemsize), kind)


def tally(column: I64, vma: I64, size: I64, where: Bool | None = None) -> None:
    # Adds `size`, of the rows `where`, to `column` by VMA.
    if where is not None and not where.all():
        vma, size = vma[where], size[where]
    if len(vma):
        first, last = int(vma.min()), int(vma.max()) + 1
        # exact below 2**53 bytes, more than one step can hold
        column[first:last] += np.bincount(vma - first, size, last - first).astype(np.int64)


def fewer(parts: list[tuple[Shared, I64]]) -> tuple[Shared, I64]:
    # One row per frame.
    rows = parts[0][0] if len(parts) == 1 else joined([rows for rows, _ in parts])
    more = np.concatenate([more for _, more in parts])
    _, first, back = np.unique(rows.pfn, return_index=True, return_inverse=True)
    return take(rows, first), np.bincount(back, more, len(first)).astype(np.int64)


def joined(parts: list[Shared]) -> Shared:
    return Shared(*(
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("vma", "pfn", "size", "mapcount", "keeper")
    ))
