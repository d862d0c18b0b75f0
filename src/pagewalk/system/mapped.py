"""Which of a group's pages its processes map, and which pages of others; frame by frame."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from pagewalk.model.columns import I64, Bool, Pages, VMAs
from pagewalk.model.errors import NotPermitted
from pagewalk.model.frames import Frames, Kind
from pagewalk.model.rules import IS_PRESENT
from pagewalk.system.bits import FrameSet

ANON, FILE, SHMEM = "anon", "file", "shmem"
KINDS = {ANON: (Kind.ANON, Kind.KSM, Kind.SWAP_CACHE, Kind.HUGETLB), FILE: (Kind.FILE,),
         SHMEM: (Kind.SHMEM,)}


class ChargedFrames:
    """The frames that a group is charged for, by kind, those that other groups are, and nobody is.

    It listens to a survey: ``inside`` (bool) are the labels of the group and of those below it.
    """

    def __init__(self, end: int, inside: Bool) -> None:
        self._inside = inside
        self.of = {kind: FrameSet(end) for kind in KINDS}
        self.others, self.nobodys = FrameSet(end), FrameSet(end)

    def __call__(self, frames: Frames, labels: I64) -> None:
        mine = self._inside[labels]
        users = frames.of(*(kind for kinds in KINDS.values() for kind in kinds))
        for name, kinds in KINDS.items():
            rows = mine & frames.of(*kinds)
            self.of[name].add_runs(frames.pfn[rows], frames.pages[rows])
        for found, rows in ((self.others, users & ~mine & (labels > 0)),
                            (self.nobodys, users & (labels == 0))):
            found.add_runs(frames.pfn[rows], frames.pages[rows])


class ByProcess(NamedTuple):
    """What one process maps, in pages: ``charged`` to the group by kind, ``others``: to others.

    A page that several processes map counts in each. ``inside`` are its ids in the PID namespaces
    below ours, the last one its own; () if it is in ours.
    """

    pid: int
    inside: tuple[int, ...]
    name: str
    charged: dict[str, int]
    others: int


class MappedPages:
    """Adds up what the processes of a group map; a frame counts once, however often it is mapped.

    ``by_kind`` are pages that the group is charged for, ``elsewhere`` pages that other groups are
    charged for and ``uncharged`` pages that nobody is, by the name of the first mapping that was
    seen; ``processes`` one row each.
    """

    def __init__(self, end: int, charged: ChargedFrames, page_shift: int) -> None:
        self._charged, self._page_shift = charged, page_shift
        self._seen = FrameSet(end)
        self.by_kind = dict.fromkeys(KINDS, 0)
        self.elsewhere: dict[str, int] = {}
        self.uncharged: dict[str, int] = {}
        self.processes: list[ByProcess] = []

    def add(
        self, pids: tuple[int, ...], name: str, vmas: VMAs, batches: Iterable[Pages]
    ) -> None:
        """Add the pages of a process, of which ``pids`` are the ids (namespace.pid_numbers)."""
        mine, others = dict.fromkeys(KINDS, 0), 0
        for pages in batches:
            if pages.pfn is None:
                raise NotPermitted("the frames of its pages", "not visible to you", "run as root")
            frames, vma = _frames(pages, self._page_shift)
            for kind, charged in self._charged.of.items():
                mine[kind] += int(charged.has(frames).sum())
            others += int(self._charged.others.has(frames).sum())
            self._count_new(vmas, frames, vma)
        self.processes.append(ByProcess(pids[0], pids[1:], name, mine, others))

    def _count_new(self, vmas: VMAs, frames: I64, vma: I64) -> None:
        frames, first = np.unique(frames, return_index=True)
        new = self._seen.missing(frames)
        self._seen.add(frames[new])
        frames, vma = frames[new], vma[first[new]]
        for kind, charged in self._charged.of.items():
            self.by_kind[kind] += int(charged.has(frames).sum())
        for found, where in ((self.elsewhere, self._charged.others),
                             (self.uncharged, self._charged.nobodys)):
            rows, pages = np.unique(vma[where.has(frames)], return_counts=True)
            for row, count in zip(rows.tolist(), pages.tolist(), strict=True):
                name = vmas.name[row]
                found[name] = found.get(name, 0) + count


def _frames(pages: Pages, page_shift: int) -> tuple[I64, I64]:
    # Each base page in RAM: its frame, and the row of its VMA.
    rows = np.flatnonzero(IS_PRESENT[pages.state])
    assert pages.pfn is not None
    count = (pages.size[rows] >> np.uint64(page_shift)).astype(np.int64)
    first = pages.pfn[rows].astype(np.int64)
    if (count == 1).all():
        return first, pages.vma[rows]
    before = np.cumsum(count) - count
    frames = np.repeat(first - before, count) + np.arange(int(count.sum()))
    return frames, np.repeat(pages.vma[rows], count)
