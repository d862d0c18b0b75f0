"""What RAM is used for: each frame in one part, and the parts add up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from pagewalk.model.frames import REFERENCED, Frames, Kind
from pagewalk.system.census import NOWHERE, Count, KernelFrames, Placed
from pagewalk.system.ram import GROUPS, NO_LABELS, PARTS, UNTOLD, Labels, parts_of
from tests.system.by_hand import Run, frames

LABELS = Labels(("", "reclaimable", "unreclaimable", "bdev", "ext4"), 3, 1, 2)
RUNS = {
    "anon": Run(Kind.ANON, 3), "anon_huge": Run(Kind.ANON, 512, order=9),
    "ksm": Run(Kind.KSM, 4), "swap_cache": Run(Kind.SWAP_CACHE, 5),
    "hugetlb_used": Run(Kind.HUGETLB, 512, facts=REFERENCED, order=9),
    "hugetlb_idle": Run(Kind.HUGETLB, 1024, order=9),
    "file_mapped": Run(Kind.FILE, 6, mapcount=2), "file_unmapped": Run(Kind.FILE, 7),
    "shmem_mapped": Run(Kind.SHMEM, 8, mapcount=1), "shmem_unmapped": Run(Kind.SHMEM, 9),
    "slab": Run(Kind.SLAB, 10), "large_kmalloc": Run(Kind.LARGE_KMALLOC, 11),
    "page_tables": Run(Kind.PAGE_TABLE, 12), "zsmalloc": Run(Kind.ZSMALLOC, 13),
    "balloon": Run(Kind.OFFLINE, 14), "guard": Run(Kind.GUARD, 15),
    "kernel_other": Run(Kind.KERNEL, 16), "unknown": Run(Kind.UNKNOWN, 17),
    "buddy": Run(Kind.BUDDY, 18), "deferred": Run(Kind.DEFERRED, 19),
    "cpu_lists": Run(Kind.CPU_LIST, 20), "unaccepted": Run(Kind.UNACCEPTED, 21),
    "boot": Run(Kind.RESERVED, 22),
}


def parts(
    batch: Frames, labels: Labels = NO_LABELS, told: Iterable[int] | None = None,
    placed: Placed | None = None,
) -> dict[str, int]:
    label = None if told is None else lambda _: np.array(list(told), np.int64)
    count = Count(9, label)
    count.add(batch)
    own = KernelFrames(int((batch.pfn + batch.pages).max(initial=0)))
    own.add(batch)
    return parts_of(count.census, labels, own.uses(NOWHERE if placed is None else placed))


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_one_part(name: str) -> None:
    assert parts(frames(RUNS[name])) == {name: RUNS[name].pages}


def test_every_kind_has_a_part() -> None:
    for kind in Kind:
        assert sum(parts(frames(Run(kind, 5))).values()) == 5


def test_parts_add_up() -> None:
    found = parts(frames(*RUNS.values()))
    assert sum(found.values()) == sum(run.pages for run in RUNS.values())
    assert list(found) == [part.name for part in PARTS if part.name in RUNS]


def test_a_block_that_is_not_one_folio_is_the_kernels() -> None:
    assert parts(frames(Run(Kind.KERNEL, 1), Run(Kind.BLOCK_TAIL, 3))) == {"kernel_other": 4}


def test_labels_tell_buffers_and_slabs() -> None:
    batch = frames(Run(Kind.FILE, 1), Run(Kind.FILE, 2, mapcount=1), Run(Kind.SLAB, 3),
                   Run(Kind.SLAB, 4), Run(Kind.SLAB, 5))
    assert parts(batch, LABELS, [3, 4, 1, 2, 0]) == {
        "file_mapped": 2, "buffers": 1, "slab_reclaimable": 3, "slab_unreclaimable": 4, "slab": 5}


def test_what_the_kernel_maps_is_taken_from_what_is_not_told_apart() -> None:
    batch = frames(Run(Kind.KERNEL, 10), Run(Kind.RESERVED, 10), Run(Kind.SLAB, 10))
    placed = Placed(np.array([1, 2, 3, 12, 25]), np.array([0, 0, 1, 1, 0]), ("vmalloc", "memmap"))
    found = parts(batch, placed=placed)
    # frame 25 has become a slab since: it is counted there
    assert found == {"slab": 10, "kernel_other": 7, "vmalloc": 2, "memmap_later": 1, "memmap": 1,
                     "boot": 9}


def test_what_was_kept_at_boot_stays_there() -> None:
    batch = frames(Run(Kind.KERNEL, 10), Run(Kind.RESERVED, 10))
    placed = Placed(np.array([1, 2, 12, 13]), np.array([1, 1, 0, 1]), ("vmap", "memmap"))
    # vmap maps frame 12, which was reserved at boot; frames 1 and 2 came later
    assert parts(batch, placed=placed) == {
        "kernel_other": 8, "memmap_later": 2, "memmap": 1, "boot": 9}


def test_parts_are_in_the_six_rows() -> None:
    assert {part.group for part in PARTS} == set(GROUPS)
    assert len({part.name for part in PARTS}) == len(PARTS)


def test_without_facts_and_objects_kinds_are_not_told_apart() -> None:
    count = Count(9)
    runs = frames(Run(Kind.HUGETLB, 4), Run(Kind.SLAB, 5), Run(Kind.FILE, 6, ("lru",), 1),
                  Run(Kind.ANON, 7))
    count.add(replace(runs, facts=None, object=None))
    assert parts_of(count.census, UNTOLD, {}) == {
        "hugetlb": 4, "slab": 5, "file_mapped": 6, "anon": 7}
