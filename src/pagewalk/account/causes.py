"""What may account for a difference between one of our numbers and the kernel's. No I/O.

To add a cause, add a row to CAUSES, and its name to the lines of the ledger that it may affect.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from pagewalk.account.moves import FIELDS, Moves, shift
from pagewalk.account.table import Table
from pagewalk.account.totals import PSS_SHIFT
from pagewalk.model.columns import SHARED, WRITE, Backing
from pagewalk.model.rules import STANDINGS
from pagewalk.proc.counters import Theirs, lag

# Causes that other processes bring about.
OTHERS = frozenset({"foreign_mapcount_change", "rollup_mapcount_change"})
# The counter of status that includes a column, if it is not VmRSS.
COUNTERS = {"size": "VmSize", "anon": "RssAnon", "swap": "VmSwap"}


class Rule(NamedTuple):
    # A line before it is worked out. `against` begins with the file and the field of the kernel's
    # number, `ours_is` names amounts of ours, joined by "+"; `column` is the column that moves with
    # them if that is another. An optional line is left out if our side was not read, a rare one if
    # both sides are 0.
    against: str
    ours_is: str
    causes: tuple[str, ...] = ()
    column: str = ""
    optional: bool = False
    rare: bool = False


class Case(NamedTuple):
    # What a cause sees: the line being worked out, our table, and their numbers before, during and
    # after the walk.
    rule: Rule
    table: Table
    theirs: Theirs
    before: Theirs
    between: tuple[Theirs, ...] = ()
    moves: Moves | None = None

    @property
    def column(self) -> str:
        return self.rule.column or self.rule.ours_is

    @property
    def readings(self) -> tuple[Theirs, ...]:
        return (self.before, *self.between, self.theirs)


def number(rule: Rule, theirs: Theirs) -> int | None:
    """Return the kernel's number of a line, None where it was not read."""
    file, fields, *_ = rule.against.split()
    if file == "pmap":
        return theirs.pmap
    if file in ("smaps", "smaps_rollup"):
        smaps = theirs.smaps if file == "smaps" else theirs.rollup
        if smaps is None:
            return None
        return sum(int(np.sum(smaps.columns.get(name, 0))) for name in FIELDS[rule.ours_is])
    return add(getattr(theirs, file).get(field) for field in fields.split("+"))


# The amounts that are sizes of VMAs: those whose VmFlags hold all of the first and none of the
# second codes.
BY_FLAGS = {
    "private writable": (("wr",), ("sh", "gd")), "stack": (("gd",), ()),
    "code": (("ex",), ("wr", "gd")), "locked VMAs": (("lo",), ()),
}


def ours(case: Case) -> int | None:
    """Return our number of a line, None where it is withheld."""
    return add(amount(case, name) for name in case.rule.ours_is.split(" + "))


def amount(case: Case, name: str) -> int | None:
    if name in BY_FLAGS:
        return flagged(case, *BY_FLAGS[name])
    return case.table.outcome.page_tables if name == "page tables" else case.table.totals.get(name)


def flagged(case: Case, wanted: tuple[str, ...], without: tuple[str, ...]) -> int | None:
    smaps, vmas = case.theirs.smaps, case.table.vmas
    if smaps is None:
        return None
    lengths = (smaps.end - smaps.start).astype(np.int64)
    gate = np.isin(smaps.start, vmas.start[vmas.gate])
    return int(lengths[smaps.flagged(*wanted, without=without) & ~gate].sum())


def add(amounts: Iterable[int | None]) -> int | None:
    given = list(amounts)
    known = [amount for amount in given if amount is not None]
    return sum(known) if len(known) == len(given) else None


# ---- an exact cause returns its amount, a bounded one the most it can account for


def column(name: str) -> Callable[[Case], int]:
    return lambda case: case.table.totals[name] or 0


def deposits(case: Case) -> int:
    # Each PMD-mapped anonymous THP and each huge zero page keeps a PTE table in reserve, in case it
    # is split (pgtable_trans_huge_deposit).
    huge = (case.table.totals["anon_huge"] or 0) + (case.table.totals["huge_zero"] or 0)
    facts = case.table.walk.facts
    return -huge // facts.huge_size * facts.page_size


def pmd_shared(case: Case) -> int:
    # Where it is not known (procfs before 6.12), all hugetlb memory may be shared.
    told = case.table.totals["hugetlb_pmd_shared"]
    return (case.table.totals["hugetlb"] or 0) if told is None else told


def pss_truncation_by_vma(case: Case) -> int:
    # smaps truncates each VMA's sum to whole KiB; ours is truncated to bytes, once.
    fixed, ours = case.table.pss_fixed, case.table.totals["pss"]
    if fixed is None or ours is None:
        return 0
    return ours - int((fixed >> (PSS_SHIFT + 10) << 10).sum())


def locked_truncation(case: Case) -> int:
    column = case.table.columns["locked"]
    return 0 if column is None else int((column % 1024).sum())


def poisoned(table: Table) -> int:
    # What rss counts besides present pages and pages being migrated.
    names = ("rss", *(state.label for state, row in STANDINGS.items() if row.rss and row.told))
    known = [part for name in names if (part := table.totals[name]) is not None]
    return known[0] - sum(known[1:]) if len(known) == len(names) else 0


def shmem_overcount(case: Case) -> int:
    # How much smaps' Swap exceeds ours in private writable maps of shmem, the only VMAs where
    # the kernel counts a whole large entry for each of its pages (6.18, smaps_pte_hole_lookup).
    ours, smaps, vmas = case.table.columns["swap"], case.theirs.smaps, case.table.vmas
    if ours is None or smaps is None or len(smaps.start) != len(vmas):
        return 0
    private = (vmas.backing == Backing.SHMEM.value) & (vmas.perms & WRITE != 0)
    private &= vmas.perms & SHARED == 0
    excess = smaps.columns.get("Swap", np.zeros(len(vmas), np.int64)) - ours
    return -int(np.maximum(excess, 0)[private].sum())


def huge_device(case: Case) -> int:
    # Up to 6.5 smaps_pmd_entry() mistakes the first page of a huge entry of device memory for a
    # normal page and counts it; from 6.6 on it counts none, as for a small entry.
    facts = case.table.walk.facts
    if not facts.counts_huge_device:
        return 0
    return (case.table.totals["special"] or 0) // (facts.huge_size // facts.page_size)


def by_others(case: Case) -> int:
    # Other processes map and unmap the same pages, even while the target is stopped. smaps_rollup
    # is read between the two readings of smaps, and does not tell VMAs apart: unless the process
    # itself moved, all of its spread (0 for smaps) may be theirs.
    own, others = shift(case.moves, case.column)
    return others + (0 if own else spread(case))


def drift(case: Case) -> int:
    """Return how far the number of a line, and ours, moved while they were read.

    A VMA that moved also moved every number that is a sum over VMAs, and a counter that moved did
    so because of some VMA.
    """
    own, others = shift(case.moves, case.column)
    unnamed = others if OTHERS.isdisjoint(case.rule.causes) else 0
    return own + unnamed + spread(case) + counted(case)


def counted(case: Case) -> int:
    # How far apart the readings are of the counter that includes the line's column.
    if not case.rule.against.startswith(("smaps", "pmap")):
        return 0
    counter = COUNTERS.get(case.column, "VmRSS")
    return width([theirs.status.get(counter) for theirs in case.readings])


def spread(case: Case) -> int:
    # How far apart the readings are of a number that is not broken down by VMA.
    if case.rule.against.startswith("smaps "):
        return 0
    moved = width([ours(case._replace(theirs=theirs)) for theirs in (case.before, case.theirs)])
    return moved + width([number(case.rule, theirs) for theirs in case.readings])


def width(values: list[int | None]) -> int:
    known = [value for value in values if value is not None]
    return max(known, default=0) - min(known, default=0)


def untold(case: Case) -> int:
    # How much of what the line counts has a frame that /proc/kpageflags knows nothing about.
    column, locked = case.table.columns["untold"], case.table.outcome.locked
    if column is None:
        return 0
    about_locked = case.rule.ours_is == "locked" and locked is not None
    return int(column[locked].sum() if about_locked else column.sum())


def locked_leak(case: Case) -> int:
    # The counter exceeds the total of the VMAs that the kernel lists as locked, and neither moves:
    # the excess is at most the counter itself.
    counter, listed = number(case.rule, case.theirs), ours(case)
    if counter is None or listed is None or counter <= listed or spread(case):
        return 0
    return counter


def batching(counters: int, *, always: bool = False) -> Callable[[Case], int]:
    return lambda case: lag(case.theirs, case.table.walk.facts, counters, always=always)


class CauseRule(NamedTuple):
    """A cause: ``amount`` in bytes, signed when ``exact``, else the most it can explain."""

    name: str
    exact: bool
    amount: Callable[[Case], int]
    why: str


CAUSES = {row.name: row for row in (
    CauseRule("thp_deposit", True, deposits,
              "each PMD-mapped anonymous huge page keeps a page table in reserve, not linked into"
              " the page tables"),
    CauseRule("gate_vma", True, lambda case: int(case.table.vmas.size[case.table.vmas.gate].sum()),
              "the gate VMA ([vsyscall], or [vectors] on 32-bit ARM) is listed in maps but is not"
              " part of the address space"),
    CauseRule("hwpoison", True, lambda case: poisoned(case.table),
              "rss, like smaps' Rss on this kernel, still counts pages lost to a memory error"),
    CauseRule("hwpoison_page", False, lambda case: abs(poisoned(case.table)),
              "smaps still counts an anonymous page in Anonymous after it was lost to a memory"
              " error, although it is no longer present"),
    CauseRule("shmem_swap", True, column("swap_shmem"),
              "smaps includes swapped-out pages of shmem objects; VmSwap counts only private swap"
              " entries"),
    CauseRule("pss_truncation_by_vma", True, pss_truncation_by_vma,
              "smaps truncates the PSS of each VMA to whole KiB before they are added up"),
    CauseRule("pss_truncation", True, lambda case: (case.table.totals["pss"] or 0) % 1024,
              "the kernel truncates to whole KiB"),
    CauseRule("locked_truncation", True, locked_truncation, "the kernel truncates to whole KiB"),
    CauseRule("smaps_large_shmem_swap_overcount", False, lambda case: abs(shmem_overcount(case)),
              "a kernel bug: smaps counts a whole large swap entry once for each of its pages"),
    CauseRule("hugetlb_pmd_shared", False, pmd_shared,
              "hugetlb memory in page tables shared with another process is counted in only one of"
              " the processes"),
    CauseRule("huge_device_page", False, huge_device,
              "a kernel bug: smaps counts one page for each huge entry of device memory, although"
              " none of it is a normal page"),
    CauseRule("migrating_page", False, column("migrating"),
              "the kernel counts a page being migrated as anon, file or shmem, and its entry does"
              " not say which"),
    CauseRule("locked_vm_leak", False, locked_leak,
              "a kernel bug: mremap(MREMAP_DONTUNMAP) counts locked memory twice and munmap"
              " subtracts it once (mm/mremap.c); or a driver adds pages that it has pinned"),
    CauseRule("device_page", False, untold,
              "/proc/kpageflags and kpagecount know nothing about the frame (device memory):"
              " neither its kind nor its mapcount"),
    CauseRule("counter_batching", False, batching(1),
              "the kernel reads its per-CPU (up to 6.1: per-thread) counter approximately"),
    CauseRule("counters_batching", False, batching(3),
              "the kernel adds three per-CPU (up to 6.1: per-thread) counters, read approximately"),
    CauseRule("shared_batching", False, batching(2),
              "the kernel adds two per-CPU (up to 6.1: per-thread) counters, read approximately"),
    CauseRule("stat_batching", False, batching(3, always=True),
              "/proc/PID/stat adds three counters and leaves out what is still per-CPU"),
    CauseRule("foreign_mapcount_change", False, by_others,
              "other processes mapped or unmapped the same pages between the readings"),
    CauseRule("rollup_mapcount_change", False, by_others,
              "other processes mapped or unmapped the same pages between the readings"),
)}
