"""Why a line of the ledger of RAM differs: what each cause accounts for, exact or at most. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pagewalk.account.ledger import Cause
from pagewalk.model.frames import Kind
from pagewalk.proc.totals import Totals
from pagewalk.system.available import available_causes
from pagewalk.system.census import Census
from pagewalk.system.counted_as import ANON, backing_untold, in_swap_cache, on_lru
from pagewalk.system.headroom import headroom
from pagewalk.system.ram import Labels


class Counted(NamedTuple):
    """What was counted: ``parts`` in pages by name (see ram.PARTS), ``page`` bytes of one.

    ``uses``: whether the kernel's own mappings were looked at, which tells stacks and vmalloc;
    ``generations``: whether LRU lists were sorted by generation, which hides what is active.
    ``first_chunk``: the most that was set aside at boot as per-CPU memory, in pages; None if that
    is not known.
    """

    census: Census
    labels: Labels
    parts: dict[str, int]
    page: int
    cpus: int
    uses: bool
    generations: bool = False
    first_chunk: int | None = None


Amount = Callable[[Counted], int | None]
Times = Callable[[Census, int], int]


def once(census: Census, page: int) -> int:
    """Return that each event is about one frame."""
    del census, page
    return 1


def faulted(census: Census, page: int) -> int:
    """Return how many frames may be mapped or unmapped for each fault while RAM is read.

    A fault maps up to 16 pages around it (fault_around_bytes, mm/memory.c), and in a huge page as
    many as its entry in the level above does (do_set_pmd). What was not mapped in the end was
    unmapped meanwhile, which nothing counts: as many again.
    """
    huge = census.of(Kind.FILE, Kind.SHMEM) & census.huge
    return 2 * max(_AROUND, page // _ENTRY if huge.any() else 0)


def swapped(census: Census, page: int) -> int:
    """Return how many frames a fault may take out of the swap cache, or map from it.

    It maps a large folio that is there as a whole (do_swap_page, mm/memory.c).
    """
    large = census.large & in_swap_cache(census)
    return page // _ENTRY if large.any() else 1


class Rule(NamedTuple):
    # A line before it is worked out. `field` of meminfo, or one of WITNESSES; `ours_is` in words;
    # `moves` are the counters of vmstat, beside those of CHURN, that grow when a frame changes
    # what this line counts without being freed; `times` how many frames a fault among them may
    # stand for, given what was counted and the size of a page.
    field: str
    ours_is: str
    ours: Amount
    moves: tuple[str, ...] = ()
    times: Times = once
    causes: tuple[str, ...] = ()


def _slabinfo(totals: Totals) -> int | None:
    return None if totals.slabs is None else sum(cache.most for cache in totals.slabs)


# Other numbers of the kernel than meminfo's, in bytes.
WITNESSES: dict[str, Callable[[Totals, int], int | None]] = {
    "zoneinfo count": lambda totals, page: (
        None if totals.zones is None else page * sum(zone.listed for zone in totals.zones)),
    "vmstat nr_free_pages": lambda totals, page: (
        None if totals.vmstat is None or "nr_free_pages" not in totals.vmstat
        else page * totals.vmstat["nr_free_pages"]),
    "slabinfo pages": lambda totals, _: _slabinfo(totals),
}  # fmt: skip

# A frame is counted wrongly only if it changed while RAM was read, and then it was freed, or
# allocated, or both (mm/page_alloc.c counts each).
CHURN = ("pgalloc_", "pgfree")
MAPS = ("pgfault",)
# Into the swap cache and out of it, each frame of it once. Reclaim looks at a page, puts it there
# and unmaps it (shrink_folio_list, mm/vmscan.c), or MADV_PAGEOUT does, and it is written; a fault
# or a read maps it again, and takes it out (folio_free_swap, mm/swapfile.c).
SWAPS = (*MAPS, "pgscan_anon", "pswpin", "pswpout", "zswpin", "zswpout", "swpin_zero",
         "swpout_zero")  # fmt: skip

WHY = {
    "frames_changed": "frames were allocated or freed, or changed their list, while RAM was read:"
    " at most as many as /proc/vmstat counted meanwhile",
    "concurrent_change": "the number moved between the readings around the scan",
    "moved_between_lists": "free frames moved between the buddy allocator and the lists of CPUs"
    " while RAM was read: together they are off by no more than what was allocated and freed",
    "cached_stacks": "stacks of threads that ended, kept for the next ones: two a CPU at most",
    "first_chunk": "per-CPU memory that was set aside at boot, in reserved frames: at most what"
    " /proc/kallsyms tells of its size, or all that was kept at boot if it does not",
    "lru_batches": "pages on their way to an LRU list look like the kernel's own to the source"
    " procfs: each CPU has at most 7 batches of 31",
    "backing_untold": "this kernel does not tell whether dirty pages of these files are ever"
    " written: those that are not, as on a ramfs, it does not count",
    "misc_reclaimable": "reclaimable kernel memory that is no slab",
    "deferred_count": "meminfo adds to vmstat's nr_free_pages how much memory is not initialised"
    " yet, and that count stays wrong after boot",
    "slab_miscount": "the kernel's own numbers of slab pages, in meminfo and in slabinfo, differ by"
    " so much",
    "slab_order": "slabs that were made while memory was short have fewer pages than slabinfo"
    " reckons",
    "cpu_lists": "pages on lists of CPUs are free, but MemAvailable leaves them out",
    "zone_reserves": "what zones keep for the kernel itself, up to their high watermark and for"
    " zones below",
    "cache_kept_back": "half of the page cache, at most the low watermarks, is left out of"
    " MemAvailable",
    "slab_kept_back": "half of reclaimable memory, at most the low watermarks, is left out of"
    " MemAvailable",
    "dirty_pages": "pages of files that must be written first are in MemAvailable",
    "below_zero": "MemAvailable would be below zero, and is shown as 0",
}


def exact_causes(
    rule: Rule, seen: Counted, readings: Sequence[Totals]
) -> tuple[Cause, ...] | None:
    """Return the exact causes of a line; None if it cannot be compared."""
    if "available" in rule.causes:
        counted = {"cpu_lists": seen.parts.get("cpu_lists", 0),
                   "listed": seen.census.count(on_lru(seen.census, anon=False))}
        room = headroom(seen.census, seen.labels)
        found = available_causes(room, counted, readings[-1], seen.page)
        return None if found is None else (*found, *_deferred_count(readings, seen))
    if "deferred_count" in rule.causes:
        return _deferred_count(readings, seen)
    misc = misc_reclaimable(readings[-1]) if "misc_reclaimable" in rule.causes else 0
    return (Cause("misc_reclaimable", -seen.page * misc, True),) if misc else ()


def _deferred_count(readings: Sequence[Totals], seen: Counted) -> tuple[Cause, ...]:
    # How far meminfo is from vmstat beyond memory that is not initialised yet, if that is the same
    # in all readings: each of those is of two files, one after the other.
    wrong = set(_gaps(readings, seen))
    gap = wrong.pop() if len(wrong) == 1 else 0
    return (Cause("deferred_count", -gap, True),) if gap else ()


def _gaps(readings: Sequence[Totals], seen: Counted) -> list[int]:
    deferred = seen.page * seen.parts.get("deferred", 0)
    pairs = (((reading.meminfo or {}).get("MemFree"),
              WITNESSES["vmstat nr_free_pages"](reading, seen.page)) for reading in readings)
    return [told - free - deferred for told, free in pairs if told is not None and free is not None]


def _slab_gap(readings: Sequence[Totals], seen: Counted) -> int:
    # The least by which meminfo and slabinfo differ: what kmalloc has beside slabs, frames tell.
    large = seen.page * seen.parts.get("large_kmalloc", 0)
    gaps = [abs(slabs + large - reading.meminfo["Slab"]) for reading in readings
            if (slabs := _slabinfo(reading)) is not None and reading.meminfo
            and "Slab" in reading.meminfo]
    return min(gaps, default=0)


def _slab_order(readings: Sequence[Totals], seen: Counted) -> int:
    # How much less than slabinfo reckons slabs can be: each has room for one object at least.
    return sum(
        cache.slabs * (cache.pages_per_slab - (1 << (-(-cache.size // seen.page) - 1).bit_length()))
        for cache in readings[-1].slabs or ()
    ) * seen.page  # fmt: skip


def bounds(
    rule: Rule, seen: Counted, rest: int, theirs: list[int], readings: Sequence[Totals]
) -> list[tuple[str, int]]:
    """Return the bounded causes of a line, and the most that each can account for.

    First what is always so, then what moved, at last what the kernel's own numbers leave open.
    """
    found = []
    if "cached_stacks" in rule.causes and rest > 0:
        found.append(("cached_stacks", _STACKS * seen.cpus * max(_STACK, seen.page)))
    if "lru_batches" in rule.causes and rest < 0 and not seen.labels.told:
        found.append(("lru_batches", seen.page * seen.cpus * _BATCHES * _BATCH))
    if "backing" in rule.causes and rest > 0 and (most := backing_untold(seen.census)):
        found.append(("backing_untold", seen.page * most))
    if "first_chunk" in rule.causes and rest < 0:
        kept = seen.parts.get("boot", 0) if seen.first_chunk is None else seen.first_chunk
        found.append(("first_chunk", seen.page * kept))
    changed = growth(readings, *CHURN) + moved(rule.times, rule.moves, seen.census, seen.page,
                                               readings)
    found += [("frames_changed", seen.page * changed),
              ("concurrent_change", max(theirs) - min(theirs))]
    if "moved_between_lists" in rule.causes and seen.labels.told:
        found.append(("moved_between_lists", _moved(seen, readings[-1], seen.page * changed)))
    if "deferred_count" in rule.causes and len(set(gaps := _gaps(readings, seen))) > 1:
        found.append(("deferred_count", min(map(abs, gaps))))
    if "slab_miscount" in rule.causes:
        found.append(("slab_miscount", _slab_gap(readings, seen)))
    if "slab_order" in rule.causes and rest < 0:
        found.append(("slab_order", _slab_order(readings, seen)))
    return found


def moved(
    times: Times, moves: tuple[str, ...], census: Census, page: int, readings: Sequence[Totals]
) -> int:
    """Return how many frames may have changed what a line counts without being freed.

    However many faults there were, only pages of files and shared memory that are there were mapped
    or unmapped, and only what can go to swap was swapped: what went meanwhile was freed, which is
    counted elsewhere. Without swap nothing is.
    """
    faults = times(census, page) * growth(readings, *(name for name in moves if name in MAPS))
    events = faults + growth(readings, *(name for name in moves if name not in MAPS))
    if times is swapped and not any((one.meminfo or {}).get("SwapTotal", 1) for one in readings):
        return 0
    kinds = MOVED.get(times)
    return events if kinds is None else min(events, census.count(census.of(*kinds)))


# The kinds of frames that change what a line counts.
MOVED: dict[Times, tuple[Kind, ...]] = {
    faulted: (Kind.FILE, Kind.SHMEM), swapped: (*ANON, Kind.SHMEM, Kind.SWAP_CACHE)}


def _moved(seen: Counted, last: Totals, changed: int) -> int:
    # Frames go between the buddy allocator and the lists of CPUs without being counted
    # (rmqueue_bulk, free_pcppages_bulk, mm/page_alloc.c). One that did after it was read is missing
    # in one of the two lines and too many in the other: together they are off by no more than what
    # was allocated and freed, and by what the counter of a zone lags. Both numbers are of zoneinfo,
    # which reads them at one moment.
    if not last.zones:
        return 0
    told = (sum(zone.free for zone in last.zones), sum(zone.listed for zone in last.zones))
    lag = seen.page * sum(zone.threshold * zone.cpus for zone in last.zones)
    free, listed = (seen.page * sum(seen.parts.get(name, 0) for name in names) for names in (
        ("buddy", "unaccepted"), ("cpu_lists",)))
    rest = (free - seen.page * told[0], listed - seen.page * told[1])
    return min(map(abs, rest)) + lag if abs(sum(rest)) <= changed + lag else 0


# The pages around a fault, and the bytes of an entry in a table of a page.
_AROUND, _ENTRY = 16, 8
# NR_CACHED_STACKS and THREAD_SIZE (kernel/fork.c; 16 KiB on x86-64 and arm64)
_STACKS, _STACK = 2, 16 << 10
# The folio_batches of struct cpu_fbatches and mlock_fbatch, and PAGEVEC_SIZE (15 before 6.9); large
# folios do not wait in them (mm/swap.c, mm/mlock.c)
_BATCHES, _BATCH = 7, 31


# Room in the first chunk for variables of modules, and for what is allocated early: the most that
# any configuration sets aside (PERCPU_MODULE_RESERVE, PERCPU_DYNAMIC_RESERVE,
# include/linux/percpu.h; the latter is larger if a page is).
_MODULES, _EARLY, _EARLY_LARGE, _SMALL_PAGE = 8 << 13, 28 << 12, 28 << 13, 4096


def first_chunk(static: int | None, cpus: int | None, others: int, page: int) -> int | None:
    """Return at most how many pages meminfo's Percpu has that are not ours; None if not known.

    ``static`` are the bytes of the kernel's own variables, ``cpus`` all that are possible,
    ``others`` the per-CPU pages that were found, those that were not set aside at boot.

    The first chunk has a unit of these bytes for each CPU. The kernel may lay out a third more
    units than there are CPUs, so that they fill huge pages, and counts pages in those too, which do
    not exist (pcpu_build_alloc_info, pcpu_nr_pages, mm/percpu.c).
    """
    if static is None or cpus is None:
        return None
    early = _EARLY if page == _SMALL_PAGE else _EARLY_LARGE
    unit = -(-(static + _MODULES + early) // page)
    spare = cpus // 3
    return unit * (cpus + spare) - (-others * spare // cpus)


def misc_reclaimable(totals: Totals) -> int:
    """Return the pages of reclaimable kernel memory that are no slab."""
    return (totals.vmstat or {}).get("nr_kernel_misc_reclaimable", 0)


def growth(readings: Sequence[Totals], *names: str) -> int:
    """Return how much the counters of vmstat that begin with ``names`` grew, first to last."""
    first, last = readings[0].vmstat or {}, readings[-1].vmstat or {}
    return sum(last[name] - first.get(name, 0) for name in last if names and name.startswith(names))
