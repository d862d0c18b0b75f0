"""Made-up frames of 256 GiB, added up by one of the folds; prints its peak memory and seconds.

python -m tests.system.large FOLD PAGES: each run of frames has PAGES, 1 being the worst there is.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from pagewalk.model.bits import kpf
from pagewalk.model.columns import I64, take
from pagewalk.model.frames import Frames, Kind
from pagewalk.system.cached import CacheSums, unowned
from pagewalk.system.census import Count, KernelFrames, Placed
from pagewalk.system.learned import Learned
from pagewalk.system.mapped import ChargedFrames, MappedPages

FRAMES = 256 << 18
FILES, GROUPS = 1_000_000, 500
RUNS = 1 << 16  # of a batch, as many as one chunk can have
# What one run after the other is.
KINDS = np.array([Kind.FILE, Kind.FILE, Kind.SHMEM, Kind.FILE, Kind.ANON, Kind.FILE, Kind.FILE,
                  Kind.KERNEL], np.uint8)  # fmt: skip


def batches(pages: int) -> Iterator[Frames]:
    """Yield all frames in runs of ``pages``, of FILES files and GROUPS groups."""
    size = np.full(RUNS, pages, np.int64)
    zero = np.zeros(RUNS, np.uint8)
    dirty, lru = kpf("dirty"), kpf("lru")
    for first in range(0, FRAMES // pages, RUNS):
        run = np.arange(first, first + RUNS)
        number = run.astype(np.uint64)
        yield Frames(
            pfn=run * pages, pages=size, kind=KINDS[run % len(KINDS)],
            flags=np.where(run % 5 == 0, dirty, lru), facts=zero,
            mapcount=(run % 3).astype(np.int32),
            owner=np.uint64(0xFFFF_8881_0000_0000) + number % np.uint64(GROUPS) * np.uint64(4096),
            object=np.uint64(0xFFFF_8880_0000_0000) + number % np.uint64(FILES) * np.uint64(1088),
            counts=number,
        )  # fmt: skip


def label(frames: Frames) -> I64:
    """Return the group that each run is charged to."""
    assert frames.owner is not None
    return (frames.owner.astype(np.int64) >> 12) % GROUPS


def counted(parts: Iterator[Frames]) -> int:
    """Count frames by kind, flags and group."""
    count = Count(9, label)
    for frames in parts:
        count.add(frames)
    return count.census.count(np.ones(len(count.census), bool))


def kept(parts: Iterator[Frames]) -> int:
    """Keep the kernel's own frames."""
    own = KernelFrames(FRAMES)
    for frames in parts:
        own.add(frames)
    # All at once would take more memory than the fold: the first 64 MiB of each 16 GiB.
    asked = (np.arange(0, FRAMES, 1 << 22)[:, None] + np.arange(1 << 14)).ravel()
    found = own.uses(Placed(asked, np.zeros(len(asked), np.int64), ("asked",)))
    return sum(found.values()) * 8 * (FRAMES // len(asked))  # one of eight runs is the kernel's


def cached(parts: Iterator[Frames]) -> int:
    """Add up the page cache by file and group: a row for each of them."""
    sums = CacheSums()
    for frames in parts:
        sums.add(frames)
    return int(sums.files().pages.sum()) * 8 // 6  # six of eight runs are page cache


def learned(parts: Iterator[Frames]) -> int:
    """Look up the file system of each file."""
    systems, pages = Learned(lambda files: (files % np.uint64(50)).astype(np.int64)), 0
    for frames in parts:
        assert frames.object is not None
        pages += int(frames.pages[systems.of(frames.object) >= 0].sum())
    return pages


def charged(parts: Iterator[Frames]) -> int:
    """Keep the frames of every other group, by kind, and those of the others."""
    sets = ChargedFrames(FRAMES, np.arange(GROUPS) % 2 == 1)
    users = 0
    for frames in parts:
        sets(frames, label(frames))
        nobodys = frames.of(Kind.KERNEL) & (label(frames) == 0)  # all that has no code
        users += int(frames.pages[nobodys].sum())
    for first in range(0, FRAMES, RUNS):  # all at once would take more memory than the fold
        users += int((sets.codes(np.arange(first, first + RUNS)) != 0).sum())
    return users


def all_of_ram(parts: Iterator[Frames]) -> int:
    """Add up as `ram` does, without what needs a kernel: slabs, areas, labels, backing."""
    count, own, cache = Count(9), KernelFrames(FRAMES), CacheSums()
    for frames in parts:
        count.add(frames)
        own.add(frames)
        cache.add(unowned(frames))
    cache.files()
    return count.census.count(np.ones(len(count.census), bool))


def all_of_a_group(parts: Iterator[Frames]) -> int:
    """Add up as `explain CGROUP` does, for every other group, without what needs a kernel."""
    inside, here = np.arange(GROUPS) % 2 == 1, np.zeros(0, np.int64)
    charged, cache, own = ChargedFrames(FRAMES, inside), CacheSums(), KernelFrames(FRAMES)
    count = Count(9, lambda _: here)
    for frames in parts:
        here = label(frames)
        mine = take(frames, inside[here])
        count.add(frames)
        charged(frames, here)
        cache.add(mine)
        own.add(mine)
    mapped = MappedPages(FRAMES, charged, 12)
    cache.files()
    del mapped
    return count.census.count(np.ones(len(count.census), bool))


FOLDS: dict[str, Callable[[Iterator[Frames]], int]] = {
    "count": counted, "kernel": kept, "files": cached, "systems": learned, "group": charged,
    "ram": all_of_ram, "explain": all_of_a_group,
}


def measured(fold: str, pages: int = 16) -> tuple[float, float]:
    """Run this module; return the peak memory of all of it in MB, and the milliseconds it took."""
    words = [sys.executable, "-m", "tests.system.large", fold, str(pages)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    peak, took = map(float, said.split())
    return peak, took


def main() -> None:
    """Run the fold that is asked for; every frame has to be in its sum."""
    begin = time.perf_counter()
    frames = FOLDS[sys.argv[1]](batches(int(sys.argv[2])))
    took = time.perf_counter() - begin
    if frames != FRAMES:
        raise SystemExit(f"{frames} of {FRAMES} frames")
    # ru_maxrss would include the process that started this one (exec_mmap, fs/exec.c)
    with open("/proc/self/status", encoding="ascii") as status:
        peak = next(line.split()[1] for line in status if line.startswith("VmHWM"))
    print(int(peak) * 1024 / 1e6, took * 1e3)


if __name__ == "__main__":
    main()
