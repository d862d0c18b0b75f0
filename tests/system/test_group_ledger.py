"""What a cgroup is charged for against the kernel's numbers: causes, bounds, or unexplained."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.account.ledger import Cause, Line
from pagewalk.model.frames import MAPPED_WHOLE, Backing, Kind
from pagewalk.proc.cgroup_numbers import GroupNumbers
from pagewalk.system.census import Count
from pagewalk.system.charge import Charge
from pagewalk.system.group_ledger import group_ledger
from pagewalk.system.unused import Unused
from tests.by_hand import PAGE
from tests.system.by_hand import Run, charge, frames, totals

QUIET = (totals({}), totals({}))
CPUS = 2


def lines(
    counted: Charge, *numbers: GroupNumbers, version: int = 2, churn: int = 0
) -> dict[str, Line]:
    readings = (totals({}, {"pgfree": 0}), totals({}, {"pgfree": churn}))
    return {line.against: line for line in group_ledger(counted, version, numbers, readings)}


def test_pages_and_objects_add_up_to_the_charge() -> None:
    counted = charge(Run(Kind.ANON, 8), Run(Kind.PAGE_TABLE, 2), reclaimable=100, unreclaimable=28)
    found = lines(counted, GroupNumbers(current=10 * PAGE + 128))
    line = found["memory.current"]
    assert (line.ours, line.causes, line.unexplained) == (10 * PAGE + 128, (), 0)


def test_what_only_the_kernel_counts_is_named_exactly() -> None:
    stat = {"percpu": 640, "sock": PAGE, "zswap": 0}
    line = lines(charge(Run(Kind.ANON, 8)), GroupNumbers(current=9 * PAGE + 640, stat=stat))[
        "memory.current"]
    assert [(cause.cause, cause.bytes, cause.exact) for cause in line.causes] == [
        ("percpu", -640, True), ("sock", -PAGE, True)]
    assert line.unexplained == 0


@pytest.mark.parametrize(("pages", "causes", "left"), [
    # three pages a CPU for objects, and of each less than one that was left; 64 for pages
    (1, ["object_stock"], 0), (4 * CPUS, ["object_stock"], 0),
    (4 * CPUS + 1, ["object_stock", "charged_in_advance"], 0),
    (68 * CPUS, ["object_stock", "charged_in_advance"], 0),
    (68 * CPUS + 1, ["object_stock", "charged_in_advance"], -PAGE),
])
def test_what_is_not_used_is_bounded_where_it_cannot_be_read(
    pages: int, causes: list[str], left: int
) -> None:
    line = lines(charge(Run(Kind.ANON, 8)), GroupNumbers(current=(8 + pages) * PAGE))[
        "memory.current"]
    assert [cause.cause for cause in line.causes] == causes
    assert line.unexplained == left


@pytest.mark.parametrize(("pages", "left"), [(1, 0), (3, 0), (4, -PAGE)])
def test_page_table_roots_may_have_second_pages_that_do_not_say_who_is_charged(
    pages: int, left: int
) -> None:
    exact = Unused(left=0, objcgs=1, listed=True, objects=0, pages=0, still=True)
    counted = charge(Run(Kind.ANON, 8), Run(Kind.KERNEL, 3))._replace(unused=exact)
    numbers = GroupNumbers(current=(11 + pages) * PAGE)
    line = lines(counted._replace(pairs=True), numbers)["memory.current"]
    assert [cause.cause for cause in line.causes] == ["second_pages"]
    assert line.unexplained == left
    assert lines(counted, numbers)["memory.current"].unexplained == -pages * PAGE


def test_a_cpu_charges_in_advance_for_several_groups_at_a_time() -> None:
    counted = charge(Run(Kind.ANON, 8))._replace(stocks=7)
    for groups, pages in ((1, 64 * CPUS), (3, 3 * 64 * CPUS), (9, 7 * 64 * CPUS)):
        assert counted._replace(groups=groups).in_advance == pages * PAGE


def test_stacks_and_vmalloc_are_compared_where_they_are_told_apart() -> None:
    numbers = GroupNumbers(stat={"kernel_stack": 4 * PAGE, "vmalloc": 3 * PAGE})
    counted = charge(Run(Kind.KERNEL, 8))
    found = lines(counted._replace(areas={"kernel_stack": 4 * PAGE, "vmalloc": 3 * PAGE}), numbers)
    for name in ("kernel_stack", "vmalloc"):
        line = found[f"memory.stat {name}"]
        assert (line.ours, line.unexplained) == (line.theirs, 0)
        hidden = lines(counted, numbers)[f"memory.stat {name}"]
        assert (hidden.ours, hidden.unexplained) == (None, None)


def test_what_only_the_kernel_counts_may_lag() -> None:
    stat = {"percpu": 0, "sock": 100 * PAGE}
    line = lines(charge(Run(Kind.ANON, 8)), GroupNumbers(current=98 * PAGE, stat=stat))[
        "memory.current"]
    assert [cause.cause for cause in line.causes] == ["sock", "stat_lag"]


def test_nothing_is_charged_for_less_than_is_used() -> None:
    line = lines(charge(Run(Kind.ANON, 8)), GroupNumbers(current=7 * PAGE))["memory.current"]
    assert (line.causes, line.unexplained) == ((), PAGE)
    line = lines(charge(Run(Kind.ANON, 8)), GroupNumbers(current=7 * PAGE), churn=1)[
        "memory.current"]
    assert [cause.cause for cause in line.causes] == ["frames_changed"]


def test_memory_stat_lags_by_two_batches_a_cpu() -> None:
    limit = 2 * 64 * CPUS
    for behind, left in ((limit, 0), (limit + 1, (limit + 1) * PAGE)):
        counted = charge(Run(Kind.ANON, 1000, mapcount=1))
        line = lines(counted, GroupNumbers(stat={"anon": (1000 - behind) * PAGE}))[
            "memory.stat anon"]
        assert line.unexplained == left


def test_dirty_pages_that_are_never_written_are_not_counted() -> None:
    def line(backing: Backing, theirs: int) -> Line:
        count = Count(9, backing=lambda _: np.array([backing.value], np.uint8))
        count.add(frames(Run(Kind.FILE, 1000, ("dirty", "lru", "unevictable"))))
        counted = Charge(count.census, 0, 0, PAGE, CPUS)
        numbers = GroupNumbers(stat={"file_dirty": theirs * PAGE})
        return lines(counted, numbers)["memory.stat file_dirty"]

    assert (line(Backing.KEPT, 0).ours, line(Backing.KEPT, 0).difference) == (0, 0)
    assert line(Backing.WRITTEN, 0).unexplained == 1000 * PAGE
    for theirs in (0, 1000):
        assert line(Backing.UNTOLD, theirs).unexplained == 0


def test_version_1_has_names_and_numbers_of_its_own() -> None:
    counted = charge(Run(Kind.ANON, 4, mapcount=1), Run(Kind.FILE, 3), Run(Kind.SHMEM, 2),
                     Run(Kind.PAGE_TABLE, 1), reclaimable=50)
    numbers = GroupNumbers(current=10 * PAGE + 50, kmem=PAGE + 50, stat={
        "total_rss": 4 * PAGE, "total_cache": 5 * PAGE, "total_shmem": 2 * PAGE, "rss": 0})
    found = lines(counted, numbers, version=1)
    assert list(found) == ["memory.usage_in_bytes", "memory.kmem.usage_in_bytes",
                           "memory.stat total_rss", "memory.stat total_cache",
                           "memory.stat total_shmem"]
    assert [line.difference for line in found.values()] == [0] * 5


@pytest.mark.parametrize(("version", "total"), [(1, "total_"), (2, "")])
def test_generations_hide_what_is_active_but_not_the_sums(version: int, total: str) -> None:
    counted = charge(Run(Kind.ANON, 300, ("lru", "swapbacked"), mapcount=1))
    stat = {f"{total}active_anon": 290 * PAGE, f"{total}inactive_anon": 10 * PAGE}
    found = lines(counted._replace(generations=True), GroupNumbers(stat=stat), version=version)
    both = f"memory.stat {total}active_anon + {total}inactive_anon"
    assert [(name, line.ours) for name, line in found.items() if line.ours is not None] == [
        (both, 300 * PAGE)]
    assert (found[both].difference, found[both].unexplained) == (0, 0)
    assert lines(counted, GroupNumbers(stat=stat), version=version)[
        f"memory.stat {total}active_anon"].unexplained


def test_the_kernels_number_is_the_last_and_what_it_moved_is_a_bound() -> None:
    numbers = [GroupNumbers(current=pages * PAGE) for pages in (12, 9)]
    line = lines(charge(Run(Kind.ANON, 11)), *numbers)["memory.current"]
    assert line.theirs == 9 * PAGE
    [cause] = line.causes
    assert (cause.cause, cause.bytes, cause.bound) == ("concurrent_change", 2 * PAGE, 3 * PAGE)


def test_version_1_tells_the_kernels_part_of_the_charge_apart() -> None:
    readings = (totals({"Percpu": 1000 * PAGE}),) * 2
    counted = charge(Run(Kind.ANON, 8), reclaimable=100)

    def causes(user: int, kernel: int) -> tuple[list[tuple[str, int]], list[tuple[str, int]], int]:
        # Of pages that are charged beyond what was found; and what stays unexplained.
        kmem = 100 + kernel * PAGE
        numbers = [GroupNumbers(current=(8 + user) * PAGE + kmem, kmem=kmem)]
        first, second = group_ledger(counted, 1, numbers, readings)
        both = ([(cause.cause, -cause.bytes // PAGE) for cause in line.causes]
                for line in (first, second))
        return (*both, first.unexplained or 0)  # type: ignore[return-value]

    assert causes(100, 0) == ([("charged_in_advance", 100)], [], 0)
    assert causes(0, 2) == ([("object_stock", 2)],) * 2 + (0,)
    stock = [("object_stock", 8), ("percpu_not_told", 392)]
    assert causes(100, 400) == ([*stock, ("charged_in_advance", 100)], stock, 0)
    # no more per-CPU memory than the machine has, and 64 pages a CPU
    assert causes(64 * CPUS + 1, 1008)[2] == causes(64 * CPUS, 1009)[2] == -PAGE


STOCK = Unused(left=3000, objcgs=2, listed=True, objects=96, pages=5 * PAGE, still=True)


@pytest.mark.parametrize("version", [1, 2])
def test_what_was_found_not_to_be_used_is_exact(version: int) -> None:
    counted = charge(Run(Kind.ANON, 8), unreclaimable=1000)._replace(unused=STOCK)
    kernel = 1000 + 3000 + 96
    numbers = GroupNumbers(current=13 * PAGE + kernel, kmem=kernel if version == 1 else None,
                           stat={"kernel": kernel} if version == 2 else {})
    line, second = lines(counted, numbers, version=version).values()
    stock = Cause("object_stock", -3096, True)
    assert line.causes == (Cause("charged_in_advance", -5 * PAGE, True), stock)
    assert second.causes == (stock,)
    assert line.unexplained == second.unexplained == 0


@pytest.mark.parametrize("version", [1, 2])
def test_no_more_is_charged_in_advance_than_was_found(version: int) -> None:
    counted = charge(Run(Kind.ANON, 8))._replace(unused=STOCK._replace(left=0, objects=0))
    for missing in (-PAGE, PAGE):
        numbers = GroupNumbers(current=13 * PAGE + missing, kmem=0 if version == 1 else None)
        line = lines(counted, numbers, version=version)[
            "memory.usage_in_bytes" if version == 1 else "memory.current"]
        assert line.unexplained == -missing


def test_version_1_counts_what_was_charged_meanwhile_for_the_group_itself() -> None:
    waits = 2 * 64 * CPUS

    def unexplained(events: int, missing: int, churn: int) -> int | None:
        first, last = ({"total_pgpgin": count, "total_pgpgout": count} for count in (7, 7 + events))
        used = STOCK._replace(left=0, objects=0, pages=0)
        counted = charge(Run(Kind.ANON, 3000))._replace(unused=used)
        numbers = [GroupNumbers(current=(3000 - missing) * PAGE, kmem=0, stat=stat)
                   for stat in (first, last)]
        return lines(counted, *numbers, version=1, churn=churn)["memory.usage_in_bytes"].unexplained

    # nothing was, whatever the machine did
    assert (unexplained(0, waits, 10_000), unexplained(0, waits + 1, 10_000)) == (
        0, (waits + 1) * PAGE)
    # a folio each: of 512 pages at most
    most = waits + 2 * 512
    assert (unexplained(1, most, 10_000), unexplained(1, most + 1, 10_000)) == (
        0, (most + 1) * PAGE)
    # nor more than all that was allocated and freed
    assert (unexplained(1, 5, 5), unexplained(1, 6, 5)) == (0, 6 * PAGE)


def test_what_changed_of_the_kernels_part_is_no_excuse_for_the_rest() -> None:
    used = STOCK._replace(left=0, objects=0, pages=0)
    counted = charge(Run(Kind.ANON, 3000), unreclaimable=3 * PAGE)._replace(unused=used)
    waits = 2 * 64 * CPUS
    for missing, left in ((waits, 0), (waits + 1, (waits + 4) * PAGE)):
        numbers = GroupNumbers(current=(3000 - missing) * PAGE, kmem=0, stat={})
        first, second = lines(counted, numbers, version=1, churn=10_000).values()
        assert [(cause.cause, cause.bytes) for cause in second.causes] == [
            ("frames_changed", 3 * PAGE)]
        assert first.unexplained == left


def test_the_kernels_part_in_version_2_has_all_but_sockets() -> None:
    counted = charge(Run(Kind.PAGE_TABLE, 2), Run(Kind.LARGE_KMALLOC, 4), reclaimable=100,
                     unreclaimable=28)._replace(unused=STOCK)
    stat = {"kernel": 6 * PAGE + 128 + 640 + 3096, "percpu": 640, "sock": 9 * PAGE,
            "slab": 4 * PAGE + 128, "slab_reclaimable": 100, "slab_unreclaimable": 4 * PAGE + 28}
    found = lines(counted, GroupNumbers(stat=stat))
    assert found["memory.stat kernel"].causes == (
        Cause("percpu", -640, True), Cause("object_stock", -3096, True))
    assert [line.unexplained for line in found.values()] == [0] * 4
    assert {found[f"memory.stat {name}"].difference for name in (
        "slab", "slab_reclaimable", "slab_unreclaimable")} == {0}


def test_kernel_pages_that_a_process_maps_are_in_mapped() -> None:
    counted = charge(Run(Kind.KERNEL, 3, mapcount=1), Run(Kind.KERNEL, 5),
                     Run(Kind.FILE, 2, mapcount=1))
    line = lines(counted, GroupNumbers(stat={"file_mapped": 5 * PAGE}))["memory.stat file_mapped"]
    assert line.difference == 0


def test_huge_pages_of_files_and_of_shared_memory_are_compared() -> None:
    counted = charge(Run(Kind.FILE, 1024, order=9), Run(Kind.FILE, 8, order=3),
                     Run(Kind.SHMEM, 512, order=9), Run(Kind.SHMEM, 1))
    found = lines(counted, GroupNumbers(stat={"file_thp": 1024 * PAGE, "shmem_thp": 512 * PAGE}))
    assert [line.difference for line in found.values()] == [0, 0]


WAITS = 2 * 64 * CPUS  # pages by which memory.stat lags, at most
MAPPED = Run(Kind.FILE, 2000, ("lru", "active", "dirty"), mapcount=1)
LARGE = Run(Kind.FILE, 2048, ("lru",), mapcount=1, facts=MAPPED_WHOLE, order=9)


@pytest.mark.parametrize(("field", "run", "moved", "most"), [
    ("anon", Run(Kind.ANON, 2000, mapcount=1), {"pgfree": 3, "pgfault": 9}, WAITS + 12),
    ("swapcached", Run(Kind.SWAP_CACHE, 2000), {"pswpin": 3, "pgscan_anon": 2}, WAITS + 5),
    # 16 pages around a fault, and as many unmapped again; 512 where there are huge pages to map
    ("file_mapped", MAPPED, {"pgfault": 3}, WAITS + 3 * 2 * 16),
    ("file_mapped", LARGE, {"pgfault": 1}, WAITS + 2 * 512),
    ("active_file", MAPPED, {"pgactivate": 1, "pgrotated": 2}, WAITS + 3),
    ("file_dirty", MAPPED, {"nr_dirtied": 1, "nr_written": 1}, WAITS + 2),
])  # fmt: skip
def test_a_line_may_differ_by_its_bound_and_by_no_byte_more(
    field: str, run: Run, moved: dict[str, int], most: int
) -> None:
    readings = (totals({}, dict.fromkeys(moved, 0)), totals({}, moved))
    for sign in (1, -1):
        for beyond in (0, 1):
            less = sign * (most * PAGE + beyond)
            numbers = [GroupNumbers(stat={field: run.pages * PAGE - less})]
            [line] = group_ledger(charge(run), 2, numbers, readings)
            assert (line.difference, line.unexplained) == (less, less if beyond else 0)
