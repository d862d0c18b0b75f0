"""What a cgroup is charged for against the kernel's numbers for it, of either version. Pure.

To add a line, add a rule to STAT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pagewalk.account.ledger import FRAMES_CHANGED, Cause, Line, bounded, frames_changed
from pagewalk.model.frames import Kind
from pagewalk.proc.cgroup_numbers import GroupNumbers
from pagewalk.proc.totals import Totals
from pagewalk.system.census import MAPPABLE, Census
from pagewalk.system.charge import BATCH, Charge
from pagewalk.system.counted_as import (
    ANON,
    LISTED,
    backing_untold,
    dirty_files,
    in_swap_cache,
    in_writeback,
    on_lru,
    unevictable,
    whole,
)
from pagewalk.system.ram_causes import (
    CHURN,
    MAPS,
    SWAPS,
    Times,
    faulted,
    growth,
    moved,
    once,
    swapped,
)
from pagewalk.system.ram_causes import WHY as RAM_WHY
from pagewalk.system.ram_ledger import HIDDEN, LRU, WRITTEN, together

WHY = {
    "charged_in_advance": "each CPU charges up to 64 pages in advance, for one group or, since"
    " 6.16, for each of several, until another group needs its place (MEMCG_CHARGE_BATCH)",
    "object_stock": "kernel objects are charged by the page: what is left of one waits for the next"
    " object, on a CPU or in an obj_cgroup; a removed group leaves its obj_cgroup to its parent,"
    " where it stays while one of its objects lives",
    "stat_lag": "memory.stat leaves out up to 64 pages a CPU that wait there, and as many again"
    " that it does not find worth adding up yet (memcg_vmstats_needs_flush)",
    "percpu": "per-CPU memory, which only the kernel counts (memory.stat)",
    "second_pages": "up to 6.13 the root of a process's page tables may be two pages (PTI), of"
    " which only the first says who is charged: at most as many as kernel pages that are not told"
    " apart",
    "percpu_not_told": "per-CPU memory, such as that of the groups below, which version 1 charges"
    " and does not show: at most what the whole machine has (meminfo Percpu)",
    "sock": "buffers of sockets, which only the kernel counts (memory.stat)",
    "zswap": "swap that zswap keeps compressed, which only the kernel counts (memory.stat)",
    "backing_untold": RAM_WHY["backing_untold"],
    "frames_changed": "frames were allocated or freed while RAM was read: at most as many as the"
    " kernel counted meanwhile, for the group where it does (version 1: total_pgpgin, pgpgout)",
    "concurrent_change": "the number moved between the readings around the scan",
}
# Charged, and counted by the kernel only: version 2 has them in memory.stat.
KERNELS = ("percpu", "sock", "zswap")
# Charged, and not used yet; version 1 does not tell what is per-CPU memory either.
UNUSED = ("charged_in_advance", "object_stock")
NOT_USED = (*UNUSED, "percpu_not_told", "second_pages")

Amount = Callable[[Charge], int | None]


class Rule(NamedTuple):
    # `field` is a file, or one of memory.stat. `moves` and `times` as in ram_ledger.Rule.
    field: str
    ours_is: str
    ours: Amount
    causes: tuple[str, ...] = ("stat_lag",)
    moves: tuple[str, ...] = ()
    times: Times = once


def pages(rule: Callable[[Census], object]) -> Amount:
    return lambda charge: charge.page * charge.census.count(rule(charge.census))  # type: ignore[arg-type]


USERS = (*LISTED, Kind.HUGETLB)


def user_bytes(charge: Charge) -> int:
    """Return the bytes of pages that hold what processes and files have."""
    return charge.page * charge.census.count(charge.census.of(*USERS))


def kernel_bytes(charge: Charge) -> int:
    """Return the bytes of pages that the kernel allocated on behalf of the group."""
    return charge.page * charge.census.count(~charge.census.of(*USERS))


def large_bytes(charge: Charge) -> int:
    """Return the bytes of pages that kmalloc handed out whole."""
    return charge.page * charge.census.count(charge.census.of(Kind.LARGE_KMALLOC))


def everything(charge: Charge) -> int:
    return user_bytes(charge) + kernel_bytes(charge) + charge.objects


def _in_cache(census: Census) -> object:
    # A group's count leaves out the swap cache (mm/swap_state.c: NR_FILE_PAGES of the node only).
    return census.of(Kind.FILE) | (census.of(Kind.SHMEM) & ~in_swap_cache(census))


ALL = Rule("current", "pages + kernel pages + kernel objects", everything,
           (*KERNELS, "charged_in_advance", "object_stock", "second_pages"))
KMEM = Rule("kmem", "kernel pages + kernel objects",
            lambda charge: kernel_bytes(charge) + charge.objects, ("object_stock", "second_pages"))
# Fields of memory.stat: of version 2, and what version 1 calls them.
STAT: dict[int, tuple[Rule, ...]] = {
    2: (
        Rule("anon", "anonymous and mapped", pages(lambda c: c.of(*ANON) & c.mapped),
             moves=SWAPS, times=swapped),
        Rule("file", "files + shared memory", pages(_in_cache), moves=SWAPS, times=swapped),
        Rule("shmem", "shared memory", pages(lambda c: c.of(Kind.SHMEM)), moves=SWAPS,
             times=swapped),
        Rule("file_mapped", "files, shared memory and kernel pages that are mapped",
             pages(lambda c: c.of(Kind.FILE, Kind.SHMEM, *MAPPABLE) & c.mapped), moves=MAPS,
             times=faulted),
        Rule("file_dirty", "dirty, of files", pages(dirty_files), ("stat_lag", "backing"),
             WRITTEN),
        Rule("file_writeback", "being written", pages(in_writeback), moves=WRITTEN),
        Rule("swapcached", "also in swap", pages(in_swap_cache), moves=SWAPS, times=swapped),
        Rule("anon_thp", "anonymous, mapped as huge pages", pages(lambda c: whole(c, Kind.ANON))),
        Rule("file_thp", "files, in huge pages", pages(lambda c: c.of(Kind.FILE) & c.huge)),
        Rule("shmem_thp", "shared memory, in huge pages",
             pages(lambda c: c.of(Kind.SHMEM) & c.huge & ~in_swap_cache(c))),
        Rule("inactive_anon", "inactive, swap-backed",
             pages(lambda c: on_lru(c, anon=True, active=False)), moves=LRU),
        Rule("active_anon", "active, swap-backed",
             pages(lambda c: on_lru(c, anon=True, active=True)), moves=LRU),
        Rule("inactive_file", "inactive, of files",
             pages(lambda c: on_lru(c, anon=False, active=False)), moves=LRU),
        Rule("active_file", "active, of files",
             pages(lambda c: on_lru(c, anon=False, active=True)), moves=LRU),
        Rule("unevictable", "unevictable", pages(unevictable), moves=LRU),
        Rule("pagetables", "page tables", pages(lambda c: c.of(Kind.PAGE_TABLE))),
        Rule("kernel_stack", "kernel stacks", lambda charge: charge.areas.get("kernel_stack")),
        Rule("vmalloc", "vmalloc", lambda charge: charge.areas.get("vmalloc")),
        Rule("slab_reclaimable", "kernel objects, reclaimable", lambda charge: charge.reclaimable),
        Rule("slab_unreclaimable", "kernel objects, not reclaimable + large kmalloc",
             lambda charge: charge.unreclaimable + large_bytes(charge)),
        Rule("slab", "kernel objects + large kmalloc",
             lambda charge: charge.objects + large_bytes(charge)),
        # What obj_cgroup_charge_pages counts: all but sockets (mm/memcontrol.c).
        Rule("kernel", "kernel pages + kernel objects",
             lambda charge: kernel_bytes(charge) + charge.objects,
             ("stat_lag", "percpu", "zswap", "object_stock", "second_pages")),
    ),
}  # fmt: skip
_ONE = {"anon": "rss", "file": "cache", "file_mapped": "mapped_file", "file_dirty": "dirty",
        "file_writeback": "writeback", "anon_thp": "rss_huge",
        **{name: name for name in ("shmem", "swapcached", "inactive_anon", "active_anon",
                                   "inactive_file", "active_file", "unevictable")}}  # fmt: skip
STAT[1] = tuple(rule._replace(field=f"total_{_ONE[rule.field]}")
                for rule in STAT[2] if rule.field in _ONE)  # fmt: skip
BY_ACTIVITY = ("inactive_", "active_", "total_inactive_", "total_active_")
# What is exact where generations hide what is active.
BOTH_LISTS = (
    Rule("active_anon + inactive_anon", "LRU lists, swap-backed",
         pages(lambda c: on_lru(c, anon=True)), moves=LRU),
    Rule("active_file + inactive_file", "LRU lists, of files",
         pages(lambda c: on_lru(c, anon=False)), moves=LRU),
)
FILES = {("current", 1): "memory.usage_in_bytes", ("current", 2): "memory.current",
         ("kmem", 1): "memory.kmem.usage_in_bytes"}  # fmt: skip


def group_ledger(
    charge: Charge, version: int, numbers: Sequence[GroupNumbers], readings: Sequence[Totals]
) -> list[Line]:
    """Return a line for each number that the kernel gives for the group. Amounts are bytes.

    ``numbers`` and ``readings`` were read around the scan, the first before it, the last after it.
    """
    churn = growth(readings, *CHURN)
    charged = churn if version == 2 else min(churn, charges(charge, numbers))

    def changed(rule: Rule) -> int:
        more = moved(rule.times, rule.moves, charge.census, charge.page, readings)
        return charge.page * ((churn if rule in (ALL, KMEM) else charged) + more)

    kernel = _whole(KMEM, charge, version, numbers, readings, changed(KMEM))
    most = changed(ALL)
    if version == 1 and kernel:
        # Pages of processes and files, and what of the kernel's part changed.
        most = charge.page * charged + abs(frames_changed(kernel[0]))
    lines = [*_whole(ALL, charge, version, numbers, readings, most), *kernel]
    for rule in rules(version, charge.generations):
        told = (together(rule.field, one.stat or {}) for one in numbers)
        theirs = [amount for amount in told if amount is not None]
        if theirs:
            title = f"memory.stat {rule.field}"
            unused = _limits(rule, charge, version, numbers[-1], readings[-1])
            lines.append(_line(rule, title, charge, theirs, changed(rule), numbers[-1].stat or {},
                               unused))
    return lines


def charges(charge: Charge, numbers: Sequence[GroupNumbers]) -> int:
    """Return at most how many pages of processes and files were charged or uncharged meanwhile.

    Version 1 counts that, each folio once (mem_cgroup_charge_statistics, uncharge_batch,
    mm/memcontrol.c): of up to as many pages as a huge page has. As in all of memory.stat, 64 wait
    on each CPU, and as many a CPU are not worth adding up yet.
    """
    first, last = numbers[0].stat or {}, numbers[-1].stat or {}
    events = sum(last.get(name, 0) - first.get(name, 0) for name in CHARGES)
    return events * (charge.page // _ENTRY) + 2 * BATCH * charge.cpus


CHARGES = ("total_pgpgin", "total_pgpgout")
_ENTRY = 8  # bytes of an entry in a table of a page, which maps a huge page


def _whole(
    rule: Rule, charge: Charge, version: int, numbers: Sequence[GroupNumbers],
    readings: Sequence[Totals], changed: int,
) -> list[Line]:
    # The line of a file of its own, if there is one.
    theirs = [amount for one in numbers if (amount := getattr(one, rule.field)) is not None]
    if not theirs:
        return []
    unused = _limits(rule, charge, version, numbers[-1], readings[-1])
    return [_line(rule, FILES[rule.field, version], charge, theirs, changed,
                  numbers[-1].stat or {}, unused)]


def rules(version: int, generations: bool) -> Iterator[Rule]:
    for rule in STAT[version]:
        if generations and rule.field.startswith(BY_ACTIVITY):
            yield rule._replace(ours_is=HIDDEN, ours=lambda _: None)
        else:
            yield rule
    for rule in BOTH_LISTS if generations else ():
        names = rule.field.split(" + ")
        total = "total_" if version == 1 else ""
        yield rule._replace(field=" + ".join(total + name for name in names))


def _limits(
    rule: Rule, charge: Charge, version: int, last: GroupNumbers, totals: Totals
) -> list[tuple[str, int]]:
    # What is charged and not used yet as far as it is bounded, in the order in which it explains a
    # line: as much of each as there can be. Version 1 counts the kernel's part apart, and so tells
    # how much of it is per-CPU memory, which it charges and does not show.
    most = {"object_stock": charge.in_stock, "charged_in_advance": charge.in_advance}
    found = {name: held for name, held in most.items()
             if name in rule.causes and charge.exactly(name) is None}
    if version == 1 and last.kmem is not None and "object_stock" in rule.causes:
        left = last.kmem - kernel_bytes(charge) - charge.objects
        left = max(0, left - (charge.exactly("object_stock") or 0))
        stock = min(left, found.pop("object_stock", 0))
        percpu = min(left - stock, (totals.meminfo or {}).get("Percpu", 0))
        found = {"object_stock": stock, "percpu_not_told": percpu, **found}
    if "second_pages" in rule.causes:
        found = {"second_pages": charge.second_pages, **found}
    return [(name, held) for name, held in found.items() if held]


def _line(
    rule: Rule, title: str, charge: Charge, theirs: list[int], changed: int, stat: dict[str, int],
    unused: Sequence[tuple[str, int]] = (),
) -> Line:
    ours = rule.ours(charge)
    if ours is None:
        return Line(title, rule.ours_is, None, theirs[-1], (), None)
    counted = [(name, stat.get(name)) for name in rule.causes if name in KERNELS]
    found = [(name, charge.exactly(name)) for name in rule.causes if name in UNUSED]
    exact = [Cause(name, -held, True) for name, held in (*counted, *found) if held]
    rest = ours - theirs[-1] - sum(cause.bytes for cause in exact)
    bounds = [(FRAMES_CHANGED, changed), ("concurrent_change", max(theirs) - min(theirs))]
    if "stat_lag" in rule.causes or any(held for _, held in counted):
        bounds.insert(0, ("stat_lag", 2 * BATCH * charge.cpus * charge.page))
    if "backing" in rule.causes and rest > 0 and (most := backing_untold(charge.census)):
        bounds.insert(0, ("backing_untold", charge.page * most))
    others = _filled(rest, unused, bounds)
    rest -= sum(cause.bytes for cause in others)
    return Line(title, rule.ours_is, ours, theirs[-1], (*exact, *others), rest)


def _filled(
    rest: int, unused: Sequence[tuple[str, int]], bounds: list[tuple[str, int]]
) -> list[Cause]:
    # What is charged and not used yet explains as much as it can before anything else does.
    found = []
    for name, most in unused if rest < 0 else ():
        if taken := min(-rest, most):
            found.append(Cause(name, -taken, False, most))
            rest += taken
    return [*found, *bounded(rest, bounds)]
