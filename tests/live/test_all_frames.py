"""Every frame of RAM, read in three ways: they agree in all that each of them can tell."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from itertools import chain

import numpy as np
import pytest

from pagewalk.kernel.open import open_bpf
from pagewalk.kernel.programs import loader
from pagewalk.kernel.running import RunningKernel, open_running
from pagewalk.kernel.scan import scan_frames
from pagewalk.kernel.structs.memcgs import Memcgs, read_groups
from pagewalk.model.bits import KPF
from pagewalk.model.columns import I64, U8, U64
from pagewalk.model.frames import Frames, Kind
from pagewalk.proc.iomem import cut, read_ranges
from pagewalk.proc.kpage_scan import CHUNK, scan_kpage
from tests.kernel_says import KPF_KSM, PAGE
from tests.live.bracket import Seen, settle
from tests.machine import prepared
from tests.targets import TARGETS, start

pytestmark = pytest.mark.live

# What /proc/kpageflags does not tell from any other memory of the kernel.
UNTOLD = {
    Kind.CPU_LIST, Kind.DEFERRED, Kind.LARGE_KMALLOC, Kind.ZSMALLOC, Kind.GUARD, Kind.UNACCEPTED,
    Kind.BLOCK_TAIL, Kind.KERNEL,
}  # fmt: skip


@pytest.fixture(scope="module")
def running() -> Iterator[RunningKernel]:
    opened = open_running(open_bpf(), loads=True)
    with closing(opened.kernel):
        yield opened


@pytest.fixture(autouse=True)
def pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the program however little RAM there is."""
    monkeypatch.setattr(loader, "SCANNER_PAYS", 0)


@cache
def ksm_is_told() -> bool:
    """Return whether the KSM bit is off for a page that we just wrote (6.12 sets it on all)."""
    own = np.ones(PAGE, np.uint8)
    with open("/proc/self/pagemap", "rb") as pagemap, open("/proc/kpageflags", "rb") as flags:
        (entry,) = struct.unpack("<Q", os.pread(pagemap.fileno(), 8, own.ctypes.data // PAGE * 8))
        (word,) = struct.unpack("<Q", os.pread(flags.fileno(), 8, (entry & (1 << 55) - 1) * 8))
    return not word & KPF_KSM


def told_kinds(frames: Frames) -> U8:
    """Return the kinds that kpageflags can tell of frames read from struct pages."""
    kind = frames.kind.copy()
    kind[frames.of(*UNTOLD)] = Kind.KERNEL.value
    listed = frames.flags >> np.uint64(KPF["lru"]) & np.uint64(1) != 0
    kind[frames.of(Kind.FILE, Kind.SHMEM) & ~listed] = Kind.KERNEL.value
    if not ksm_is_told():
        kind[frames.of(Kind.KSM)] = Kind.ANON.value
    return kind


def inodes(groups: Memcgs, rows: I64) -> U64:
    """Return the inode of each of ``rows`` as page_cgroup_ino() has it: of one that is online."""
    rows = rows.copy()
    while (gone := (rows >= 0) & groups.dying[rows]).any():
        rows[gone] = groups.parent[rows[gone]]
    return np.where(rows >= 0, groups.inode[rows], np.uint64(0))


class Told:
    """What one way of reading says about the frames of a chunk: a row for each property."""

    def __init__(self, frames: Frames, owner: U64 | None) -> None:
        kind = told_kinds(frames)
        # A struct page that was never initialised would be mapped once.
        count = np.where(frames.of(Kind.DEFERRED), 1, frames.mapcount)
        columns = [kind, count, np.zeros(len(frames)) if owner is None else owner]
        self.words = np.repeat(np.stack([c.astype(np.uint64) for c in columns]), frames.pages, 1)


def from_structs(running: RunningKernel, part: tuple[int, int]) -> Told:
    (frames,) = scan_frames(running, [part])
    assert frames.owner is not None
    found = read_groups(running.kernel, running.direct_map, frames.owner)
    return Told(frames, inodes(found.groups, found.of_owner))


def check_agreement(running: RunningKernel) -> None:
    copies = running._replace(shortcuts=None)
    left = {part: np.ones(part[1] - part[0], bool) for part in cut(read_ranges(), CHUNK)}

    def look() -> Seen[int]:
        differ: dict[int, object] = {}
        moved: set[int] = set()
        for part, rows in list(left.items()):
            before = from_structs(copies, part)
            quick = from_structs(running, part)
            (kpage,) = scan_kpage([part])
            found = Told(kpage, kpage.owner)
            after = from_structs(copies, part)
            still = (before.words == after.words).all(axis=0)
            same = (found.words == after.words).all(axis=0)
            same &= (quick.words == after.words).all(axis=0)
            wrong, lost = (np.flatnonzero(rows & mask) for mask in (still & ~same, ~still))
            differ |= {part[0] + row: (found.words[:, row].tolist(), after.words[:, row].tolist())
                       for row in wrong.tolist()}
            moved |= set((lost + part[0]).tolist())
            left[part] = rows & ~(still & same)
            if not left[part].any():
                del left[part]
        return Seen(differ, moved)

    assert settle(look) == {}


@pytest.mark.vmshort
def test_three_ways_to_read_all_frames_agree(running: RunningKernel) -> None:
    check_agreement(running)


@pytest.mark.parametrize("name", ["thp_part", "hugetlb_shared", "swap_private", "ksm"])
def test_they_agree_while_there_are(name: str, running: RunningKernel) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as target:
        check_agreement(running)
        # the target's own pages are among them
        assert target.pids


def test_each_frame_of_ram_is_in_one_run_of_kpage_files() -> None:
    ranges = read_ranges()
    runs = [(f.pfn, f.pages) for f in scan_kpage(ranges)]
    pfn, pages = (np.concatenate(column) for column in zip(*runs, strict=True))
    assert (pages > 0).all()
    assert pages.sum() == sum(last - first for first, last in ranges)
    assert set(chain.from_iterable(ranges)) <= {*pfn.tolist(), *(pfn + pages).tolist()}
    assert (pfn[1:] >= (pfn + pages)[:-1]).all()
