"""Explain our numbers against the kernel's: each difference is a list of named causes. No I/O.

A line is a row of LINES: one of the kernel's numbers, one of ours, and the causes that may account
for the difference. To add a line, add a row to LINES.
"""

from collections.abc import Callable
from typing import NamedTuple

from pagewalk.account.causes import CAUSES, OTHERS, Case, Rule, drift, number, ours, poisoned
from pagewalk.account.moves import compare, of_smaps, of_table
from pagewalk.account.table import Table
from pagewalk.proc.counters import Theirs


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

    @property
    def difference(self) -> int | None:
        """Return ours - theirs, None where one side is withheld."""
        return None if self.ours is None or self.theirs is None else self.ours - self.theirs


FRAMES_CHANGED = "frames_changed"


def frames_changed(line: Line) -> int:
    """Return what of the difference of a line is said to be frames that changed, bytes."""
    return sum(cause.bytes for cause in line.causes if cause.cause == FRAMES_CHANGED)


class Part(NamedTuple):
    """A part of present that is not in rss or, if negative, a part of rss that is not present."""

    name: str
    amount: Callable[[Table], int]
    why: str


def part(name: str, less: str | None = None, sign: int = 1) -> Callable[[Table], int]:
    return lambda table: sign * (table.totals[name] or 0) - (table.totals[less] or 0 if less else 0)


BEYOND_RSS = (
    Part("zero_page", part("zero", "huge_zero"),
         "memory that was only read maps the shared zero page, which is not counted in RSS"),
    Part("huge_zero_page", part("huge_zero"), "the huge zero page is not counted in RSS"),
    Part("special_mapping", part("special"),
         "mapped without a normal struct page (driver memory): not counted in RSS"),
    Part("hugetlb", part("hugetlb"), "hugetlb pages are counted in HugetlbPages, never in RSS"),
    Part("migration", part("migrating", sign=-1),
         "pages being migrated to another frame are not present but still counted in RSS"),
    Part("hwpoison", lambda table: -poisoned(table), CAUSES["hwpoison"].why),
)
CONCURRENT = "concurrent_change"
# The sentence that explains a cause or a part of present.
WHY = {
    **{name: row.why for name, row in CAUSES.items()},
    **{row.name: row.why for row in BEYOND_RSS},
    CONCURRENT: "the process was running: the number changed between readings around the walk",
}
# Causes that a quieter moment would not show.
MOVED = OTHERS | {CONCURRENT}
SHARE = ("huge_device_page", "device_page", "foreign_mapcount_change")
KIND = ("migrating_page", "device_page")  # whose kind is not known

LINES = (
    Rule("status VmSize", "size", ("gate_vma",)),
    Rule("status VmRSS", "rss", ("hwpoison", "counters_batching")),
    Rule("status RssAnon", "anon", (*KIND, "counter_batching")),
    Rule("status RssFile", "file", (*KIND, "counter_batching")),
    Rule("status RssShmem", "shmem", (*KIND, "counter_batching")),
    Rule("status VmSwap", "swap", ("shmem_swap", "counter_batching")),
    Rule("status VmData", "private writable", column="size"),
    Rule("status VmStk", "stack", column="size"),
    Rule("status VmExe+VmLib", "code", column="size"),
    Rule("status VmLck", "locked VMAs", ("locked_vm_leak",), column="size"),
    Rule("status VmPTE", "page tables", ("thp_deposit",), optional=True),
    Rule("status HugetlbPages", "hugetlb", ("hugetlb_pmd_shared",)),
    Rule("statm size", "size", ("gate_vma",)),
    Rule("statm resident (top RES)", "rss", ("hwpoison", "counters_batching")),
    Rule("statm shared (top SHR)", "file + shmem", (*KIND, "shared_batching"), column="rss"),
    Rule("statm data", "private writable + stack", column="size"),
    Rule("stat vsize", "size", ("gate_vma",)),
    Rule("stat rss", "rss", ("hwpoison", "stat_batching")),
    Rule("smaps Size", "size"),
    Rule("smaps Rss", "rss", ("huge_device_page",)),
    Rule("smaps Pss", "pss", ("pss_truncation_by_vma", *SHARE)),
    Rule("smaps Private_*", "uss", SHARE),
    Rule("smaps Anonymous", "anon", (*KIND, "hwpoison_page")),
    Rule("smaps LazyFree", "lazyfree", rare=True),
    Rule("smaps Swap", "swap", ("smaps_large_shmem_swap_overcount",)),
    Rule("smaps Locked", "locked", ("locked_truncation", *SHARE)),
    Rule("smaps_rollup Rss", "rss", ("huge_device_page",)),
    Rule("smaps_rollup Pss", "pss",
         ("pss_truncation", "huge_device_page", "device_page", "rollup_mapcount_change")),
    Rule("smaps_rollup Swap", "swap", ("smaps_large_shmem_swap_overcount",)),
    Rule("pmap total", "size"),
)

# What `show` prints: the numbers everybody looks at, from files that need no lock.
SHORT = ("status VmSize", "status VmRSS", "status VmSwap", "status HugetlbPages")


def ledger(
    table: Table,
    theirs: Theirs,
    before: Theirs | None = None,
    between: tuple[Theirs, ...] = (),
    earlier: Table | None = None,
) -> list[Line]:
    """Return a Line for each of LINES whose kernel number could be read.

    ``before`` are the same numbers read before the walk, ``between`` any that were read during it:
    what moved becomes a bounded cause, ``concurrent_change``. Whether a VMA moved is shown by the
    smaps of both, or by ``earlier``, a previous walk.
    """
    first = before or theirs
    moves = None
    if theirs.smaps is not None and earlier is not None:
        moves = compare(of_table(earlier), of_table(table), of_smaps(theirs.smaps))
    elif theirs.smaps is not None and first.smaps is not None:
        last = of_smaps(theirs.smaps)
        same = first.smaps is theirs.smaps
        moves = compare(last if same else of_smaps(first.smaps), last, of_table(table))
    cases = (Case(rule, table, theirs, first, between, moves) for rule in LINES)
    return [line for case in cases if (line := work_out(case)) is not None]


def work_out(case: Case) -> Line | None:
    """Return the line of a rule, None where the kernel gave no such number."""
    rule = case.rule
    theirs, our = number(rule, case.theirs), ours(case)
    if theirs is None or (our is None and rule.optional) or (rule.rare and not our and not theirs):
        return None
    if our is None:
        return Line(rule.against, rule.ours_is, None, theirs, (), None)
    amounts = [(CAUSES[name], CAUSES[name].amount(case)) for name in rule.causes]
    exact = [Cause(row.name, amount, True) for row, amount in amounts if row.exact and amount]
    rest = our - theirs - sum(cause.bytes for cause in exact)
    bounds = [(row.name, amount) for row, amount in amounts if not row.exact]
    others = bounded(rest, [*bounds, (CONCURRENT, drift(case))])
    rest -= sum(cause.bytes for cause in others)
    return Line(rule.against, rule.ours_is, our, theirs, (*exact, *others), rest)


def bounded(rest: int, bounds: list[tuple[str, int]]) -> list[Cause]:
    """Return the first cause that can explain all of ``rest``, else several that do together."""
    sign, left = (1 if rest > 0 else -1), abs(rest)
    for name, bound in bounds:
        if 0 < left <= bound:
            return [Cause(name, rest, False, bound)]
    if left > sum(bound for _, bound in bounds):
        return []
    causes = []
    for name, bound in bounds:
        if taken := min(left, bound):
            causes.append(Cause(name, sign * taken, False, bound))
            left -= taken
    return causes


def beyond_rss(table: Table) -> tuple[Cause, ...]:
    """Return what present counts and rss does not: their bytes add up to present - rss.

    Empty where rss or a part is withheld.
    """
    if table.totals["rss"] is None or table.totals["special"] is None:
        return ()
    found = ((row.name, row.amount(table)) for row in BEYOND_RSS)
    return tuple(Cause(name, amount, True) for name, amount in found if amount)
