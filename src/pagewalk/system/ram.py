"""What all of RAM is used for: each frame once, in six rows, each opened by kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pagewalk.model.columns import Bool
from pagewalk.model.frames import REFERENCED, Kind
from pagewalk.system.census import Census

# The six rows, in order.
GROUPS = {
    "processes": "processes",
    "cache": "files in cache",
    "shared": "shared memory",
    "kernel": "kernel",
    "free": "free",
    "boot": "kept by the kernel at boot",
}


class Part(NamedTuple):
    """A kind of use: its name in JSON, its row in GROUPS, and what it is called."""

    name: str
    group: str
    title: str


PARTS = (
    Part("anon", "processes", "anonymous"),
    Part("anon_huge", "processes", "anonymous, in huge pages"),
    Part("ksm", "processes", "merged by KSM"),
    Part("swap_cache", "processes", "also in swap, mapped by nobody"),
    Part("hugetlb_used", "processes", "hugetlb pages in use"),
    Part("hugetlb_idle", "processes", "hugetlb pages set aside and idle"),
    Part("hugetlb", "processes", "hugetlb pages"),
    Part("file", "cache", "files, mapped or not"),
    Part("file_mapped", "cache", "mapped by processes"),
    Part("file_unmapped", "cache", "mapped by nobody"),
    Part("buffers", "cache", "of block devices (buffers)"),
    Part("shmem", "shared", "mapped or not (tmpfs, memfd, SysV)"),
    Part("shmem_mapped", "shared", "mapped by processes"),
    Part("shmem_unmapped", "shared", "mapped by nobody (tmpfs, memfd, SysV)"),
    Part("slab_reclaimable", "kernel", "slab, reclaimable"),
    Part("slab_unreclaimable", "kernel", "slab, not reclaimable"),
    Part("slab", "kernel", "slab"),
    Part("large_kmalloc", "kernel", "large kmalloc"),
    Part("page_tables", "kernel", "page tables"),
    Part("kernel_stack", "kernel", "kernel stacks"),
    Part("vmalloc", "kernel", "vmalloc"),
    Part("vmap", "kernel", "mapped by vmap"),
    Part("percpu", "kernel", "per-CPU"),
    Part("memmap_later", "kernel", "struct pages made after boot"),
    Part("zsmalloc", "kernel", "zsmalloc (compressed swap: zram, zswap)"),
    Part("balloon", "kernel", "balloon, or offline"),
    Part("guard", "kernel", "guard pages"),
    Part("kernel_other", "kernel", "not told apart"),
    Part("unknown", "kernel", "unreadable"),
    Part("buddy", "free", "in blocks of the buddy allocator"),
    Part("deferred", "free", "free and never used"),
    Part("cpu_lists", "free", "on per-CPU lists"),
    Part("unaccepted", "free", "not yet accepted from the hypervisor"),
    Part("memmap", "boot", "struct pages (memmap)"),
    Part("boot", "boot", "kernel image, firmware, boot allocations"),
)

_BY_KIND = {
    Kind.KSM: "ksm", Kind.SWAP_CACHE: "swap_cache", Kind.LARGE_KMALLOC: "large_kmalloc",
    Kind.PAGE_TABLE: "page_tables", Kind.ZSMALLOC: "zsmalloc", Kind.OFFLINE: "balloon",
    Kind.GUARD: "guard", Kind.UNKNOWN: "unknown", Kind.BUDDY: "buddy", Kind.DEFERRED: "deferred",
    Kind.CPU_LIST: "cpu_lists", Kind.UNACCEPTED: "unaccepted", Kind.RESERVED: "boot",
    Kind.KERNEL: "kernel_other", Kind.BLOCK_TAIL: "kernel_other",
}  # fmt: skip


# The row of the kinds that are told apart further.
_GROUP_BY_KIND = {
    Kind.ANON: "processes", Kind.HUGETLB: "processes", Kind.FILE: "cache", Kind.SHMEM: "shared",
    Kind.SLAB: "kernel",
}  # fmt: skip
_GROUP_OF_PART = {part.name: part.group for part in PARTS}


def group_of(kind: Kind) -> str:
    """Return the row of GROUPS that frames of ``kind`` are in, whatever part of it they are."""
    return _GROUP_BY_KIND.get(kind) or _GROUP_OF_PART[_BY_KIND[kind]]


class Labels(NamedTuple):
    """What the labels of a census mean.

    ``names`` are file systems by label, the first an empty string for "not told"; ``bdev`` the
    label of block devices' caches. A slab's label is ``reclaimable`` or ``unreclaimable``.
    ``told`` is False if frames came without facts and objects.
    """

    names: tuple[str, ...]
    bdev: int = -1
    reclaimable: int = -1
    unreclaimable: int = -1
    told: bool = True


NO_LABELS = Labels(("",))
UNTOLD = Labels(("",), told=False)


def parts_of(
    census: Census, labels: Labels, uses: dict[tuple[str, Kind], int]
) -> dict[str, int]:
    """Return the pages of each part by name; together they are all pages of ``census``.

    ``uses`` is what KernelFrames.uses returns of the same frames.
    """
    pages = {name: census.count(where(census, labels)) for name, where in _RULES.items()}
    for kind, name in _BY_KIND.items():
        pages[name] = pages.get(name, 0) + census.count(census.of(kind))
    for (use, kind), count in uses.items():
        # Reserved frames are not in MemTotal, whatever else maps them; the others are.
        if (kind is Kind.RESERVED) == (use == "memmap"):
            part = use
        elif use == "memmap":
            part = "memmap_later"
        else:
            continue
        pages[_BY_KIND[kind]] -= count
        pages[part] = pages.get(part, 0) + count
    return {part.name: pages[part.name] for part in PARTS if pages.get(part.name)}


Rule = Callable[[Census, Labels], Bool]


def _anon(census: Census, labels: Labels, *, huge: bool) -> Bool:
    del labels
    found: Bool = census.of(Kind.ANON) & (census.huge == huge)
    return found


def _file(census: Census, labels: Labels, *, mapped: bool) -> Bool:
    found: Bool = (census.of(Kind.FILE) & (census.label != labels.bdev)
                   & (census.mapped == mapped))
    return found


def _hugetlb(census: Census, labels: Labels, *, used: bool) -> Bool:
    found: Bool = census.of(Kind.HUGETLB) & ((census.facts & REFERENCED != 0) == used)
    return found & labels.told


_RULES: dict[str, Rule] = {
    "anon": lambda census, labels: _anon(census, labels, huge=False),
    "anon_huge": lambda census, labels: _anon(census, labels, huge=True),
    "hugetlb_used": lambda census, labels: _hugetlb(census, labels, used=True),
    "hugetlb_idle": lambda census, labels: _hugetlb(census, labels, used=False),
    "hugetlb": lambda census, labels: census.of(Kind.HUGETLB) & (not labels.told),
    "file_mapped": lambda census, labels: _file(census, labels, mapped=True),
    "file_unmapped": lambda census, labels: _file(census, labels, mapped=False),
    "buffers": lambda census, labels: census.of(Kind.FILE) & (census.label == labels.bdev),
    "shmem_mapped": lambda census, _: census.of(Kind.SHMEM) & census.mapped,
    "shmem_unmapped": lambda census, _: census.of(Kind.SHMEM) & ~census.mapped,
    "slab_reclaimable": lambda census, labels: _slab(census, labels.reclaimable),
    "slab_unreclaimable": lambda census, labels: _slab(census, labels.unreclaimable),
    "slab": lambda census, labels: (
        census.of(Kind.SLAB)
        & (census.label != labels.reclaimable) & (census.label != labels.unreclaimable)
    ),
}  # fmt: skip


def _slab(census: Census, label: int) -> Bool:
    found: Bool = census.of(Kind.SLAB) & (census.label == label)
    return found
