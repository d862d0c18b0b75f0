"""Which of a group's pages its processes map, and which pages of others; frame by frame."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from pagewalk.model.columns import I64, U8, Bool, Pages, VMAs
from pagewalk.model.errors import NotPermitted
from pagewalk.model.frames import Frames, Kind
from pagewalk.model.rules import IS_PRESENT
from pagewalk.system.bits import FrameSet
from pagewalk.system.census import MAPPABLE

ANON, FILE, SHMEM, KERNEL = "anon", "file", "shmem", "kernel"
KINDS = {ANON: (Kind.ANON, Kind.KSM, Kind.SWAP_CACHE, Kind.HUGETLB), FILE: (Kind.FILE,),
         SHMEM: (Kind.SHMEM,), KERNEL: MAPPABLE}

OTHERS, NOBODYS = len(KINDS) + 1, len(KINDS) + 2


class ChargedFrames:
    """Who is charged for each frame that processes may map, in three bits a frame.

    It listens to a survey: ``inside`` (bool) are the labels of the group and of those below it.
    """

    def __init__(self, end: int, inside: Bool) -> None:
        self._inside = inside
        self._bits = [FrameSet(end) for _ in range(NOBODYS.bit_length())]

    def __call__(self, frames: Frames, labels: I64) -> None:
        mine = self._inside[labels]
        codes = np.zeros(len(frames), np.uint8)
        for code, (kind, kinds) in enumerate(KINDS.items(), 1):
            rows = frames.of(*kinds)
            # what the kernel has for everybody, such as the vDSO, is not worth a word
            nobodys = 0 if kind == KERNEL else NOBODYS
            codes[rows] = np.where(mine, code, np.where(labels > 0, OTHERS, nobodys))[rows]
        for at, bits in enumerate(self._bits):
            rows = codes >> at & 1 != 0
            bits.add_runs(frames.pfn[rows], frames.pages[rows])

    def codes(self, frames: I64) -> U8:
        """Return of each of ``frames`` (i64) who is charged, u8.

        From 1 on the group, by the order of KINDS; OTHERS; NOBODYS; 0 for any other frame.
        """
        found = np.zeros(len(frames), np.uint8)
        for at, bits in enumerate(self._bits):
            found |= bits.has(frames).astype(np.uint8) << np.uint8(at)
        return found


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
        counts = np.zeros(NOBODYS + 1, np.int64)
        for pages in batches:
            if pages.pfn is None:
                raise NotPermitted("the frames of its pages", "not visible to you", "run as root")
            frames, vma = _frames(pages, self._page_shift)
            codes = self._charged.codes(frames)
            counts += np.bincount(codes, minlength=len(counts))
            self._count_new(vmas, frames, vma, codes)
        mine = dict(zip(KINDS, counts[1:].tolist(), strict=False))
        self.processes.append(ByProcess(pids[0], pids[1:], name, mine, int(counts[OTHERS])))

    def _count_new(self, vmas: VMAs, frames: I64, vma: I64, codes: U8) -> None:
        frames, first = np.unique(frames, return_index=True)
        new = self._seen.missing(frames)
        self._seen.add(frames[new])
        vma, codes = vma[first[new]], codes[first[new]]
        for code, kind in enumerate(KINDS, 1):
            self.by_kind[kind] += int((codes == code).sum())
        for found, code in ((self.elsewhere, OTHERS), (self.uncharged, NOBODYS)):
            rows, pages = np.unique(vma[codes == code], return_counts=True)
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
