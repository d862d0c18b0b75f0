"""What a cgroup is charged for against the kernel's numbers for it, of either version. Pure.

To add a line, add a row to LINES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from pagewalk.account.ledger import Cause, Line, bounded
from pagewalk.model.frames import Kind
from pagewalk.proc.cgroup_numbers import GroupNumbers
from pagewalk.proc.totals import Totals
from pagewalk.system.census import MAPPABLE, Census
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

# include/linux/memcontrol.h, MEMCG_CHARGE_BATCH: a CPU charges so many pages in advance.
BATCH = 64


class Charge(NamedTuple):
    """What was counted: frames, bytes of kernel objects, and what a page and the machine are.

    ``objects`` are split into those of caches that can shrink and the others. ``generations``:
    whether LRU lists were sorted by generation, which hides what is active. ``groups`` is how many
    there are, itself and those below it; a CPU charges in advance for at most ``stocks`` groups at
    a time. ``areas`` are bytes of "kernel_stack" and "vmalloc", as far as they are told apart.
    ``kernel``: whether this kernel charges its own memory to groups at all (proc.cgroups.KERNEL).
    """

    census: Census
    reclaimable: int
    unreclaimable: int
    page: int
    cpus: int
    generations: bool = False
    groups: int = 1
    stocks: int = 1
    areas: Mapping[str, int] = MappingProxyType({})
    kernel: bool = True

    @property
    def in_advance(self) -> int:
        """Return the most that may be charged in advance, bytes."""
        return BATCH * self.cpus * min(self.groups, self.stocks) * self.page

    @property
    def in_stock(self) -> int:
        """Return the most that may be charged for kernel objects and not used yet, bytes.

        A page on each CPU, and less than one that each group had left when its stock was taken
        from it (drain_obj_stock, mm/memcontrol.c).
        """
        return (self.cpus + self.groups) * self.page if self.kernel else 0

    @property
    def objects(self) -> int:
        """Return the bytes of kernel objects."""
        return self.reclaimable + self.unreclaimable


WHY = {
    "charged_in_advance": "each CPU charges up to 64 pages in advance, for one group or, since"
    " 6.16, for each of several, until another group needs its place (MEMCG_CHARGE_BATCH)",
    "object_stock": "kernel objects are charged from a page in stock on each CPU, and a group keeps"
    " less than a page of what was left when its stock was taken away",
    "stat_lag": "memory.stat leaves out up to 64 pages a CPU that wait there, and as many again"
    " that it does not find worth adding up yet (memcg_vmstats_needs_flush)",
    "percpu": "per-CPU memory, which only the kernel counts (memory.stat)",
    "percpu_not_told": "per-CPU memory, such as that of the groups below, which version 1 charges"
    " and does not show: at most what the whole machine has (meminfo Percpu)",
    "sock": "buffers of sockets, which only the kernel counts (memory.stat)",
    "zswap": "swap that zswap keeps compressed, which only the kernel counts (memory.stat)",
    "backing_untold": RAM_WHY["backing_untold"],
    "frames_changed": "frames were allocated or freed while RAM was read: at most as many as the"
    " kernel counted meanwhile",
    "concurrent_change": "the number moved between the readings around the scan",
}
# Charged, and counted by the kernel only: version 2 has them in memory.stat.
KERNELS = ("percpu", "sock", "zswap")

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


def everything(charge: Charge) -> int:
    return user_bytes(charge) + kernel_bytes(charge) + charge.objects


def _in_cache(census: Census) -> object:
    # A group's count leaves out the swap cache (mm/swap_state.c: NR_FILE_PAGES of the node only).
    return census.of(Kind.FILE) | (census.of(Kind.SHMEM) & ~in_swap_cache(census))


ALL = Rule("current", "pages + kernel pages + kernel objects", everything,
           (*KERNELS, "charged_in_advance", "object_stock"))
KMEM = Rule("kmem", "kernel pages + kernel objects",
            lambda charge: kernel_bytes(charge) + charge.objects, ("object_stock",))
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
        Rule("slab_reclaimable", "kernel objects, reclaimable", lambda charge: charge.reclaimable,
             ("stat_lag", "object_stock")),
        Rule("slab_unreclaimable", "kernel objects, not reclaimable",
             lambda charge: charge.unreclaimable, ("stat_lag", "object_stock")),
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
    def changed(rule: Rule) -> int:
        more = moved(rule.times, rule.moves, charge.census, charge.page, readings)
        return charge.page * (growth(readings, *CHURN) + more)

    lines = []
    for rule in (ALL, KMEM):
        theirs = [amount for one in numbers if (amount := getattr(one, rule.field)) is not None]
        if theirs:
            title = FILES[rule.field, version]
            limits = _limits(rule, charge, version, numbers[-1], readings[-1])
            lines.append(_line(rule, title, charge, theirs, changed(rule), numbers[-1].stat or {},
                               limits))
    for rule in rules(version, charge.generations):
        told = (together(rule.field, one.stat or {}) for one in numbers)
        theirs = [amount for amount in told if amount is not None]
        if theirs:
            title = f"memory.stat {rule.field}"
            lines.append(_line(rule, title, charge, theirs, changed(rule), {}))
    return lines


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
    # What is charged and not used yet, in the order in which it explains a line: as much of each as
    # there can be. Version 1 counts the kernel's part apart, and so tells how much is in its stock
    # and how much is per-CPU memory, which it charges and does not show.
    if version == 2 or last.kmem is None:
        found = [("object_stock", charge.in_stock), ("charged_in_advance", charge.in_advance)]
        return [row for row in found if row[0] in rule.causes]
    kernel = max(0, last.kmem - kernel_bytes(charge) - charge.objects)
    stock = min(kernel, charge.in_stock)
    percpu = min(kernel - stock, (totals.meminfo or {}).get("Percpu", 0))
    found = [("object_stock", stock), ("percpu_not_told", percpu)]
    if rule is ALL:
        found.append(("charged_in_advance", charge.in_advance))
    return [row for row in found if row[1]]


def _line(
    rule: Rule, title: str, charge: Charge, theirs: list[int], changed: int, stat: dict[str, int],
    unused: Sequence[tuple[str, int]] = (),
) -> Line:
    ours = rule.ours(charge)
    if ours is None:
        return Line(title, rule.ours_is, None, theirs[-1], (), None)
    exact = [Cause(name, -stat[name], True) for name in rule.causes
             if name in KERNELS and stat.get(name)]
    rest = ours - theirs[-1] - sum(cause.bytes for cause in exact)
    bounds = [("frames_changed", changed), ("concurrent_change", max(theirs) - min(theirs))]
    if "stat_lag" in rule.causes or exact:
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
