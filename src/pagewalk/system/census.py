"""All frames of RAM, added up by what they are: a few hundred rows, however much RAM there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pagewalk.model.bits import KPF, kpf
from pagewalk.model.columns import I64, U8, U64, Bool, Rows, alike
from pagewalk.model.frames import MAPPED_WHOLE, ORDER_SHIFT, Frames, Kind
from pagewalk.system.bits import FrameSet

# The flags that tell amounts apart.
FLAGS = ("dirty", "lru", "active", "writeback", "swapcache", "swapbacked", "unevictable",
         "hwpoison", "mlocked")  # fmt: skip
# What of the kernel's own pages a process may map, such as the rings of io_uring or a driver's
# buffers: it then counts as mapped, as a page of a file does (NR_FILE_MAPPED).
MAPPABLE = (Kind.KERNEL, Kind.RESERVED, Kind.BLOCK_TAIL)
# How a row is packed into one word: the flags, then these, and the label above them.
_KIND, _FACTS, _HUGE, _LARGE, _MAPPED, _BACKING, _LABEL = (
    np.uint64(9 + bit) for bit in (0, 5, 8, 9, 10, 11, 13))
_KIND_MASK, _FACTS_MASK, _ONE, _BACKING_MASK = map(np.uint64, (31, 7, 1, 3))


class Census(Rows):
    """Frames that count alike as one row.

    ``kind`` u8 (Kind); ``flags`` u64, those of FLAGS as in /proc/kpageflags; ``facts`` u8 as in
    Frames, without the order; ``huge`` bool: in a folio of a huge page's size; ``large`` bool: in
    one of several pages; ``mapped`` bool: some process maps the page; ``backing`` u8 (Backing) of
    dirty pages of files; ``label`` i64, what the caller told about a run (0: nothing); ``pages``
    i64.
    """

    kind: U8
    flags: U64
    facts: U8
    huge: Bool
    large: Bool
    mapped: Bool
    backing: U8
    label: I64
    pages: I64

    def of(self, *kinds: Kind) -> Bool:
        """Return a mask of the rows of ``kinds``."""
        mask: Bool = np.isin(self.kind, [kind.value for kind in kinds])
        return mask

    def has(self, *names: str) -> Bool:
        """Return a mask of the rows with any of the flags ``names``."""
        mask: Bool = self.flags & kpf(*names) != 0
        return mask

    def count(self, where: Bool) -> int:
        """Return the pages of the rows ``where``."""
        return int(self.pages[where].sum())


class Placed(NamedTuple):
    """Frames that something else than their struct pages tells the use of.

    ``pfn`` i64, ascending; ``use`` i64, a row of ``names``.
    """

    pfn: I64
    use: I64
    names: tuple[str, ...]


# The kinds of frames that struct pages tell nothing more about.
TOLD_ELSEWHERE = (Kind.KERNEL, Kind.BLOCK_TAIL, Kind.RESERVED)
NOWHERE = Placed(np.zeros(0, np.int64), np.zeros(0, np.int64), ())


Label = Callable[[Frames], I64]
Back = Callable[[Frames], U8]


class Count:
    """Adds up batches of frames to a Census, each row with the label (i64, from 0) of its run.

    ``backing`` tells the Backing (u8) of each run; without it all is WRITTEN.

    A folio is huge from ``huge_order`` on: as many pages as a PMD entry maps, as a power of two.
    """

    def __init__(
        self, huge_order: int, label: Label | None = None, backing: Back | None = None
    ) -> None:
        self._huge_order, self._label, self._backing = huge_order, label, backing
        self._sums: dict[int, int] = {}

    def add(self, frames: Frames) -> None:
        """Add a batch."""
        label = None if self._label is None else self._label(frames)
        words = _packed(frames, label, self._huge_order)
        if self._backing is not None:
            words |= self._backing(frames).astype(np.uint64) << _BACKING
        if not len(words):
            return
        first = alike(words)  # neighbours are, mostly
        distinct, back = np.unique(words[first], return_inverse=True)
        pages = np.add.reduceat(frames.pages, first)
        pages = np.bincount(back, pages, len(distinct)).astype(np.int64)
        for word, count in zip(distinct.tolist(), pages.tolist(), strict=True):
            self._sums[word] = self._sums.get(word, 0) + count

    @property
    def census(self) -> Census:
        """Return what was added so far."""
        return _unpacked(self._sums)


def _packed(frames: Frames, label: I64 | None, huge_order: int) -> U64:
    words = frames.kind.astype(np.uint64) << _KIND
    for at, name in enumerate(FLAGS):
        words |= (frames.flags >> np.uint64(KPF[name]) & _ONE) << np.uint64(at)
    mapped = frames.mapcount > 0
    if frames.facts is not None:
        words |= (frames.facts.astype(np.uint64) & _FACTS_MASK) << _FACTS
        order = frames.facts >> ORDER_SHIFT
        words |= (order >= huge_order).astype(np.uint64) << _HUGE
        words |= (order > 0).astype(np.uint64) << _LARGE
        mapped = mapped | (frames.facts & MAPPED_WHOLE != 0)
    words |= mapped.astype(np.uint64) << _MAPPED
    if label is not None:
        words |= label.astype(np.uint64) << _LABEL
    return words


def _unpacked(sums: dict[int, int]) -> Census:
    words = np.array(sorted(sums), np.uint64)
    flags = np.zeros(len(words), np.uint64)
    for at, name in enumerate(FLAGS):
        flags |= (words >> np.uint64(at) & _ONE) << np.uint64(KPF[name])
    return Census(
        kind=(words >> _KIND & _KIND_MASK).astype(np.uint8),
        flags=flags,
        facts=(words >> _FACTS & _FACTS_MASK).astype(np.uint8),
        huge=(words >> _HUGE & _ONE).astype(bool),
        large=(words >> _LARGE & _ONE).astype(bool),
        mapped=(words >> _MAPPED & _ONE).astype(bool),
        backing=(words >> _BACKING & _BACKING_MASK).astype(np.uint8),
        label=(words >> _LABEL).astype(np.int64),
        pages=np.array([sums[word] for word in words.tolist()], np.int64),
    )


# ---- frames that something else tells the use of


class KernelFrames:
    """The frames below ``end`` that something else may tell the use of: a bit for each of a kind.

    Batches are given to ``add``.
    """

    def __init__(self, end: int) -> None:
        self._of = {kind: FrameSet(end) for kind in TOLD_ELSEWHERE}

    def add(self, frames: Frames) -> None:
        """Add those of ``frames`` that are of these kinds."""
        for kind, known in self._of.items():
            rows = frames.of(kind)
            known.add_runs(frames.pfn[rows], frames.pages[rows])

    def uses(self, placed: Placed) -> dict[tuple[str, Kind], int]:
        """Return how many pages of each kind each use of ``placed`` has."""
        counts = {kind: np.bincount(placed.use[known.has(placed.pfn)]).tolist()
                  for kind, known in self._of.items()}
        return {(placed.names[use], kind): count for kind, by_use in counts.items()
                for use, count in enumerate(by_use) if count}
