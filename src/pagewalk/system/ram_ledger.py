"""Frames against /proc/meminfo, line by line: each difference is a list of named causes. Pure.

To add a line, add a row to LINES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pagewalk.account.ledger import Line, bounded
from pagewalk.model.columns import Bool
from pagewalk.model.frames import Kind
from pagewalk.proc.totals import Totals
from pagewalk.system.census import MAPPABLE, Census
from pagewalk.system.counted_as import (
    ANON,
    dirty_files,
    in_swap_cache,
    in_writeback,
    on_lru,
    unevictable,
    whole,
)
from pagewalk.system.headroom import headroom
from pagewalk.system.ram import Labels
from pagewalk.system.ram_causes import (
    MAPS,
    SWAPS,
    WITNESSES,
    Amount,
    Counted,
    Rule,
    bounds,
    exact_causes,
    faulted,
    swapped,
)

LRU = ("pgactivate", "pgdeactivate", "pgrotated", "unevictable_pgs_culled",
       "unevictable_pgs_rescued", "unevictable_pgs_mlocked", "unevictable_pgs_munlocked",
       "unevictable_pgs_cleared")  # fmt: skip
WRITTEN = ("nr_dirtied", "nr_written")

def part(*names: str) -> Amount:
    return lambda seen: sum(seen.parts.get(name, 0) for name in names)


def mask(rule: Callable[[Census, Labels], Bool]) -> Amount:
    return lambda seen: seen.census.count(rule(seen.census, seen.labels))


def _all(seen: Counted) -> int:
    return int(seen.census.pages.sum())


def _cached(seen: Counted) -> int:
    census = seen.census
    return census.count(census.of(Kind.FILE, Kind.SHMEM)
                        & ~(census.of(Kind.FILE) & (census.label == seen.labels.bdev))
                        & ~(census.of(Kind.SHMEM) & census.has("swapcache")))


def _mapped(census: Census, _: Labels) -> Bool:
    return census.mapped & census.of(Kind.FILE, Kind.SHMEM, *MAPPABLE)


def _by_uses(*names: str) -> Amount:
    return lambda seen: part(*names)(seen) if seen.uses else None


LINES = (
    Rule("MemTotal", "all frames - reserved", lambda seen: _all(seen) - seen.census.count(
        seen.census.of(Kind.RESERVED))),
    Rule("MemFree", "free blocks", part("buddy", "deferred", "unaccepted"),
         causes=("deferred_count", "moved_between_lists")),
    Rule("vmstat nr_free_pages", "free blocks", part("buddy", "unaccepted"),
         causes=("moved_between_lists",)),
    Rule("MemAvailable", "free or reclaimable at once", lambda seen: headroom(
        seen.census, seen.labels).at_once, LRU, causes=("available", "moved_between_lists")),
    Rule("zoneinfo count", "per-CPU lists", part("cpu_lists"), causes=("moved_between_lists",)),
    Rule("Buffers", "cache of block devices", part("buffers")),
    Rule("Cached", "files + shared memory", _cached, SWAPS, swapped),
    Rule("SwapCached", "also in swap", mask(lambda c, _: in_swap_cache(c)), SWAPS, swapped),
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
    Rule("Unevictable", "unevictable", mask(lambda c, _: unevictable(c)), LRU),
    Rule("Mlocked", "mlocked", mask(
        lambda c, _: c.has("mlocked") & c.of(*ANON, Kind.FILE, Kind.SHMEM)), LRU,
        causes=("lru_batches",)),
    Rule("Dirty", "dirty, of files", mask(lambda c, _: dirty_files(c)), WRITTEN,
         causes=("backing",)),
    Rule("Writeback", "being written", mask(lambda c, _: in_writeback(c)), WRITTEN,
         causes=("lru_batches",)),
    Rule("AnonPages", "anonymous and mapped", mask(lambda c, _: c.of(*ANON) & c.mapped), SWAPS,
         swapped),
    Rule("Mapped", "files, shared memory and kernel pages that are mapped", mask(_mapped), MAPS,
         faulted),
    Rule("Shmem", "shared memory", mask(lambda c, _: c.of(Kind.SHMEM)), SWAPS, swapped,
         ("lru_batches",)),
    Rule("KReclaimable", "slab, reclaimable", part("slab_reclaimable"),
         causes=("misc_reclaimable",)),
    Rule("Slab", "slab + large kmalloc",
         part("slab", "slab_reclaimable", "slab_unreclaimable", "large_kmalloc"),
         causes=("slab_miscount",)),
    Rule("slabinfo pages", "slab", part("slab", "slab_reclaimable", "slab_unreclaimable"),
         causes=("slab_order",)),
    Rule("SReclaimable", "slab, reclaimable", part("slab_reclaimable")),
    Rule("SUnreclaim", "slab, not reclaimable + large kmalloc",
         part("slab_unreclaimable", "large_kmalloc"), causes=("slab_miscount",)),
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
         mask(lambda c, _: whole(c, Kind.SHMEM)), MAPS, faulted),
    Rule("FileHugePages", "files in huge pages", mask(lambda c, _: c.of(Kind.FILE) & c.huge)),
    Rule("FilePmdMapped", "files mapped as huge pages", mask(lambda c, _: whole(c, Kind.FILE)),
         MAPS, faulted),
    Rule("Hugetlb", "hugetlb pages", part("hugetlb_used", "hugetlb_idle", "hugetlb")),
    Rule("Balloon", "balloon", part("balloon")),
    Rule("Unaccepted", "not yet accepted", part("unaccepted")),
)  # fmt: skip

# What generations hide, the lines that are exact then, and what is said of the others.
BY_ACTIVITY = frozenset(rule.field for rule in LINES if rule.field.startswith(("Active", "Inact")))
BOTH_LISTS = (
    Rule("Active + Inactive", "LRU lists",
         mask(lambda c, _: on_lru(c, anon=True) | on_lru(c, anon=False)), LRU),
    Rule("Active(anon) + Inactive(anon)", "LRU lists, swap-backed",
         mask(lambda c, _: on_lru(c, anon=True)), LRU),
    Rule("Active(file) + Inactive(file)", "LRU lists, of files",
         mask(lambda c, _: on_lru(c, anon=False)), LRU),
)  # fmt: skip
HIDDEN = "not told: MGLRU keeps what is active by generation"
BOTH_CACHES = Rule("Buffers + Cached", "files + shared memory", _cached, SWAPS, swapped,
                   ("lru_batches",))
# Lines that take what only struct pages tell: what a frame belongs to, the order of its folio, and
# whether it was ever initialised (one that was not looks mapped in /proc/kpagecount).
STRUCT_PAGES = frozenset((
    "MemAvailable", "zoneinfo count", "Buffers", "Cached", "Dirty", "Mapped", "KReclaimable",
    "Slab", "SReclaimable", "SUnreclaim", "AnonHugePages", "ShmemHugePages", "ShmemPmdMapped",
    "FileHugePages", "FilePmdMapped", "Unaccepted",
))  # fmt: skip
UNTOLD = "not told by the source procfs"

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
}


def ram_ledger(seen: Counted, readings: Sequence[Totals]) -> list[Line]:
    """Return a line for each number that the kernel gave, from ``readings`` around the scan.

    The first was made before it and the last after it. Amounts are bytes.
    """
    found = []
    for rule in rules(seen):
        told = (number(rule, reading, seen.page) for reading in readings)
        theirs = [given for given in told if given is not None]
        if theirs:
            found.append(_line(rule, seen, theirs, readings))
    return found


def rules(seen: Counted) -> Iterator[Rule]:
    hidden = dict.fromkeys(BY_ACTIVITY, HIDDEN) if seen.generations else {}
    if not seen.labels.told:
        hidden |= dict.fromkeys(STRUCT_PAGES, UNTOLD)
    for rule in LINES:
        why = hidden.get(rule.field)
        yield rule if why is None else rule._replace(ours_is=why, ours=lambda _: None)
    yield from BOTH_LISTS if seen.generations else ()
    yield from () if seen.labels.told else (BOTH_CACHES,)


def not_compared(totals: Totals) -> dict[str, str]:
    """Return the lines of meminfo that no line of the ledger is about, and why."""
    compared = {rule.field for rule in LINES}
    return {name: NOT_COMPARED.get(name, "not known to this version of pagewalk")
            for name in totals.meminfo or {} if name not in compared}


def number(rule: Rule, totals: Totals, page: int) -> int | None:
    """Return the kernel's number of a line in bytes, None if it gives none."""
    if rule.field in WITNESSES:
        return WITNESSES[rule.field](totals, page)
    return together(rule.field, totals.meminfo or {})


def together(field: str, told: dict[str, int]) -> int | None:
    """Return the kernel's number of ``field``, which may be a sum; None if it gives none."""
    parts = [told.get(name) for name in field.split(" + ")]
    return None if None in parts else sum(part for part in parts if part is not None)


def _line(rule: Rule, seen: Counted, theirs: list[int], readings: Sequence[Totals]) -> Line:
    title = rule.field if rule.field in WITNESSES else f"meminfo {rule.field}"
    pages, exact = rule.ours(seen), exact_causes(rule, seen, readings)
    if pages is None or exact is None:
        return Line(title, rule.ours_is, None, theirs[-1], (), None)
    ours = pages * seen.page
    rest = ours - theirs[-1] - sum(cause.bytes for cause in exact)
    others = bounded(rest, bounds(rule, seen, rest, theirs, readings))
    rest -= sum(cause.bytes for cause in others)
    return Line(title, rule.ours_is, ours, theirs[-1], (*exact, *others), rest)
