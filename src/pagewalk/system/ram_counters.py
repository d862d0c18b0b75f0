"""What RAM is used for as far as the kernel's counters tell: for those who may not see frames."""

from __future__ import annotations

from pagewalk.proc.totals import Totals


def parts_from(totals: Totals, page: int) -> tuple[int | None, dict[str, int] | None]:
    """Return all RAM and the bytes of each part (see ram.PARTS), which add up to it.

    ``page`` is the bytes of a page. What no counter names is in ``kernel_other``. None where a file
    could not be read, or where the counters moved so much meanwhile that they exceed all RAM.
    """
    if totals.meminfo is None or totals.zones is None:
        return None, None
    meminfo = totals.meminfo
    total = page * sum(zone.present for zone in totals.zones)
    parts = {
        "anon": meminfo["AnonPages"] - meminfo.get("AnonHugePages", 0),
        "anon_huge": meminfo.get("AnonHugePages", 0),
        "hugetlb": meminfo.get("Hugetlb", 0),
        "file": meminfo["Cached"] - meminfo["Shmem"],
        "buffers": meminfo["Buffers"],
        "shmem": meminfo["Shmem"],
        "slab_reclaimable": meminfo["SReclaimable"],
        "slab_unreclaimable": meminfo["SUnreclaim"],
        "page_tables": meminfo["PageTables"],
        "kernel_stack": meminfo["KernelStack"],
        "percpu": meminfo.get("Percpu", 0),
        "buddy": meminfo["MemFree"],
        "cpu_lists": page * sum(zone.listed for zone in totals.zones),
        "boot": total - meminfo["MemTotal"],
    }
    rest = total - sum(parts.values())
    if rest < 0:
        return total, None
    return total, {name: amount for name, amount in (parts | {"kernel_other": rest}).items()
                   if amount}
