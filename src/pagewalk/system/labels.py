"""What each run of frames belongs to beyond its kind: a file system, a sort of slab, a cgroup."""

from __future__ import annotations

import numpy as np

from pagewalk.kernel.structs.direct_map import DirectMap
from pagewalk.kernel.structs.inodes import read_backing, read_file_systems
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.memcgs import Memcgs, rows_of
from pagewalk.kernel.structs.slabs import read_caches
from pagewalk.model.bits import kpf
from pagewalk.model.columns import I64, U8, U64
from pagewalk.model.frames import Frames, Kind
from pagewalk.system.learned import Learned
from pagewalk.system.ram import Labels

NONE, RECLAIMABLE, UNRECLAIMABLE = range(3)


class ByObject:
    """Labels runs of frames by the objects that they belong to; file systems begin at 3."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._names = ["", "reclaimable", "unreclaimable"]
        self._caches, self._files = Learned(self._of_caches), Learned(self._of_files)

    def of(self, frames: Frames) -> I64:
        """Return the label (i64) of each run, 0 where it has no object or that cannot be read."""
        labels = np.zeros(len(frames), np.int64)
        assert frames.object is not None
        told = frames.object != 0
        for where, learned in ((frames.of(Kind.SLAB), self._caches),
                               (frames.of(Kind.FILE, Kind.SHMEM), self._files)):
            rows = np.flatnonzero(where & told)
            if len(rows):
                labels[rows] = learned.of(frames.object[rows])
        return labels

    def _of_caches(self, caches: U64) -> I64:
        reclaimable = read_caches(self._kernel, caches).reclaimable
        return np.where(reclaimable, RECLAIMABLE, UNRECLAIMABLE).astype(np.int64)

    def _of_files(self, mappings: U64) -> I64:
        found = read_file_systems(self._kernel, mappings)
        places = np.zeros(len(found.names) + 1, np.int64)  # the last one, for row -1: not told
        for at, name in enumerate(found.names):
            if name not in self._names[UNRECLAIMABLE + 1 :]:
                self._names.append(name)
            places[at] = self._names.index(name, UNRECLAIMABLE + 1)
        labels: I64 = places[found.row]
        return labels

    @property
    def labels(self) -> Labels:
        """Return what the labels mean so far."""
        files = self._names[UNRECLAIMABLE + 1 :]
        bdev = files.index("bdev") + UNRECLAIMABLE + 1 if "bdev" in files else -1
        return Labels(tuple(self._names), bdev, RECLAIMABLE, UNRECLAIMABLE)


class ByBacking:
    """Tells of runs of frames whether what is dirty is ever written back."""

    def __init__(self, kernel: Kernel) -> None:
        self._known = Learned(lambda mappings: read_backing(kernel, mappings).astype(np.int64))

    def of(self, frames: Frames) -> U8:
        """Return the Backing (u8) of each run, WRITTEN where nothing of a file is dirty."""
        found = np.zeros(len(frames), np.uint8)
        assert frames.object is not None
        dirty = frames.of(Kind.FILE) & (frames.flags & kpf("dirty") != 0) & (frames.object != 0)
        rows = np.flatnonzero(dirty)
        if len(rows):
            found[rows] = self._known.of(frames.object[rows])
        return found


class ByGroup:
    """Labels runs of frames by who is charged: the row in ``groups`` plus 1, or 0 for nobody."""

    def __init__(self, kernel: Kernel, direct_map: DirectMap, groups: Memcgs) -> None:
        self._rows = Learned(lambda owners: rows_of(kernel, direct_map, groups, owners))

    def of(self, frames: Frames) -> I64:
        """Return the label (i64) of each run."""
        assert frames.owner is not None
        # A slab's owner is a vector of owners, one an object.
        owner = np.where(frames.of(Kind.SLAB), np.uint64(0), frames.owner)
        return self._rows.of(owner) + 1
