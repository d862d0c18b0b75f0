"""The ledger of RAM: what differs has a cause, a bound, or is unexplained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pagewalk.account.ledger import Cause, Line
from pagewalk.model.frames import MAPPED_WHOLE, Backing, Kind
from pagewalk.proc.slabinfo import SlabCache
from pagewalk.proc.totals import Totals
from pagewalk.system.census import Count
from pagewalk.system.ram import NO_LABELS, UNTOLD, parts_of
from pagewalk.system.ram_causes import Counted, first_chunk
from pagewalk.system.ram_ledger import LINES, NOT_COMPARED, STRUCT_PAGES, not_compared, ram_ledger
from tests.by_hand import PAGE
from tests.system import by_hand
from tests.system.by_hand import Run, frames


def totals(meminfo: dict[str, int], vmstat: dict[str, int] | None = None) -> Totals:
    # Of pages; without zones.
    given = {name: pages * PAGE for name, pages in meminfo.items()}
    return by_hand.totals(given, vmstat)._replace(zones=None)


def seen(*runs: Run, uses: bool = False) -> Counted:
    count = Count(9)
    count.add(frames(*runs))
    return Counted(count.census, NO_LABELS, parts_of(count.census, NO_LABELS, {}), PAGE, 2, uses)


def test_equal_numbers_need_no_cause() -> None:
    [line] = ram_ledger(seen(Run(Kind.BUDDY, 8)), [totals({"MemFree": 8})])
    assert (line.ours, line.theirs, line.causes, line.unexplained) == (8 * PAGE, 8 * PAGE, (), 0)


def test_what_nothing_explains_stays_unexplained() -> None:
    same = totals({"MemFree": 5})
    [line] = ram_ledger(seen(Run(Kind.BUDDY, 8)), [same, same])
    assert (line.causes, line.unexplained) == ((), 3 * PAGE)


def test_frames_that_changed_are_bounded_by_what_was_allocated_and_freed() -> None:
    before = totals({"MemFree": 5}, {"pgalloc_normal": 100, "pgfree": 50})
    after = totals({"MemFree": 5}, {"pgalloc_normal": 101, "pgfree": 52})
    [line] = ram_ledger(seen(Run(Kind.BUDDY, 8)), [before, after])
    [cause] = line.causes
    assert (cause.cause, cause.bytes, cause.bound) == ("frames_changed", 3 * PAGE, 3 * PAGE)
    assert line.unexplained == 0
    [line] = ram_ledger(seen(Run(Kind.BUDDY, 9)), [before, after])
    assert line.unexplained == 4 * PAGE


def test_a_number_that_moves_bounds_what_it_may_be_off() -> None:
    readings = [totals({"MemFree": pages}) for pages in (6, 9, 7)]
    [line] = ram_ledger(seen(Run(Kind.BUDDY, 9)), readings)
    [cause] = line.causes
    assert (cause.cause, cause.bytes, cause.bound) == ("concurrent_change", 2 * PAGE, 3 * PAGE)


def test_dirty_pages_may_be_written_meanwhile() -> None:
    dirty = Run(Kind.FILE, 4, ("dirty", "lru"))
    before = totals({"Dirty": 2}, {"nr_dirtied": 1, "nr_written": 1})
    after = totals({"Dirty": 2}, {"nr_dirtied": 2, "nr_written": 2})
    [line] = ram_ledger(seen(dirty), [before, after])
    assert (line.causes[0].bound, line.unexplained) == (2 * PAGE, 0)


def test_other_reclaimable_memory_is_named() -> None:
    reading = totals({"KReclaimable": 7}, {"nr_kernel_misc_reclaimable": 7})
    [line] = ram_ledger(seen(Run(Kind.SLAB, 9)), [reading])
    [cause] = line.causes
    assert (cause.cause, cause.bytes, cause.exact) == ("misc_reclaimable", -7 * PAGE, True)


GAP = {"nr_free_pages": 12}


def test_a_gap_that_is_the_same_in_all_readings_is_the_kernels() -> None:
    readings = [totals({"MemFree": 9}, GAP), totals({"MemFree": 10}, {"nr_free_pages": 13})]
    free, pages = ram_ledger(seen(Run(Kind.BUDDY, 13)), readings)
    assert (free.causes, free.unexplained) == ((Cause("deferred_count", 3 * PAGE, True),), 0)
    assert (pages.against, pages.causes, pages.unexplained) == ("vmstat nr_free_pages", (), 0)


def test_frames_that_are_not_initialised_are_no_gap() -> None:
    readings = [totals({"MemFree": 20}, GAP)] * 2
    free, _ = ram_ledger(seen(Run(Kind.BUDDY, 12), Run(Kind.DEFERRED, 8)), readings)
    assert (free.causes, free.unexplained) == ((), 0)


def test_a_gap_that_moves_is_a_bound() -> None:
    readings = [totals({"MemFree": 9}, GAP), totals({"MemFree": 8}, GAP)]
    free, _ = ram_ledger(seen(Run(Kind.BUDDY, 12)), readings)
    # 4 pages: the number moved by one, and both readings are at least 3 away from vmstat
    assert [(cause.cause, cause.bytes // PAGE) for cause in free.causes] == [
        ("concurrent_change", 1), ("deferred_count", 3)]
    assert free.unexplained == 0


def slabs(pages: int, count: int) -> list[SlabCache]:
    return [SlabCache("a", 9, 9, 64, 64 * pages, pages, count, count)]


def test_what_slabinfo_contradicts_is_explained_up_to_there() -> None:
    reading = totals({"SUnreclaim": 9, "Slab": 9})._replace(slabs=slabs(1, 5))
    large, unknown = Run(Kind.LARGE_KMALLOC, 2), Run(Kind.SLAB, 5)
    slab, info, fixed = ram_ledger(seen(large, unknown), [reading, reading])
    assert [(c.cause, c.bytes, c.bound) for c in slab.causes] == [
        ("slab_miscount", -2 * PAGE, 2 * PAGE)]
    assert (info.against, info.ours, info.theirs) == ("slabinfo pages", 5 * PAGE, 5 * PAGE)
    assert fixed.against == "meminfo SUnreclaim"
    [slab, *_] = ram_ledger(seen(large, Run(Kind.SLAB, 4)), [reading, reading])
    assert slab.unexplained == -3 * PAGE


def test_slabs_may_have_fewer_pages_than_slabinfo_reckons() -> None:
    reading = totals({})._replace(slabs=slabs(8, 2))
    [info] = ram_ledger(seen(Run(Kind.SLAB, 9)), [reading])
    assert [(c.cause, c.bytes, c.bound) for c in info.causes] == [
        ("slab_order", -7 * PAGE, 14 * PAGE)]
    [info] = ram_ledger(seen(Run(Kind.SLAB, 17)), [reading])
    assert info.unexplained == PAGE


def test_what_is_available_differs_by_named_amounts() -> None:
    clean, dirty = Run(Kind.FILE, 100, ("lru",)), Run(Kind.FILE, 6, ("lru", "dirty"))
    counted = seen(Run(Kind.BUDDY, 1000), Run(Kind.CPU_LIST, 7), clean, dirty)
    # si_mem_available: 1000 - 500 + (106 - min(53, 20)) + (40 - min(20, 20)); there is no slab
    zone = by_hand.ZONE._replace(protection=(0, 460), high=45, boost=5, low=20, managed=9999)
    meminfo = {"MemFree": 1000, "Active(file)": 100, "Inactive(file)": 6, "SReclaimable": 30,
               "MemAvailable": 606}
    reading = totals(meminfo, {"nr_kernel_misc_reclaimable": 10, "nr_free_pages": 1000})
    lines = ram_ledger(counted, [reading._replace(zones=[zone])])
    line = next(line for line in lines if line.against == "meminfo MemAvailable")
    assert {cause.cause: cause.bytes // PAGE for cause in line.causes} == {
        "cpu_lists": 7, "zone_reserves": 500, "cache_kept_back": 20, "slab_kept_back": 20,
        "dirty_pages": -6, "misc_reclaimable": -10}
    # the 30 pages of slab that the kernel has, and frames do not
    assert (line.difference, line.unexplained) == (501 * PAGE, -30 * PAGE)
    lines = ram_ledger(counted, [reading])  # without zones
    line = next(line for line in lines if line.against == "meminfo MemAvailable")
    assert (line.ours, line.unexplained) == (None, None)


def test_without_the_kernels_mappings_stacks_are_withheld() -> None:
    [line] = ram_ledger(seen(Run(Kind.KERNEL, 9)), [totals({"KernelStack": 9})])
    assert (line.ours, line.unexplained) == (None, None)
    [line] = ram_ledger(counted("kernel_stack"), [totals({"KernelStack": 990})])
    assert [cause.cause for cause in line.causes] == ["cached_stacks"]


def test_generations_hide_what_is_active_but_not_the_sums() -> None:
    told = totals({"Active": 3, "Inactive": 4, "Active(anon)": 3, "Inactive(anon)": 0,
                   "Active(file)": 0, "Inactive(file)": 4})
    counted = seen(Run(Kind.ANON, 3, ("lru", "swapbacked")), Run(Kind.FILE, 4, ("lru", "active")))
    lines = ram_ledger(counted._replace(generations=True), [told])
    assert [(line.against, line.ours) for line in lines if line.ours is not None] == [
        ("meminfo Active + Inactive", 7 * PAGE),
        ("meminfo Active(anon) + Inactive(anon)", 3 * PAGE),
        ("meminfo Active(file) + Inactive(file)", 4 * PAGE)]
    assert {line.unexplained for line in lines} == {None, 0}
    assert all("MGLRU" in line.ours_is for line in lines if line.ours is None)
    assert any(line.unexplained for line in ram_ledger(counted, [told]))


def test_every_line_of_meminfo_is_compared_or_said_not_to_be() -> None:
    assert not {rule.field for rule in LINES} & set(NOT_COMPARED)
    unknown = totals({"MemFree": 1, "SwapTotal": 2, "NewInLinux9": 3})
    assert set(not_compared(unknown)) == {"SwapTotal", "NewInLinux9"}


def test_frames_that_move_between_lists_of_free_frames_are_off_in_both() -> None:
    counted = seen(Run(Kind.BUDDY, 110), Run(Kind.CPU_LIST, 90))

    def lines(free: int, listed: int, churn: int = 0, threshold: int = 0) -> dict[str, Line]:
        zone = by_hand.ZONE._replace(free=free, listed=listed, threshold=threshold)
        readings = [
            totals({"MemFree": free}, {"nr_free_pages": free, "pgfree": count})._replace(
                zones=[zone]) for count in (0, churn)]
        return {line.against: line for line in ram_ledger(counted, readings)}

    for line in lines(100, 100).values():
        assert [cause.cause for cause in line.causes] == ["moved_between_lists"]
        assert line.causes[0].bound == 10 * PAGE
    # Together they are two pages short, which nothing explains.
    short = lines(100, 102)
    assert short["vmstat nr_free_pages"].unexplained == 10 * PAGE
    assert short["zoneinfo count"].unexplained == -12 * PAGE
    assert not any(line.unexplained for line in lines(100, 102, churn=2).values())
    # A zone's counter lags by its threshold on each of two CPUs.
    assert not any(line.unexplained for line in lines(100, 102, threshold=1).values())



def untold(*runs: Run) -> Counted:
    # As from /proc/kpageflags: without facts and objects.
    count = Count(9)
    count.add(replace(frames(*runs), facts=None, object=None))
    return Counted(count.census, UNTOLD, parts_of(count.census, UNTOLD, {}), PAGE, 2, False)


def test_lines_that_take_struct_pages_are_withheld_without_them() -> None:
    listed = STRUCT_PAGES - {"zoneinfo count"}
    assert listed < {rule.field for rule in LINES}
    needs = [*listed, "KernelStack", "VmallocUsed", "Percpu", "Buffers", "Cached"]
    lines = ram_ledger(untold(Run(Kind.SLAB, 9), Run(Kind.FILE, 5, ("lru",))),
                       [totals(dict.fromkeys(needs, 1))])
    compared = {line.against for line in lines if line.ours is not None}
    assert compared == {"meminfo Buffers + Cached"}
    assert all(line.unexplained is None for line in lines if line.ours is None)


def test_buffers_and_cached_are_one_line_where_block_devices_are_not_told() -> None:
    runs = (Run(Kind.FILE, 5, ("lru",)), Run(Kind.SHMEM, 3, ("lru", "swapbacked")))
    reading = totals({"Buffers": 2, "Cached": 6})
    [line] = [line for line in ram_ledger(untold(*runs), [reading]) if line.ours is not None]
    assert (line.against, line.ours, line.unexplained) == ("meminfo Buffers + Cached", 8 * PAGE, 0)
    against = {line.against for line in ram_ledger(seen(*runs), [reading])}
    assert against == {"meminfo Buffers", "meminfo Cached"}


def test_pages_on_their_way_to_a_list_are_bounded_where_they_look_like_the_kernels() -> None:
    most = 2 * 7 * 31  # of two CPUs
    [line] = ram_ledger(untold(Run(Kind.KERNEL, most)), [totals({"Shmem": most})])
    [cause] = line.causes
    assert (cause.cause, cause.bytes, cause.bound) == ("lru_batches", -most * PAGE, most * PAGE)
    assert line.unexplained == 0
    [line] = ram_ledger(untold(Run(Kind.KERNEL, most + 1)), [totals({"Shmem": most + 1})])
    assert line.unexplained
    [line] = ram_ledger(seen(Run(Kind.KERNEL, 1)), [totals({"Shmem": 1})])
    assert line.unexplained == -PAGE


# ---- each bound: at it a difference is explained, and one byte beyond it is not


def counted(part: str, *runs: Run, **changed: Any) -> Counted:
    """Return what was counted, with 1000 pages of a part that no kind alone is."""
    made = seen(Run(Kind.KERNEL, 1000), *runs, uses=True)
    return made._replace(parts={**made.parts, part: 1000}, **changed)


def unexplained(found: Counted, field: str, less: int, moved: dict[str, int]) -> int | None:
    """Return what is unexplained if the kernel's number is ``less`` bytes less than ours."""
    def line(theirs: int) -> Line:
        # of counters that begin anywhere
        first = dict.fromkeys(moved, 7)
        last = {name: 7 + times for name, times in moved.items()}
        readings = [by_hand.totals({field: theirs}, at)._replace(zones=None)
                    for at in (first, first, last)]
        [told] = [line for line in ram_ledger(found, readings)
                  if line.against == f"meminfo {field}"]
        return told

    ours = line(0).ours
    assert ours is not None
    return line(ours - less).unexplained


FILES = counted("", Run(Kind.FILE, 1000, ("lru", "dirty"), mapcount=1))
SWAPPED = counted("", Run(Kind.ANON, 600, mapcount=1), Run(Kind.ANON, 100, ("swapcache",), 1),
                  Run(Kind.SWAP_CACHE, 200, ("swapcache",)), Run(Kind.SHMEM, 100))
# one of them in a huge page of 512
LARGE = counted("", Run(Kind.FILE, 512, ("lru",), mapcount=1, facts=MAPPED_WHOLE, order=9),
                Run(Kind.SHMEM, 512, ("lru",), mapcount=1, facts=MAPPED_WHOLE, order=9))


@pytest.mark.parametrize(("field", "found", "moved", "more", "less"), [
    # what is allocated and freed, each frame of it once; a fault is no cause of free frames
    ("MemFree", counted("buddy"), {"pgalloc_normal": 2, "pgalloc_dma": 1, "pgfree": 2}, 5, 5),
    ("MemFree", counted("buddy"), {"pgfault": 9, "pgactivate": 9, "nr_dirtied": 9}, 0, 0),
    # a page goes into the swap cache and out of it: reclaim looks at it, it is written, a fault
    # takes it out. A fault maps a large folio that is there as a whole
    ("AnonPages", SWAPPED, {"pgfree": 2, "pgfault": 9}, 11, 11),
    ("AnonPages", SWAPPED, {"pgscan_anon": 3, "pswpout": 2, "zswpout": 1, "pgscan_file": 9}, 6, 6),
    ("SwapCached", SWAPPED, {"pgfault": 5, "pswpin": 4, "pgfree": 1}, 10, 10),
    ("SwapCached", counted("", Run(Kind.SWAP_CACHE, 1024, ("swapcache",), order=4)),
     {"pgfault": 2}, 1024, 1024),
    # no more than can be swapped, of the 1000 that are there
    ("AnonPages", SWAPPED, {"pgfault": 5000, "pgfree": 7}, 1007, 1007),
    ("Shmem", SWAPPED, {"pgscan_anon": 3}, 3, 3),
    ("Cached", SWAPPED, {"pswpin": 3}, 3, 3),
    # a page changes its list, or is written, once for each of these
    ("Active(file)", FILES, {"pgactivate": 1, "pgdeactivate": 1, "pgrotated": 2}, 4, 4),
    ("Dirty", FILES, {"nr_dirtied": 1, "nr_written": 2}, 3, 3),
    # 16 pages around a fault, and as many unmapped again; 512 where there are huge pages to map
    ("Mapped", FILES, {"pgfault": 3}, 3 * 2 * 16, 3 * 2 * 16),
    ("Mapped", FILES, {"pgfault": 3, "pgfree": 5}, 3 * 2 * 16 + 5, 3 * 2 * 16 + 5),
    ("Mapped", LARGE, {"pgfault": 1}, 2 * 512, 2 * 512),
    # however many faults there were, there are no more pages that they could map
    ("Mapped", FILES, {"pgfault": 1000}, 1000, 1000),
    ("Mapped", LARGE, {"pgfault": 1000, "pgfree": 5}, 1024 + 5, 1024 + 5),
    ("FilePmdMapped", LARGE, {"pgfault": 1}, 2 * 512, 2 * 512),
    ("ShmemPmdMapped", LARGE, {"pgfault": 1}, 2 * 512, 2 * 512),
    # each of two CPUs keeps two stacks of four pages that the kernel does not count any more
    ("KernelStack", counted("kernel_stack"), {}, 2 * 2 * 4, 0),
    # the kernel counts per-CPU memory that was set aside at boot, which is reserved
    ("Percpu", counted("percpu", first_chunk=70), {}, 0, 70),
    ("Percpu", counted("percpu", Run(Kind.RESERVED, 300)), {}, 0, 300),
    ("Shmem", counted("", Run(Kind.SHMEM, 1000)), {}, 0, 0),
])  # fmt: skip
def test_a_line_may_differ_by_its_bound_and_by_no_byte_more(
    field: str, found: Counted, moved: dict[str, int], more: int, less: int
) -> None:
    # ``more`` and ``less`` are the pages that ours may be above the kernel's number, and below it.
    for sign, pages in ((1, more), (-1, less)):
        assert unexplained(found, field, sign * pages * PAGE, moved) == 0
        beyond = sign * (pages * PAGE + 1)
        assert unexplained(found, field, beyond, moved) == beyond


def test_without_swap_a_fault_moves_nothing_into_the_swap_cache_or_out() -> None:
    for swap, left in ((0, 4 * PAGE), (1, 0)):
        theirs = {"AnonPages": 696 * PAGE, "SwapTotal": swap}
        readings = [by_hand.totals(theirs, {"pgfault": faults}) for faults in (0, 4)]
        lines = {line.against: line for line in ram_ledger(SWAPPED, readings)}
        assert lines["meminfo AnonPages"].unexplained == left


@pytest.mark.parametrize(("backing", "counted", "causes"), [
    (Backing.WRITTEN, 5, []), (Backing.KEPT, 2, []), (Backing.UNTOLD, 5, ["backing_untold"]),
])
def test_dirty_pages_of_files_that_are_never_written_are_not_counted(
    backing: Backing, counted: int, causes: list[str]
) -> None:
    # 2 dirty pages of a disk, 3 of another file system; the kernel counts what it can write
    count = Count(9, backing=lambda frames: np.array([0, backing.value], np.uint8))
    count.add(frames(Run(Kind.FILE, 2, ("dirty",)), Run(Kind.FILE, 3, ("dirty", "lru"))))
    found = Counted(count.census, NO_LABELS, {}, PAGE, 2, uses=False)
    for theirs in (2, 5) if causes else (counted,):
        [line] = ram_ledger(found, [totals({"Dirty": theirs})])
        assert (line.ours, line.unexplained) == (counted * PAGE, 0)
        assert [cause.cause for cause in line.causes] == (causes if theirs == 2 else [])
    [line] = ram_ledger(found, [totals({"Dirty": 1})])
    assert line.unexplained == (counted - 1) * PAGE


def test_what_a_number_moved_is_a_bound_to_the_byte() -> None:
    for beyond in (0, 1):
        # 10 pages are free; the number was 7 in the end, and 3 pages apart at most
        readings = [by_hand.totals({"MemFree": told})._replace(zones=None)
                    for told in (6 * PAGE, 9 * PAGE - beyond, 7 * PAGE - beyond)]
        [line] = ram_ledger(seen(Run(Kind.BUDDY, 10)), readings)
        assert line.unexplained == (3 * PAGE + 1 if beyond else 0)


def test_the_first_chunk_has_a_unit_for_each_cpu() -> None:
    # 216 KiB of variables, 64 KiB for modules and 112 KiB for early allocations are 98 pages
    static = 216 << 10
    assert first_chunk(static, 2, 500, PAGE) == 98 * 2
    assert first_chunk(static + 1, 2, 500, PAGE) == 99 * 2
    # of six CPUs two more units may be laid out than there are, of which none has pages: of 600
    # pages in other chunks, which are 100 of each CPU, 200 more are counted
    assert first_chunk(static, 6, 600, PAGE) == 98 * 8 + 200
    assert first_chunk(static, 6, 601, PAGE) == 98 * 8 + 201
    # 224 KiB for early allocations if a page is larger
    assert first_chunk(static, 1, 0, 16 << 10) == (216 + 64 + 224) // 16 + 1
    assert first_chunk(None, 2, 0, PAGE) is first_chunk(static, None, 0, PAGE) is None
