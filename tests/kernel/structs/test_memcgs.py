"""Memory cgroups against their directories, their files, and /proc/kpagecgroup."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pagewalk.kernel.open import open_bpf
from pagewalk.kernel.running import RunningKernel, open_running
from pagewalk.kernel.scan import scan_frames
from pagewalk.kernel.structs.kernel import Kernel
from pagewalk.kernel.structs.memcgs import Memcgs, all_groups, read_groups
from pagewalk.model.columns import join, take
from pagewalk.model.frames import ORDER_SHIFT, Frames, Kind
from pagewalk.proc.iomem import read_ranges
from tests.charges import ROOT, V1, member, row_of
from tests.kernel_says import PAGE
from tests.live.bracket import look_again
from tests.machine import memory_cgroup

pytestmark = [pytest.mark.live, pytest.mark.vmshort]

NOT_CHARGED = 0


@pytest.fixture(scope="module")
def running() -> Iterator[RunningKernel]:
    opened = open_running(open_bpf())
    yield opened
    opened.kernel.close()


def directories() -> dict[str, int]:
    """Return the inode of each directory of the hierarchy by its path from the root."""
    found = {}
    for folder, _, files in os.walk(ROOT):
        if V1 or folder == str(ROOT) or "memory.current" in files:
            found["/" + os.path.relpath(folder, ROOT).removeprefix(".")] = os.stat(folder).st_ino
    return found


def test_every_directory_is_a_group_with_its_inode_and_path(kernel: Kernel) -> None:
    def look() -> None:
        before, groups, after = directories(), all_groups(kernel), directories()
        assert before == after
        alive = np.flatnonzero(~groups.dying).tolist()
        found = {groups.path[row]: int(groups.inode[row]) for row in alive}
        assert found == before
        assert not groups.removed[alive].any()

    with memory_cgroup("odd") as group:
        inner = group / os.fsdecode(b"a b\x1b[1m\\\xff")  # the kernel refuses newlines only
        inner.mkdir()
        try:
            look_again(look)
        finally:
            inner.rmdir()


def test_parents_come_first_and_paths_follow_them(kernel: Kernel) -> None:
    groups = all_groups(kernel)
    assert groups.parent[0] == -1
    assert (groups.parent[1:] >= 0).all()
    assert (groups.parent < np.arange(len(groups))).all()
    for row, parent in enumerate(groups.parent.tolist()[1:], 1):
        assert groups.path[row].rpartition("/")[0] == groups.path[parent].removesuffix("/")


@pytest.mark.skipif(not V1, reason="v2 counts groups of other controllers together with these")
def test_no_group_is_missing(kernel: Kernel) -> None:
    def count() -> int:
        rows = Path("/proc/cgroups").read_text().splitlines()
        return next(int(row.split()[2]) for row in rows if row.startswith("memory\t"))

    def look() -> None:
        before, groups = count(), all_groups(kernel)
        assert before == len(groups) == count()

    look_again(look)


def test_amounts_are_those_of_the_files(kernel: Kernel) -> None:
    usage, limit = ("usage_in_bytes", "limit_in_bytes") if V1 else ("current", "max")
    more = "kmem.usage_in_bytes" if V1 else "swap.current"

    def look() -> None:
        def said(name: str) -> int | None:
            path = group / f"memory.{name}"
            return int(path.read_text()) if path.exists() else None

        before, extra = said(usage), said(more)
        groups = all_groups(kernel)
        assert (said(usage), said(more)) == (before, extra)
        row = row_of(groups, group)
        assert groups.usage[row] == before and before >= 4 << 20
        assert groups.limit[row] == 64 << 20
        assert groups.minimum[row] == (0 if V1 else 3 << 20)
        column = groups.kmem if V1 else groups.swap
        assert extra is None or (column is not None and column[row] == extra)

    with memory_cgroup("amounts") as group:
        assert all_groups(kernel).limit[row_of(all_groups(kernel), group)] == -1
        (group / f"memory.{limit}").write_text(str(64 << 20))
        if not V1:
            (group / "memory.min").write_text(str(3 << 20))
        with member(group, "anonymous", 4 << 20):
            look_again(look)


def owned(running: RunningKernel) -> Frames:
    """Return the frames of RAM that carry the word of an owner."""
    parts = []
    for frames in scan_frames(running, read_ranges()):
        assert frames.owner is not None
        parts.append(take(frames, frames.owner != 0))
    return join(parts)


def tmpfs_pages_of(running: RunningKernel, directory: Path) -> int:
    """Return how many pages of a tmpfs are charged to the group that was at ``directory``."""
    frames = owned(running)
    groups, row = read_groups(running.kernel, running.direct_map, frames.owner)
    assert frames.owner is not None
    path = "/" + str(directory.relative_to(ROOT))
    if path not in groups.path:  # the last charge was given back
        return 0
    of_group = (row == row_of(groups, directory)) & frames.of(Kind.SHMEM)
    return int(frames.pages[of_group].sum())


def charged_to(frames: np.ndarray) -> np.ndarray:
    """Return the words of /proc/kpagecgroup: the inode of the group each frame is charged to."""
    with open("/proc/kpagecgroup", "rb", 0) as file:
        words = [os.pread(file.fileno(), 8, 8 * int(frame)) for frame in frames]
    return np.frombuffer(b"".join(words), np.uint64)


def online(groups: Memcgs) -> np.ndarray:
    """Return for each group the inode of the nearest that is not dying, as page_cgroup_ino()."""
    inode = groups.inode.copy()
    for row in range(1, len(groups)):  # parents come first
        if groups.dying[row]:
            inode[row] = inode[groups.parent[row]]
    return inode


def test_frames_are_charged_as_kpagecgroup_says(running: RunningKernel) -> None:
    def look() -> None:
        frames = owned(running)
        assert frames.facts is not None
        # the kernel tells it of no page but the first of a large folio
        single = np.flatnonzero(frames.facts >> ORDER_SHIFT == 0)
        some = take(frames, single[:: max(1, len(single) // 4000)])
        before = charged_to(some.pfn)
        groups, row = read_groups(running.kernel, running.direct_map, some.owner)
        # What the scan itself allocates is ours while it is read, and free before and after.
        still = (before == charged_to(some.pfn)) & ((before != 0) | ~some.of(Kind.ANON))
        ours = np.where(row >= 0, online(groups)[row], np.uint64(NOT_CHARGED))
        assert len(some) > 100 and still.sum() > len(some) // 2
        wrong = np.flatnonzero(still & (ours != before))
        assert [(int(ours[at]), int(before[at])) for at in wrong] == []

    look_again(look)


def test_a_removed_group_lives_on_while_a_file_is_charged_to_it(running: RunningKernel) -> None:
    size = 3 << 20
    file = Path(f"/dev/shm/pagewalk-{os.getpid()}")
    try:
        with memory_cgroup("removed") as group:
            inode = group.stat().st_ino
            with member(group, str(file), size):
                assert not all_groups(running.kernel).dying[
                    row_of(all_groups(running.kernel), group)
                ]
        assert not group.exists()
        groups = all_groups(running.kernel)
        row = row_of(groups, group)
        assert groups.dying[row] and groups.removed[row]
        assert groups.inode[row] == inode and groups.usage[row] >= size

        def look(pages: int) -> None:
            assert tmpfs_pages_of(running, group) == pages

        look_again(lambda: look(size // PAGE))
        file.unlink()
        look_again(lambda: look(0))
    finally:
        file.unlink(missing_ok=True)


def test_words_that_name_no_group_have_no_row(running: RunningKernel) -> None:
    groups = all_groups(running.kernel)
    memcg = int(groups.memcg[0])
    words = [0, memcg, memcg | 1, memcg + 8, memcg | 2, 8, 0xFFFF_FFFF_FFFF_FFF8]
    found = read_groups(running.kernel, running.direct_map, np.array(words, np.uint64))
    assert found.of_owner.tolist() == [-1, 0, -1, -1, -1, -1, -1]
