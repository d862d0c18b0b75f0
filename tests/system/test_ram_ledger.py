"""The ledger of RAM: what differs has a cause, a bound, or is unexplained."""

from __future__ import annotations

from pagewalk.model.frames import Kind
from pagewalk.proc.totals import Totals
from pagewalk.system.census import Count
from pagewalk.system.ram import NO_LABELS, parts_of
from pagewalk.system.ram_ledger import LINES, NOT_COMPARED, Counted, not_compared, ram_ledger
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


def test_without_the_kernels_mappings_stacks_are_withheld() -> None:
    [line] = ram_ledger(seen(Run(Kind.KERNEL, 9)), [totals({"KernelStack": 9})])
    assert (line.ours, line.unexplained) == (None, None)
    [line] = ram_ledger(seen(Run(Kind.KERNEL, 9), uses=True), [totals({"KernelStack": 16})])
    assert [cause.cause for cause in line.causes] == ["cached_stacks"]


def test_every_line_of_meminfo_is_compared_or_said_not_to_be() -> None:
    assert not {rule.field for rule in LINES} & set(NOT_COMPARED)
    unknown = totals({"MemFree": 1, "SwapTotal": 2, "NewInLinux9": 3})
    assert set(not_compared(unknown)) == {"SwapTotal", "NewInLinux9"}
