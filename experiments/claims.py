"""The claims of RESULTS.md as checks: CLAIMS. The tests run them again on new processes.

To add a claim, add a row to CLAIMS and its check, which takes a process (EACH) or a whole run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from experiments.readers import PRINTS
from experiments.runs import Process, Result, Run
from experiments.targets import TARGETS
from experiments.walks import Walked
from pagewalk.proc.counters import PAGE

MIB, TIB = 1 << 20, 1 << 40
PMD_SIZE = 2 * MIB
EVERY = tuple(TARGETS)


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim: about is which of the report's five observations it is evidence for, 0 if none.

    check returns whether the claim holds in one run; targets are those that it is about.
    """

    name: str
    about: int
    sentence: str
    check: Callable[[Run], bool]
    targets: tuple[str, ...] = EVERY


@dataclass(frozen=True, slots=True)
class Verdict:
    """The number of runs in which a claim held on one target."""

    claim: str
    target: str
    runs: int
    held: int


def each(check: Callable[[Process], bool]) -> Callable[[Run], bool]:
    return lambda run: all(check(process) for process in run.processes)


def walked(check: Callable[[Walked, Process], bool]) -> Callable[[Run], bool]:
    """Return a check of every process by every source."""
    return each(lambda process: all(check(walk, process) for walk in process.walks.values()))


def by_tables(check: Callable[[Walked], bool]) -> Callable[[Process], bool]:
    """Return a check of a process by every source that reads page tables."""
    return lambda process: all(
        check(walk) for walk in process.walks.values() if walk.page_tables is not None
    )


def size_has_the_gate(walk: Walked, process: Process) -> bool:
    more = known(walk, "size") - process.theirs["status"]["VmSize"]
    return more == PAGE and process.theirs["pmap"]["Kbytes"] == walk.totals["size"]


def present_by_kind(walk: Walked, process: Process) -> bool:
    totals = {name: value or 0 for name, value in walk.totals.items()}
    apart = totals["zero"] + totals["special"] + totals["hugetlb"] - totals["migrating"]
    return totals["present"] - process.theirs["smaps"]["Rss"] == apart


def states_add_up(walk: Walked, process: Process) -> bool:
    totals = walk.totals
    parts = (totals["present"], totals["not_present"], totals["not_mapped"])
    return sum(part or 0 for part in parts) == totals["size"]


def ledger_closes(walk: Walked, process: Process) -> bool:
    return walk.lines > 20 and walk.open == 0


def tables_are_vmpte(walk: Walked, process: Process) -> bool:
    # pgtable_trans_huge_deposit: one PTE table is kept in reserve for each huge anonymous leaf.
    huge = known(walk, "anon_huge") + known(walk, "huge_zero")
    tables = (walk.page_tables or 0) + huge // PMD_SIZE * PAGE
    return tables == process.theirs["status"]["VmPTE"]


def sources_agree(process: Process) -> bool:
    # present and special are left out: procfs cannot see the kernel's page in [vvar]. And it knows
    # neither the kind nor the mapcount of frames that the database leaves out.
    walks = list(process.walks.values())
    same = ("size", "rss", "swap", "zero", "hugetlb")
    unknown = max(known(walk, "untold") for walk in walks)
    kinds = ("anon", "file", "shmem", "uss")
    return all(len({walk.totals[name] for walk in walks}) == 1 for name in same) and all(
        max(known(walk, name) for walk in walks) - min(known(walk, name) for walk in walks)
        <= unknown for name in kinds
    )


def tools_print_files(process: Process) -> bool:
    theirs = process.theirs
    return all(
        abs(theirs[tool][word] - theirs[file][field]) <= rounding(theirs[file][field])
        for tool, word, file, field in PRINTS
        if (tool, word) != ("psutil", "pss")
    )


def rounding(amount: int) -> int:
    # top writes a number that is too wide for its column (10 million KiB) with one decimal, 53.2g
    # or 16.0t: half a unit of that digit is lost.
    if amount < 10_000_000 << 10:
        return 0
    return (1 << 40 if amount >= 1 << 40 else 1 << 30) // 20 + 1


def psutil_counts_hugetlb(process: Process) -> bool:
    rollup, psutil = process.theirs["smaps_rollup"], process.theirs["psutil"]
    return psutil["uss"] == rollup["Private"] + rollup["Private_Hugetlb"]


def stat_lags_within_bound(process: Process) -> bool:
    # include/linux/percpu_counter.h: an approximate read may miss batch - 1 on each CPU, and rss
    # is the sum of three counters.
    cpus = os.cpu_count() or 1
    bound = 3 * cpus * (max(32, 2 * cpus) - 1) * PAGE
    return abs(process.theirs["stat"]["rss"] - process.theirs["statm"]["resident"]) <= bound


def main(check: Callable[[Process], bool]) -> Callable[[Run], bool]:
    """Return a check of only the first process of a run."""
    return lambda run: check(run.processes[0])


def known(walk: Walked, name: str) -> int:
    value = walk.totals[name]
    if value is None:
        raise ValueError(f"{name} is withheld")
    return value


def family_shares(run: Run) -> bool:
    rss, pss = (sum(known(best(p), name) for p in run.processes) for name in ("rss", "pss"))
    return rss > 2 * pss


def best(process: Process) -> Walked:
    """Return the most informative walk: the one that read page tables, if any did."""
    walks = list(process.walks.values())
    return next((walk for walk in walks if walk.page_tables is not None), walks[0])


CLAIMS = (
    Claim("size-has-the-gate", 1,
          "Size is VmSize plus the 4 KiB of [vsyscall]: maps, smaps and pmap list that gate,"
          " VmSize does not count it.",
          walked(size_has_the_gate)),
    Claim("rss-is-vmrss", 2,
          "RSS is VmRSS, to the byte, however much is shared.",
          walked(lambda w, p: w.totals["rss"] == p.theirs["status"]["VmRSS"])),
    Claim("sharing-moves-pss", 2,
          "The family's RSS adds up to more than twice its PSS, and still each RSS is VmRSS:"
          " sharing moves PSS and USS, never RSS.",
          family_shares, ("fork", "postgresql")),
    Claim("rss-is-smaps", 3,
          "RSS is the Rss of smaps and of smaps_rollup, to the byte.",
          walked(lambda w, p: w.totals["rss"] == p.theirs["smaps"]["Rss"]
                 == p.theirs["smaps_rollup"]["Rss"])),
    Claim("present-by-kind", 3,
          "What a walk finds present is more than Rss by its zero, special and hugetlb pages, and"
          " by nothing else.",
          walked(present_by_kind)),
    Claim("one-page-of-vvar", 3,
          "Exactly one present page is special, the kernel's page behind [vvar]: mapped by the"
          " first look at the clock, and in no RSS.",
          main(by_tables(lambda w: w.totals["special"] == PAGE)), ("top", "jvm")),
    Claim("small-is-mapped", 4,
          "Of a small process less than 2 MiB has no page table, and only for want of the last"
          " level: what is not present is an empty slot.",
          each(by_tables(lambda w: known(w, "not_mapped") == known(w, "not_mapped_pmd") < 2 * MIB)),
          ("hello", "hello-static", "top", "fork", "read-only", "swap")),
    Claim("large-is-unmapped", 4,
          "Of the main process more than half has no page table.",
          main(by_tables(lambda w: 2 * known(w, "not_mapped") > known(w, "size"))),
          ("firefox", "chromium", "jvm", "reservation")),
    Claim("reservation", 4,
          "Of 16 TiB more than 99.9 % has no page table; the page tables of its 1000 pages weigh"
          " more than its RSS.",
          each(by_tables(lambda w: known(w, "size") > 16 * TIB
                         and known(w, "not_mapped") > 0.999 * known(w, "size")
                         and (w.page_tables or 0) > known(w, "rss"))),
          ("reservation",)),
    Claim("zero-pages", 3,
          "At least 64 pages are present and in no RSS: those that were only read.",
          walked(lambda w, p: known(w, "zero") >= 64 * PAGE
                 and known(w, "present") - p.theirs["status"]["VmRSS"] >= 64 * PAGE),
          ("read-only",)),
    Claim("hugetlb-apart", 0,
          "4 MiB of hugetlb are present, in HugetlbPages and in no RSS or PSS; psutil's USS counts"
          " them, and so exceeds its RSS.",
          each(lambda p: known(best(p), "hugetlb") == p.theirs["status"]["HugetlbPages"] == 4 * MIB
               and p.theirs["psutil"]["uss"] > p.theirs["psutil"]["rss"]),
          ("hugetlb",)),
    Claim("swap-apart", 0,
          "40 pages are in swap: in VmSwap, not present, in no RSS.",
          walked(lambda w, p: known(w, "swap") == p.theirs["status"]["VmSwap"] == 40 * PAGE),
          ("swap",)),
    Claim("ledger-closes", 0,
          "Every line of the ledger, from each of the kernel's numbers and pmap's to ours, closes:"
          " nothing is unexplained.",
          walked(ledger_closes)),
    Claim("sources-agree", 0,
          "Every source gives the same size, RSS, swap, zero pages, kinds and USS, to the byte;"
          " only of frames that the frame database leaves out (`untold`) can procfs be wrong.",
          each(sources_agree)),
    Claim("states-add-up", 0,
          "Present, not present and not mapped add up to the size.",
          walked(states_add_up)),
    Claim("tables-are-vmpte", 0,
          "The PTE, PMD and PUD tables that a walk reads, counted, are VmPTE; for each huge"
          " anonymous page the kernel keeps one more in store.",
          each(lambda p: by_tables(lambda w: tables_are_vmpte(w, p))(p))),
    Claim("tools-print-files", 0,
          "pmap, top, ps and psutil print a file's number and no other: see which.",
          each(tools_print_files)),
    Claim("psutil-counts-hugetlb", 0,
          "psutil's USS is Private_Clean + Private_Dirty + Private_Hugetlb.",
          each(psutil_counts_hugetlb)),
    Claim("stat-lags", 0,
          "The rss of stat is an approximate read: as far off as per-CPU counters may be, at most.",
          each(stat_lags_within_bound)),
)


def judge(results: Iterable[Result]) -> list[Verdict]:
    """Return a verdict for each claim on each of its targets that was run."""
    found = {result.target: result for result in results}
    return [
        Verdict(claim.name, name, len(found[name].runs), sum(map(claim.check, found[name].runs)))
        for claim in CLAIMS
        for name in claim.targets
        if name in found
    ]
