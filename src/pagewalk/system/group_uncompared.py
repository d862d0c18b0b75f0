"""Lines of a cgroup's memory.stat that the ledger is not about, and why."""

from __future__ import annotations

from pagewalk.proc.cgroup_numbers import GroupNumbers
from pagewalk.system.group_ledger import BOTH_LISTS, KERNELS, STAT
from pagewalk.system.ram_ledger import NOT_COMPARED as OF_RAM

# What counts events (memcg_vm_event_stat and memory_stats, mm/memcontrol.c).
EVENTS = ("pg", "workingset_", "thp_", "swpin", "swpout", "zswpin", "zswpout", "zswpwb", "numa_")
COUNTS = "events, not memory"
NOT_COMPARED = {
    **dict.fromkeys(KERNELS, "only the kernel counts it: a cause of what is charged"),
    "zswapped": "what zswap keeps, before it was compressed: not RAM",
    "sec_pagetables": OF_RAM["SecPageTables"],
    "hugetlb": "hugetlb pages, which are charged only where the mount of cgroups says so",
    "swap": "in swap, not RAM",
    **dict.fromkeys(("hierarchical_memory_limit", "hierarchical_memsw_limit"),
                    "limits, not memory"),
}
ALONE = "of the group without those below it: the line in total_ is compared"
UNKNOWN = "not known to this version of pagewalk"


def not_compared(numbers: GroupNumbers, version: int) -> dict[str, str]:
    """Return the lines of memory.stat that no line of the ledger is about, and why."""
    compared = {name for rule in (*STAT[version], *BOTH_LISTS) for name in rule.field.split(" + ")}
    return {name: _why(name, compared) for name in numbers.stat or {} if name not in compared}


def _why(name: str, compared: set[str]) -> str:
    own = name.removeprefix("total_")
    if own.startswith(EVENTS):
        return COUNTS
    if f"total_{name}" in compared:
        return ALONE
    return NOT_COMPARED.get(own, UNKNOWN)
