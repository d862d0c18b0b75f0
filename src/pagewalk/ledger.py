"""From our number to theirs: every difference is a list of named causes, in bytes. No I/O.

A line is a row of LINES: which of the kernel's numbers, which of ours, and the causes that may
stand between them. To add a line or a cause: one row in LINES or CAUSES.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pagewalk.account import PSS_SHIFT, Table
from pagewalk.pages import I64, SHARED, WRITE, Backing
from pagewalk.proc.counters import PAGE, Theirs
from pagewalk.proc.smaps import Smaps

HUGE_SIZE = PAGE * PAGE // 8  # what a PMD leaf maps


class Cause(NamedTuple):
    """One named part of a difference; ``bytes`` signed, ``bound`` bytes where it is not exact."""

    cause: str
    bytes: int
    exact: bool
    bound: int | None = None


class Line(NamedTuple):
    """ours - theirs = sum of the causes' bytes + unexplained; None where one side is withheld."""

    against: str
    ours_is: str
    ours: int | None
    theirs: int | None
    causes: tuple[Cause, ...]
    unexplained: int | None


class Case(NamedTuple):
    # What the rules look at: our table, their numbers before the walk and after it.
    table: Table
    theirs: Theirs
    before: Theirs
    page_tables: int | None = None


class Rule(NamedTuple):
    # A line before it is worked out; an optional one is left out where our side is not read,
    # a rare one where it is 0 on both.
    against: str
    ours_is: str
    theirs: Callable[[Theirs], int | None]
    ours: Callable[[Case], int | None]
    causes: tuple[str, ...] = ()
    optional: bool = False
    rare: bool = False


def total(name: str) -> Callable[[Case], int | None]:
    return lambda case: case.table.totals[name]


def status(name: str) -> Callable[[Theirs], int | None]:
    return lambda theirs: theirs.status.get(name)


def smaps_sum(name: str) -> Callable[[Theirs], int | None]:
    return lambda theirs: None if theirs.smaps is None else sum_of(theirs.smaps, name)


def rollup(name: str) -> Callable[[Theirs], int | None]:
    return lambda theirs: None if theirs.rollup is None else sum_of(theirs.rollup, name)


def sum_of(smaps: Smaps, *names: str) -> int:
    zero = np.zeros(0, np.int64)
    return sum(int(smaps.columns.get(name, zero).sum()) for name in names)


def flagged(*wanted: str, without: tuple[str, ...] = ()) -> Callable[[Case], int | None]:
    """Return the size of the VMAs whose VmFlags hold all of ``wanted`` and none of ``without``."""

    def size(case: Case) -> int | None:
        smaps = case.theirs.smaps
        if smaps is None:
            return None
        lengths = (smaps.end - smaps.start).astype(np.int64)
        vmas = case.table.vmas
        gate = np.isin(smaps.start, vmas.start[vmas.gate])
        return int(lengths[smaps.flagged(*wanted, without=without) & ~gate].sum())

    return size


def data_stack(case: Case) -> int | None:
    data, stack = flagged("wr", without=("sh", "gd"))(case), flagged("gd")(case)
    return None if data is None or stack is None else data + stack


# ---- causes: exact ones say how much they are, bounded ones how much they can be


def column(name: str, sign: int = 1) -> Callable[[Case], int]:
    return lambda case: sign * (case.table.totals[name] or 0)


def deposits(case: Case) -> int:
    # Each PMD-mapped anonymous THP and each huge zero page keeps a PTE table in reserve, for the
    # day it is split (pgtable_trans_huge_deposit).
    huge = (case.table.totals["anon_huge"] or 0) + (case.table.totals["huge_zero"] or 0)
    return -huge // HUGE_SIZE * PAGE


def gate_vma(case: Case) -> int:
    vmas = case.table.vmas
    return int(vmas.size[vmas.gate].sum())


def pmd_shared(case: Case) -> int:
    # Where that is not told (procfs before 6.12), all of it may be.
    told = case.table.totals["hugetlb_pmd_shared"]
    return (case.table.totals["hugetlb"] or 0) if told is None else told


def pss_truncation_by_vma(case: Case) -> int:
    # smaps cuts each VMA's sum to whole KiB; ours is cut to bytes, once.
    fixed, ours = case.table.pss_fixed, case.table.totals["pss"]
    if fixed is None or ours is None:
        return 0
    return ours - int((fixed >> (PSS_SHIFT + 10) << 10).sum())


def pss_truncation(case: Case) -> int:
    return (case.table.totals["pss"] or 0) % 1024


def locked_truncation(case: Case) -> int:
    column = case.table.columns["locked"]
    return 0 if column is None else int((column % 1024).sum())


def hwpoison(case: Case) -> int:
    return poisoned(case.table)


def poisoned(table: Table) -> int:
    # What rss has beside the pages that are there, and those on the move.
    names = ("rss", "anon", "file", "shmem", "device", "migrating")
    known = [part for name in names if (part := table.totals[name]) is not None]
    return known[0] - sum(known[1:]) if len(known) == len(names) else 0


def shmem_overcount(case: Case) -> int:
    # How much smaps' Swap exceeds ours on private writable maps of shmem, the only VMAs in which
    # the kernel adds a whole large entry for every page of it (6.18, smaps_pte_hole_lookup).
    ours, smaps, vmas = case.table.columns["swap"], case.theirs.smaps, case.table.vmas
    if ours is None or smaps is None or len(smaps.start) != len(vmas):
        return 0
    private = (vmas.backing == Backing.SHMEM.value) & (vmas.perms & WRITE != 0)
    private &= vmas.perms & SHARED == 0
    excess = smaps.columns.get("Swap", np.zeros(len(vmas), np.int64)) - ours
    return -int(np.maximum(excess, 0)[private].sum())


def huge_device(case: Case) -> int:
    # Up to 6.5 smaps_pmd_entry() takes what a huge entry of device memory points at for a normal
    # page, and counts that one alone; from 6.6 on none, as for a small entry.
    old = case.theirs.release < (6, 6)
    return (case.table.totals["special"] or 0) // (HUGE_SIZE // PAGE) if old else 0


def pss_change(name: str) -> Callable[[Case], int]:
    # Other processes map and unmap the same pages, also while the target is stopped: the two
    # readings of smaps around the walk differ by as much.
    def bound(case: Case) -> int:
        before, after = (getattr(t, name) for t in (case.before, case.theirs))
        return 0 if before is None or after is None else moved(before, after, "Pss")

    return bound


def moved(before: Smaps, after: Smaps, *names: str) -> int:
    # The sum of all single changes, which bounds any mixture of the two readings.
    if before.start.shape != after.start.shape or (before.start != after.start).any():
        return sum_of(before, *names) + sum_of(after, *names)
    zero: I64 = np.zeros(len(before.start), np.int64)
    return sum(
        int(np.abs(before.columns.get(n, zero) - after.columns.get(n, zero)).sum()) for n in names
    )


def batch_pages(theirs: Theirs) -> int:
    # include/linux/percpu_counter.h: an approximate read may miss batch - 1 on every CPU.
    return theirs.cpus * (max(32, 2 * theirs.cpus) - 1)


def thread_pages(theirs: Theirs) -> int:
    # mm/memory.c up to 6.1: each thread keeps up to 64 faults to itself (and two may pass the
    # check), each of up to 16 file pages around the fault.
    return theirs.threads * 66 * 16


def batching(counters: int, *, always: bool = False) -> Callable[[Case], int]:
    """Return how far ``counters`` of the kernel's RSS counters, added up, may lag.

    stat's rss is an approximate read on every kernel (``always``); status and statm are exact
    from 6.18 on.
    """

    def bound(case: Case) -> int:
        theirs = case.theirs
        if theirs.release < (6, 2):
            return counters * thread_pages(theirs) * PAGE
        if theirs.summed and not always:
            return 0
        return counters * batch_pages(theirs) * PAGE

    return bound


class CauseRule(NamedTuple):
    """A cause: ``amount`` in bytes, signed when ``exact``, else the most it can explain."""

    name: str
    exact: bool
    amount: Callable[[Case], int]
    why: str


CAUSE_ROWS = (
    CauseRule("thp_deposit", True, deposits,
              "each PMD-mapped anonymous huge page keeps a page table in reserve, in no tree"),
    CauseRule("gate_vma", True, gate_vma,
              "the gate ([vsyscall], on 32-bit ARM [vectors]) is listed in maps, but is not part of"
              " the address space"),
    CauseRule("hwpoison", True, hwpoison,
              "rss, like smaps' Rss, still counts pages that were lost to a memory error"),
    CauseRule("shmem_swap", True, column("swap_shmem"),
              "smaps adds the swapped pages of shmem objects, VmSwap knows only private entries"),
    CauseRule("pss_truncation_by_vma", True, pss_truncation_by_vma,
              "smaps cuts the PSS of every VMA to whole KiB before it is added up"),
    CauseRule("pss_truncation", True, pss_truncation, "the kernel prints whole KiB"),
    CauseRule("locked_truncation", True, locked_truncation, "the kernel prints whole KiB"),
    CauseRule("smaps_large_shmem_swap_overcount", False, lambda case: abs(shmem_overcount(case)),
              "a kernel bug: smaps adds a whole large swap entry for each page of it"),
    CauseRule("hugetlb_pmd_shared", False, pmd_shared,
              "page tables of hugetlb memory shared with another process count in one of them"),
    CauseRule("huge_device_page", False, huge_device,
              "a kernel bug: smaps counts one page of each huge entry of a device's memory, which"
              " has no normal page"),
    CauseRule("device_page", False, column("untold"),
              "the kernel's frame database says nothing of the frame (device memory): neither its"
              " kind nor how often it is mapped"),
    CauseRule("counter_batching", False, batching(1),
              "the kernel reads its per-CPU (up to 6.1: per-thread) counter approximately"),
    CauseRule("counters_batching", False, batching(3),
              "the kernel adds three per-CPU (up to 6.1: per-thread) counters read approximately"),
    CauseRule("shared_batching", False, batching(2),
              "the kernel adds two per-CPU (up to 6.1: per-thread) counters read approximately"),
    CauseRule("stat_batching", False, batching(3, always=True),
              "/proc/PID/stat adds three per-CPU counters without summing them up"),
    CauseRule("foreign_mapcount_change", False, pss_change("smaps"),
              "other processes mapped or unmapped the same pages between the readings"),
    CauseRule("rollup_mapcount_change", False, pss_change("rollup"),
              "other processes mapped or unmapped the same pages between the readings"),
)
CAUSES = {row.name: row for row in CAUSE_ROWS}


class Part(NamedTuple):
    """A part of present that is not in rss, or (below 0) the other way round."""

    name: str
    amount: Callable[[Table], int]
    why: str


def part(name: str, less: str | None = None, sign: int = 1) -> Callable[[Table], int]:
    return lambda table: sign * (table.totals[name] or 0) - (table.totals[less] or 0 if less else 0)


BEYOND_RSS = (
    Part("zero_page", part("zero", "huge_zero"),
         "memory that was only read maps the shared zero page, which is in no RSS"),
    Part("huge_zero_page", part("huge_zero"), "the huge zero page is mapped, and is in no RSS"),
    Part("special_mapping", part("special"),
         "mapped without a normal page (a driver's memory): in no RSS"),
    Part("hugetlb", part("hugetlb"), "hugetlb pages are accounted apart: HugetlbPages, never RSS"),
    Part("migration", part("migrating", sign=-1),
         "pages on the move to another frame are not present, and still count in RSS"),
    Part("hwpoison", lambda table: -poisoned(table), CAUSES["hwpoison"].why),
)
CONCURRENT = "concurrent_change"
CONCURRENT_WHY = "the process ran: the number moved between the readings before and after the walk"
# Causes that a quieter moment would not show.
MOVED = frozenset({"foreign_mapcount_change", "rollup_mapcount_change", CONCURRENT})

LINES = (
    Rule("status VmSize", "size", status("VmSize"), total("size"), ("gate_vma",)),
    Rule("status VmRSS", "rss", status("VmRSS"), total("rss"), ("hwpoison", "counters_batching")),
    Rule("status RssAnon", "anon", status("RssAnon"), total("anon"),
         ("device_page", "counter_batching")),
    Rule("status RssFile", "file", status("RssFile"), total("file"),
         ("device_page", "counter_batching")),
    Rule("status RssShmem", "shmem", status("RssShmem"), total("shmem"),
         ("device_page", "counter_batching")),
    Rule("status VmSwap", "swap", status("VmSwap"), total("swap"),
         ("shmem_swap", "counter_batching")),
    Rule("status VmData", "private writable", status("VmData"),
         flagged("wr", without=("sh", "gd"))),
    Rule("status VmStk", "stack", status("VmStk"), flagged("gd")),
    Rule("status VmExe+VmLib", "code",
         lambda t: t.status["VmExe"] + t.status["VmLib"] if "VmExe" in t.status else None,
         flagged("ex", without=("wr", "gd"))),
    Rule("status VmLck", "locked VMAs", status("VmLck"), flagged("lo")),
    Rule("status VmPTE", "page tables", status("VmPTE"), lambda case: case.page_tables,
         ("thp_deposit",), optional=True),
    Rule("status HugetlbPages", "hugetlb", status("HugetlbPages"), total("hugetlb"),
         ("hugetlb_pmd_shared",)),
    Rule("statm size", "size", lambda t: t.statm["size"], total("size"), ("gate_vma",)),
    Rule("statm resident (top RES)", "rss", lambda t: t.statm["resident"], total("rss"),
         ("hwpoison", "counters_batching")),
    Rule("statm shared (top SHR)", "file + shmem", lambda t: t.statm["shared"],
         lambda case: add(case.table.totals["file"], case.table.totals["shmem"]),
         ("device_page", "shared_batching")),
    Rule("statm data", "private writable + stack", lambda t: t.statm["data"], data_stack),
    Rule("stat vsize", "size", lambda t: t.stat["vsize"], total("size"), ("gate_vma",)),
    Rule("stat rss", "rss", lambda t: t.stat["rss"], total("rss"), ("hwpoison", "stat_batching")),
    Rule("smaps Size", "size", smaps_sum("Size"), total("size")),
    Rule("smaps Rss", "rss", smaps_sum("Rss"), total("rss"), ("huge_device_page",)),
    Rule("smaps Pss", "pss", smaps_sum("Pss"), total("pss"),
         ("pss_truncation_by_vma", "huge_device_page", "device_page", "foreign_mapcount_change")),
    Rule("smaps Private_*", "uss",
         lambda t: None if t.smaps is None else sum_of(t.smaps, "Private_Clean", "Private_Dirty"),
         total("uss"), ("huge_device_page", "device_page", "foreign_mapcount_change")),
    Rule("smaps Anonymous", "anon", smaps_sum("Anonymous"), total("anon"), ("device_page",)),
    Rule("smaps LazyFree", "lazyfree", smaps_sum("LazyFree"),
         lambda case: case.table.totals.get("lazyfree"), rare=True),
    Rule("smaps Swap", "swap", smaps_sum("Swap"), total("swap"),
         ("smaps_large_shmem_swap_overcount",)),
    Rule("smaps Locked", "locked", smaps_sum("Locked"), total("locked"), ("locked_truncation",)),
    Rule("smaps_rollup Rss", "rss", rollup("Rss"), total("rss"), ("huge_device_page",)),
    Rule("smaps_rollup Pss", "pss", rollup("Pss"), total("pss"),
         ("pss_truncation", "huge_device_page", "device_page", "rollup_mapcount_change")),
    Rule("smaps_rollup Swap", "swap", rollup("Swap"), total("swap"),
         ("smaps_large_shmem_swap_overcount",)),
    Rule("pmap total", "size", lambda t: t.pmap, total("size")),
)

# What `show` prints: the numbers everybody looks at, from files that take no lock.
SHORT = ("status VmSize", "status VmRSS", "status VmSwap", "status HugetlbPages")


def add(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second


def ledger(
    table: Table, theirs: Theirs, before: Theirs | None = None, page_tables: int | None = None
) -> list[Line]:
    """Return a Line for each of LINES whose side of theirs could be read.

    ``before`` are the same numbers read before the walk: what moved between is a bounded cause,
    ``concurrent_change``. ``page_tables`` bytes, where the source counts them.
    """
    case = Case(table, theirs, before or theirs, page_tables)
    lines = (work_out(rule, case) for rule in LINES)
    return [line for line in lines if line is not None]


def work_out(rule: Rule, case: Case) -> Line | None:
    """Return the line of ``rule``, None where the kernel gave no such number."""
    theirs = rule.theirs(case.theirs)
    if theirs is None:
        return None
    ours = rule.ours(case)
    if ours is None and rule.optional:
        return None
    if rule.rare and not ours and not theirs:
        return None
    if ours is None:
        return Line(rule.against, rule.ours_is, None, theirs, (), None)
    rest = ours - theirs
    causes = []
    for name in rule.causes:
        cause = CAUSES[name]
        amount = cause.amount(case)
        if cause.exact and amount:
            causes.append(Cause(name, amount, True))
            rest -= amount
        elif not cause.exact and 0 < abs(rest) <= amount:
            causes.append(Cause(name, rest, False, amount))
            rest = 0
    earlier = rule.theirs(case.before)
    drift = 0 if earlier is None else abs(theirs - earlier)
    if 0 < abs(rest) <= drift:
        causes.append(Cause(CONCURRENT, rest, False, drift))
        rest = 0
    return Line(rule.against, rule.ours_is, ours, theirs, tuple(causes), rest)


def beyond_rss(table: Table) -> tuple[Cause, ...]:
    """Return what present has and rss has not: present - rss = the sum of their bytes.

    Empty where rss is withheld.
    """
    if table.totals["rss"] is None:
        return ()
    found = ((row.name, row.amount(table)) for row in BEYOND_RSS)
    return tuple(Cause(name, amount, True) for name, amount in found if amount)


def why(cause: str) -> str:
    """Return the sentence that explains ``cause``, a cause or a part of present."""
    if cause == CONCURRENT:
        return CONCURRENT_WHY
    return {row.name: row.why for row in (*BEYOND_RSS, *CAUSE_ROWS)}[cause]
