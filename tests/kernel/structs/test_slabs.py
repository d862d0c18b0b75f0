"""Slabs and their objects against /proc/slabinfo, /sys/kernel/slab and what a cgroup is charged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from pagewalk.kernel.open import open_bpf
from pagewalk.kernel.running import RunningKernel, open_running
from pagewalk.kernel.scan import scan_frames
from pagewalk.kernel.structs.memcgs import KMEM, Memcgs, all_groups, rows_of
from pagewalk.kernel.structs.slabs import (
    Caches,
    Charged,
    add_object_owners,
    add_slab_sums,
    charged_objects,
    object_owners,
    read_caches,
    slab_sums,
)
from pagewalk.model.columns import Rows, join, take
from pagewalk.model.frames import Frames, Kind
from pagewalk.proc.iomem import read_ranges
from tests.charges import V1, inside, member, row_of
from tests.kernel_says import PAGE
from tests.live.bracket import Seen, look_again, settle
from tests.machine import memory_cgroup

pytestmark = [pytest.mark.live, pytest.mark.vmshort]

CPUS = os.cpu_count() or 1
# mm/memcontrol.c: so many pages a CPU are charged in advance at most
BATCH = 64


@pytest.fixture(scope="module")
def running() -> Iterator[RunningKernel]:
    opened = open_running(open_bpf())
    yield opened
    opened.kernel.close()


class InSlabinfo(NamedTuple):
    """A line of /proc/slabinfo: objects there is room for, bytes of each, pages, slabs."""

    objects: int
    size: int
    pages: int
    slabs: int


def slabinfo() -> dict[str, InSlabinfo]:
    found = {}
    for line in Path("/proc/slabinfo").read_text().splitlines()[2:]:
        name, _, objects, size, _, pages, _, _, _, _, _, _, _, _, slabs, _ = line.split()
        each = (int(objects), int(size), int(pages) * int(slabs), int(slabs))
        found[name] = InSlabinfo(*each)
    return found


def test_every_cache_has_the_slabs_of_slabinfo(running: RunningKernel) -> None:
    def look() -> Seen[str]:
        before = slabinfo()
        parts = [slab_sums(running.kernel, f) for f in scan_frames(running, read_ranges())]
        after = slabinfo()
        sums = add_slab_sums(parts)
        caches = read_caches(running.kernel, sums.cache)
        assert None not in caches.name and set(caches.name) <= before.keys()
        ours = {name: InSlabinfo(0, info.size, 0, 0) for name, info in before.items()}
        for row, name in enumerate(caches.name):
            columns = (sums.objects, caches.size, sums.pages, sums.slabs)
            ours[str(name)] = InSlabinfo(*(int(column[row]) for column in columns))
        moved = {name for name in before if before[name] != after.get(name)}
        differ: dict[str, object] = {
            name: (ours[name], before[name])
            for name in before.keys() - moved if ours[name] != before[name]
        }  # fmt: skip
        assert (sums.inuse <= sums.objects).all() and (sums.frozen <= sums.inuse).all()
        return Seen(differ, moved)

    assert settle(look) == {}


def test_a_cache_is_described_as_in_sysfs(running: RunningKernel) -> None:
    folder, compared = Path("/sys/kernel/slab"), 0
    caches = read_caches(running.kernel, np.unique(of_slabs(running).object))
    for row, name in enumerate(caches.name):
        files = ("slab_size", "object_size", "reclaim_account")
        try:
            theirs = [int((folder / str(name) / file).read_text()) for file in files]
        except FileNotFoundError:  # a name with a suffix of its own there
            continue
        columns = (caches.size, caches.object_size, caches.reclaimable)
        assert [int(column[row]) for column in columns] == theirs, name
        compared += 1
    assert compared > len(caches) // 2


def of_slabs(running: RunningKernel) -> Frames:
    parts = scan_frames(running, read_ranges())
    return join([take(frames, frames.of(Kind.SLAB)) for frames in parts])


class Amounts(NamedTuple):
    """Of one group, bytes: its pages but for the kernel's, those, and its objects by cache."""

    pages: int
    kernel: int
    objects: dict[str, int]
    counts: dict[str, int]


def amounts(running: RunningKernel, group: Path) -> Amounts:
    kernel, direct_map = running.kernel, running.direct_map
    charged, owners = [], []
    for frames in scan_frames(running, read_ranges()):
        assert frames.owner is not None
        charged.append(take(frames, (frames.owner != 0) & ~frames.of(Kind.SLAB)))
        owners.append(object_owners(kernel, direct_map, frames))
    groups = all_groups(kernel)
    row = row_of(groups, group)
    frames = join(charged)
    assert frames.owner is not None
    of_group = rows_of(kernel, direct_map, groups, frames.owner) == row
    of_kernel = frames.owner & KMEM != 0
    objects = by_name(running, groups, add_object_owners(owners), row)
    return Amounts(
        int(frames.pages[of_group & ~of_kernel].sum()) * PAGE,
        int(frames.pages[of_group & of_kernel].sum()) * PAGE,
        *objects,
    )


def by_name(
    running: RunningKernel, groups: Memcgs, owners: Rows, row: int
) -> tuple[dict[str, int], dict[str, int]]:
    caches: Caches = read_caches(running.kernel, np.unique(owners.cache))
    found: Charged = charged_objects(
        running.kernel, running.direct_map, groups, owners, caches
    )
    found = take(found, found.group == row)
    names = [caches.name[at] for at in np.searchsorted(caches.address, found.cache)]
    return dict(zip(names, found.size.tolist(), strict=True)), dict(
        zip(names, found.objects.tolist(), strict=True)
    )


def test_what_a_group_is_charged_for_closes(running: RunningKernel) -> None:
    usage, kmem = ("usage_in_bytes", "kmem.usage_in_bytes") if V1 else ("current", "")
    with memory_cgroup("objects") as group, member(group, "descriptors", 3000):

        def said(name: str) -> int:
            return int((group / f"memory.{name}").read_text())

        def look() -> None:
            before = said(usage), said(kmem) if kmem else None
            ours = amounts(running, group)
            assert (said(usage), said(kmem) if kmem else None) == before
            objects = sum(ours.objects.values())
            # Bytes of objects are charged a page at a time: each CPU keeps what is left of one in
            # its stock (refill_obj_stock), and the group what was left in stocks that were drained.
            advance = (CPUS + 1) * PAGE
            if before[1] is not None:
                assert 0 <= before[1] - ours.kernel - objects <= advance
            rest = before[0] - ours.pages - ours.kernel - objects
            assert 0 <= rest <= advance + CPUS * BATCH * PAGE
            assert ours.counts["filp"] >= 3000

        look_again(look)


def test_a_removed_group_leaves_its_objects_to_its_parent(running: RunningKernel) -> None:
    files = Path(f"/dev/shm/pagewalk-{os.getpid()}-objects")
    files.mkdir()
    try:
        with memory_cgroup("outer") as outer:
            with inside(outer) as inner, member(inner, f"{files}/", 1000):
                assert amounts(running, inner).counts["shmem_inode_cache"] >= 1000
                assert "shmem_inode_cache" not in amounts(running, outer).counts
            assert not inner.exists()
            look_again(lambda: check_objects(running, outer))
    finally:
        for file in files.iterdir():
            file.unlink()
        files.rmdir()


def check_objects(running: RunningKernel, group: Path) -> None:
    assert amounts(running, group).counts.get("shmem_inode_cache", 0) >= 1000


def test_vectors_that_cannot_be_read_are_told(running: RunningKernel) -> None:
    slabs = of_slabs(running)
    assert slabs.owner is not None
    one = take(slabs, np.flatnonzero(slabs.owner & np.uint64(1) != 0)[:1])
    objects = int(slab_sums(running.kernel, one).objects[0])
    size = running.direct_map.arch.direct_map_size[len(running.direct_map.arch.levels)]
    beyond_ram = running.direct_map.base + size - (1 << 20)
    for place, lost in ((beyond_ram, objects), (0x1000, 0), (0, 0)):
        columns = {name: getattr(one, name) for name in Frames.names}
        bad = Frames(**columns | {"owner": np.array([place | 1], np.uint64)})
        found = object_owners(running.kernel, running.direct_map, bad)
        assert found.objects[found.objcg == 0].sum() == found.objects.sum() == lost
