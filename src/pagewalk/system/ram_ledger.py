"""Frames against /proc/meminfo, line by line: each difference is a list of named causes. Pure.

To add a line, add a row to LINES.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pagewalk.account.ledger import Cause, Line, bounded
from pagewalk.model.columns import Bool
from pagewalk.model.frames import MAPPED_WHOLE, Kind
from pagewalk.proc.totals import Totals
from pagewalk.system.census import Census
from pagewalk.system.ram import Labels


class Counted(NamedTuple):
    """What was counted: ``parts`` in pages by name (see ram.PARTS), ``page`` bytes of one.

    ``uses``: whether the kernel's own mappings were looked at, which tells stacks and vmalloc.
    """

    census: Census
    labels: Labels
    parts: dict[str, int]
    page: int
    cpus: int
    uses: bool


Amount = Callable[[Counted], int | None]


class Rule(NamedTuple):
    # A line before it is worked out. `field` of meminfo, or "zoneinfo count"; `ours_is` in words;
    # `moves` are the counters of vmstat, beside those of CHURN, that grow when a frame changes
    # what this line counts without being freed; `times` how many frames each of them may stand for.
    field: str
    ours_is: str
    ours: Amount
    moves: tuple[str, ...] = ()
    times: int = 1
    causes: tuple[str, ...] = ()


# A frame is counted wrongly only if it changed while RAM was read, and then it was freed, or
# allocated, or both (mm/page_alloc.c counts each).
CHURN = ("pgalloc_", "pgfree")
LRU = ("pgactivate", "pgdeactivate", "pgrotated", "unevictable_pgs_culled",
       "unevictable_pgs_rescued", "unevictable_pgs_mlocked", "unevictable_pgs_munlocked",
       "unevictable_pgs_cleared")  # fmt: skip
WRITTEN = ("nr_dirtied", "nr_written")
# A fault maps up to 16 pages around it (fault_around_bytes, mm/memory.c), and what is mapped
# meanwhile may also be unmapped meanwhile.
MAPS, AROUND = ("pgfault",), 2 * 16

WHY = {
    "frames_changed": "frames were allocated or freed, or changed their list, while RAM was read:"
    " at most as many as /proc/vmstat counted meanwhile",
    "concurrent_change": "the number moved between the readings around the scan",
    "cached_stacks": "stacks of threads that ended, kept for the next ones: two a CPU at most",
    "first_chunk": "per-CPU memory that was set aside at boot, in reserved frames",
    "misc_reclaimable": "reclaimable kernel memory that is no slab",
}


def part(*names: str) -> Amount:
    return lambda seen: sum(seen.parts.get(name, 0) for name in names)


def mask(rule: Callable[[Census, Labels], Bool]) -> Amount:
    return lambda seen: seen.census.count(rule(seen.census, seen.labels))


ANON = (Kind.ANON, Kind.KSM)
CACHED = (Kind.FILE, Kind.SHMEM, Kind.SWAP_CACHE)


def _all(seen: Counted) -> int:
    return int(seen.census.pages.sum())


def _cached(seen: Counted) -> int:
    census = seen.census
    return census.count(census.of(Kind.FILE, Kind.SHMEM)
                        & ~(census.of(Kind.FILE) & (census.label == seen.labels.bdev))
                        & ~(census.of(Kind.SHMEM) & census.has("swapcache")))


def _swap_cached(census: Census, _: Labels) -> Bool:
    return census.of(Kind.SWAP_CACHE) | (census.of(*ANON, Kind.SHMEM) & in_swap_cache(census))


def in_swap_cache(census: Census) -> Bool:
    """Return which rows are also in swap."""
    return census.has("swapcache")


def on_lru(census: Census, *, anon: bool, active: bool | None = None) -> Bool:
    """Return which rows are on the LRU lists of swap-backed memory (``anon``) or of files."""
    found: Bool = census.has("lru") & (census.has("swapbacked") == anon)
    found &= ~census.has("unevictable") & census.of(*ANON, Kind.FILE, Kind.SHMEM, Kind.SWAP_CACHE)
    return found if active is None else found & (census.has("active") == active)


def _mapped(census: Census, _: Labels) -> Bool:
    kernels = census.of(Kind.KERNEL, Kind.RESERVED, Kind.BLOCK_TAIL)
    return census.mapped & (census.of(Kind.FILE, Kind.SHMEM) | kernels)


def _dirty(census: Census, labels: Labels) -> Bool:
    ramfs = census.label == (labels.names.index("ramfs") if "ramfs" in labels.names else -1)
    found: Bool = census.of(Kind.FILE) & census.has("dirty") & ~ramfs
    return found


def whole(census: Census, *kinds: Kind) -> Bool:
    """Return which rows of ``kinds`` are mapped as huge pages."""
    found: Bool = census.of(*kinds) & census.huge & (census.facts & MAPPED_WHOLE != 0)
    return found


def _by_uses(*names: str) -> Amount:
    return lambda seen: part(*names)(seen) if seen.uses else None


LINES = (
    Rule("MemTotal", "all frames - reserved", lambda seen: _all(seen) - seen.census.count(
        seen.census.of(Kind.RESERVED))),
    Rule("MemFree", "free blocks", part("buddy", "deferred", "unaccepted")),
    Rule("zoneinfo count", "per-CPU lists", part("cpu_lists")),
    Rule("Buffers", "cache of block devices", part("buffers")),
    Rule("Cached", "files + shared memory", _cached),
    Rule("SwapCached", "also in swap", mask(_swap_cached)),
    Rule("Active", "active LRU lists", mask(lambda c, _: on_lru(c, anon=True, active=True)
                                            | on_lru(c, anon=False, active=True)), LRU),
    Rule("Inactive", "inactive LRU lists", mask(lambda c, _: on_lru(c, anon=True, active=False)
                                                | on_lru(c, anon=False, active=False)), LRU),
    Rule("Active(anon)", "active, swap-backed",
         mask(lambda c, _: on_lru(c, anon=True, active=True)), LRU),
    Rule("Inactive(anon)", "inactive, swap-backed",
         mask(lambda c, _: on_lru(c, anon=True, active=False)), LRU),
    Rule("Active(file)", "active, of files",
         mask(lambda c, _: on_lru(c, anon=False, active=True)), LRU),
    Rule("Inactive(file)", "inactive, of files",
         mask(lambda c, _: on_lru(c, anon=False, active=False)), LRU),
    Rule("Unevictable", "unevictable", mask(
        lambda c, _: c.has("unevictable") & c.has("lru")
        & c.of(*ANON, Kind.FILE, Kind.SHMEM, Kind.SWAP_CACHE)), LRU),
    Rule("Mlocked", "mlocked", mask(
        lambda c, _: c.has("mlocked") & c.of(*ANON, Kind.FILE, Kind.SHMEM)), LRU),
    Rule("Dirty", "dirty, of files", mask(_dirty), WRITTEN),
    Rule("Writeback", "being written", mask(
        lambda c, _: c.has("writeback") & c.of(*ANON, Kind.FILE, Kind.SHMEM, Kind.SWAP_CACHE)),
        WRITTEN),
    Rule("AnonPages", "anonymous and mapped", mask(lambda c, _: c.of(*ANON) & c.mapped)),
    Rule("Mapped", "files, shared memory and kernel pages that are mapped", mask(_mapped), MAPS,
         AROUND),
    Rule("Shmem", "shared memory", mask(lambda c, _: c.of(Kind.SHMEM))),
    Rule("KReclaimable", "slab, reclaimable", part("slab_reclaimable"),
         causes=("misc_reclaimable",)),
    Rule("Slab", "slab + large kmalloc",
         part("slab", "slab_reclaimable", "slab_unreclaimable", "large_kmalloc")),
    Rule("SReclaimable", "slab, reclaimable", part("slab_reclaimable")),
    Rule("SUnreclaim", "slab, not reclaimable + large kmalloc",
         part("slab_unreclaimable", "large_kmalloc")),
    Rule("KernelStack", "kernel stacks", _by_uses("kernel_stack"), causes=("cached_stacks",)),
    Rule("PageTables", "page tables", part("page_tables")),
    Rule("VmallocUsed", "vmalloc + kernel stacks", _by_uses("vmalloc", "kernel_stack")),
    Rule("Percpu", "per-CPU", _by_uses("percpu"), causes=("first_chunk",)),
    Rule("HardwareCorrupted", "poisoned", mask(lambda c, _: c.has("hwpoison"))),
    Rule("AnonHugePages", "anonymous, mapped as huge pages",
         mask(lambda c, _: whole(c, Kind.ANON))),
    Rule("ShmemHugePages", "shared memory in huge pages",
         mask(lambda c, _: c.of(Kind.SHMEM) & c.huge)),
    Rule("ShmemPmdMapped", "shared memory mapped as huge pages",
         mask(lambda c, _: whole(c, Kind.SHMEM)), MAPS, AROUND),
    Rule("FileHugePages", "files in huge pages", mask(lambda c, _: c.of(Kind.FILE) & c.huge)),
    Rule("FilePmdMapped", "files mapped as huge pages", mask(lambda c, _: whole(c, Kind.FILE)),
         MAPS, AROUND),
    Rule("Hugetlb", "hugetlb pages", part("hugetlb_used", "hugetlb_idle")),
    Rule("Balloon", "balloon", part("balloon")),
    Rule("Unaccepted", "not yet accepted", part("unaccepted")),
)  # fmt: skip

# Lines of meminfo that no frame stands behind, or that frames do not tell; and why.
NOT_COMPARED = {
    **dict.fromkeys(("SwapTotal", "SwapFree"), "space on swap devices, not RAM"),
    **dict.fromkeys(("CommitLimit", "Committed_AS"), "promises, not memory"),
    **dict.fromkeys(("VmallocTotal", "VmallocChunk"), "address space, not RAM"),
    **dict.fromkeys(("Zswap", "Zswapped"), "parts of zsmalloc's pages that frames do not tell"),
    **dict.fromkeys(("SecPageTables",), "page tables of virtual machines and IOMMUs: their frames"
                    " are not marked on every kernel"),
    **dict.fromkeys(("NFS_Unstable", "Bounce", "WritebackTmp"), "no longer counted, or by FUSE"),
    **dict.fromkeys(("CmaTotal", "CmaFree"), "where frames may lie, not what they are used for"),
    **dict.fromkeys(("HugePages_Total", "HugePages_Free", "HugePages_Rsvd", "HugePages_Surp",
                     "Hugepagesize"), "numbers of pages of one size; Hugetlb has their bytes"),
    **dict.fromkeys(("DirectMap4k", "DirectMap2M", "DirectMap4M", "DirectMap1G"),
                    "how the kernel maps RAM, not what it is used for"),
    "MemAvailable": "an estimate: see what could be had back",
}


def ram_ledger(seen: Counted, readings: Sequence[Totals]) -> list[Line]:
    """Return a line for each number that the kernel gave, from ``readings`` around the scan.

    The first was made before it and the last after it. Amounts are bytes.
    """
    found = []
    for rule in LINES:
        told = (number(rule, reading, seen.page) for reading in readings)
        theirs = [given for given in told if given is not None]
        if theirs:
            found.append(_line(rule, seen, theirs, readings))
    return found


def not_compared(totals: Totals) -> dict[str, str]:
    """Return the lines of meminfo that no line of the ledger is about, and why."""
    compared = {rule.field for rule in LINES}
    return {name: NOT_COMPARED.get(name, "not known to this version of pagewalk")
            for name in totals.meminfo or {} if name not in compared}


def number(rule: Rule, totals: Totals, page: int) -> int | None:
    """Return the kernel's number of a line in bytes, None if it gives none."""
    if rule.field == "zoneinfo count":
        return None if totals.zones is None else page * sum(zone.listed for zone in totals.zones)
    return (totals.meminfo or {}).get(rule.field)


def _line(rule: Rule, seen: Counted, theirs: list[int], readings: Sequence[Totals]) -> Line:
    title = rule.field if rule.field.startswith("zoneinfo") else f"meminfo {rule.field}"
    pages = rule.ours(seen)
    if pages is None:
        return Line(title, rule.ours_is, None, theirs[-1], (), None)
    ours = pages * seen.page
    misc = -seen.page * misc_reclaimable(readings[-1]) if "misc_reclaimable" in rule.causes else 0
    exact = (Cause("misc_reclaimable", misc, True),) if misc else ()
    rest = ours - theirs[-1] - misc
    others = bounded(rest, _bounds(rule, seen, rest, theirs, readings))
    rest -= sum(cause.bytes for cause in others)
    return Line(title, rule.ours_is, ours, theirs[-1], (*exact, *others), rest)


def _bounds(
    rule: Rule, seen: Counted, rest: int, theirs: list[int], readings: Sequence[Totals]
) -> list[tuple[str, int]]:
    # The bounded causes of a line, and the most that each can account for.
    found = []
    if "cached_stacks" in rule.causes:
        found.append(("cached_stacks", _STACKS * seen.cpus * _STACK))
    if "first_chunk" in rule.causes and rest < 0:
        found.append(("first_chunk", seen.page * seen.parts.get("boot", 0)))
    changed = growth(readings, *CHURN) + rule.times * growth(readings, *rule.moves)
    return [*found, ("frames_changed", seen.page * changed),
            ("concurrent_change", max(theirs) - min(theirs))]


# NR_CACHED_STACKS and THREAD_SIZE (kernel/fork.c; 16 KiB on x86-64 and arm64)
_STACKS, _STACK = 2, 16 << 10


def misc_reclaimable(totals: Totals) -> int:
    """Return the pages of reclaimable kernel memory that are no slab."""
    return (totals.vmstat or {}).get("nr_kernel_misc_reclaimable", 0)


def growth(readings: Sequence[Totals], *names: str) -> int:
    """Return how much the counters of vmstat that begin with ``names`` grew, first to last."""
    first, last = readings[0].vmstat or {}, readings[-1].vmstat or {}
    return sum(last[name] - first.get(name, 0) for name in last if names and name.startswith(names))
