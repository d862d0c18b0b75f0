"""What a cgroup is charged for as far as the kernel's counters tell: for those without rights."""

from __future__ import annotations

from pagewalk.proc.cgroup_numbers import GroupNumbers

# What version 2 counts of the kernel's memory, and the part of ram.PARTS that it is.
KERNEL = {"pagetables": "page_tables", "kernel_stack": "kernel_stack",
          "slab_reclaimable": "slab_reclaimable", "slab_unreclaimable": "slab_unreclaimable",
          "vmalloc": "vmalloc"}  # fmt: skip
# These are in memory.stat's `kernel` too, but are no pages of the group (mm/memcontrol.c).
APART = ("percpu", "zswap")
# What version 2 charges beside pages that hold something of the group: those, and what is no part
# of `kernel`. Hugetlb pages only where they are charged (memory_hugetlb_accounting).
BESIDE = (*APART, "sock", "hugetlb")


def parts_from(numbers: GroupNumbers, version: int) -> dict[str, int] | None:
    """Return the bytes of each part that memory.stat tells; None if it could not be read.

    Names are those of ram.PARTS, and ``file`` and ``shmem``, mapped or not. What is in swap too is
    counted by what it is, not as a part of its own. What is charged to the kernel and not told
    apart is in ``kernel_other``. Anonymous memory is what is mapped.
    """
    stat = numbers.stat
    if stat is None:
        return None
    if version == 1:
        told = {name.removeprefix("total_"): held for name, held in stat.items()
                if name.startswith("total_")}
        told |= {"anon": told.get("rss", 0), "anon_thp": told.get("rss_huge", 0),
                 "file": told.get("cache", 0), "kernel": numbers.kmem or 0}
        kernel = {}
    else:
        told = stat
        kernel = {part: told[name] for name, part in KERNEL.items() if name in told}
    apart = sum(told.get(name, 0) for name in APART)
    shmem = told.get("shmem", 0)
    parts = {
        "anon": told.get("anon", 0) - told.get("anon_thp", 0),
        "anon_huge": told.get("anon_thp", 0),
        "file": told.get("file", 0) - shmem,
        "shmem": shmem,
        **kernel,
        "kernel_other": told.get("kernel", 0) - sum(kernel.values()) - apart,
    }
    return {name: held for name, held in parts.items() if held > 0}


def charged_from(numbers: GroupNumbers, version: int) -> dict[str, int] | None:
    """Return the bytes of each part of the charge that memory.stat tells; None if it was not read.

    That is what parts_from tells, and what is charged beside it, by BESIDE. Version 1 has that in
    ``kernel_other``, or does not charge it.
    """
    parts = parts_from(numbers, version)
    if parts is None or version == 1:
        return parts
    stat = numbers.stat or {}
    return parts | {name: held for name in BESIDE if (held := stat.get(name, 0)) > 0}


def of_files(numbers: GroupNumbers, version: int) -> int | None:
    """Return at most how many bytes of files could be reclaimed at once, None if not told."""
    stat, front = numbers.stat or {}, "total_" if version == 1 else ""
    listed = [stat.get(f"{front}{name}") for name in ("inactive_file", "active_file")]
    if None in listed:
        return None
    dirty = stat.get("total_dirty" if version == 1 else "file_dirty", 0)
    return max(0, sum(held or 0 for held in listed) - dirty)
