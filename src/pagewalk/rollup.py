"""Totals that a walk withholds, taken from the kernel's own sum: /proc/PID/smaps_rollup.

Whoever may read a process's maps may read it, with no right to see a page frame.
"""

from __future__ import annotations

from pagewalk.account import Table
from pagewalk.afterwards import SMALL_RSS
from pagewalk.errors import PagewalkError
from pagewalk.pages import Withheld
from pagewalk.proc.smaps import Smaps, read_smaps
from pagewalk.proc.stall import BUDGET_NS
from pagewalk.smaps import SMAPS_FIELDS
from pagewalk.sources import Source

# Our name of what several of its fields add up to, and of each that is one field. Not its Swap:
# that can be far too much (smaps_large_shmem_swap_overcount).
SUMS = {"uss": ("Private_Clean", "Private_Dirty")} | {
    name: (field,) for field, name in SMAPS_FIELDS.items() if name != "swap"
}


def ask_rollup(table: Table, source: Source) -> Table:
    """Return ``table`` with the totals it withholds as smaps_rollup has them, in ``from_kernel``.

    The kernel holds the target's lock while it adds up, 10 to 20 ms a GiB: of a running process it
    is asked only where that fits the budget. What cannot be read stays withheld.
    """
    if not missing(table):
        return table
    try:
        if not affordable(table, source):
            table.outcome.withheld.append(too_long(missing(table)))
            return table
        return filled(table, read_smaps(source.target, source.stall, "smaps_rollup"))
    except PagewalkError:
        return table


def missing(table: Table) -> list[str]:
    return [name for name in SUMS if name in table.totals and table.totals[name] is None]


def affordable(table: Table, source: Source) -> bool:
    largest = SMALL_RSS * source.stall.budget_ns // BUDGET_NS
    rss = table.totals["rss"] if table.outcome.vm_rss is None else table.outcome.vm_rss
    return (rss or 0) <= largest or source.target.state() in "Tt"


def too_long(names: list[str]) -> Withheld:
    return Withheld(
        f"{', '.join(names)} as the kernel adds them up",
        "reading smaps_rollup would hold the lock of a running process this large beyond the"
        " budget; --freeze makes it harmless, --budget allows more",
        partial=False,
    )


def filled(table: Table, rollup: Smaps) -> Table:
    """Return ``table`` with what it withholds and ``rollup`` tells."""
    told = {
        name: sum(int(rollup.columns[field].sum()) for field in SUMS[name])
        for name in missing(table)
        if rollup.columns.keys() >= set(SUMS[name])
    }
    return table._replace(totals={**table.totals, **told}, from_kernel=tuple(told))
