"""Totals that a walk withholds, taken from the kernel's own sums in /proc/PID/smaps_rollup.

Whoever may read a process's maps may read it; no right to see page frames is needed.
"""

from __future__ import annotations

from dataclasses import replace

from pagewalk.account.table import SMAPS_FIELDS, Table
from pagewalk.model.columns import Withheld
from pagewalk.model.errors import PagewalkError
from pagewalk.proc.smaps import Smaps
from pagewalk.sources import Source

# The fields of smaps_rollup that add up to each of our totals. Not its Swap, which can be far too
# large (smaps_large_shmem_swap_overcount).
SUMS = {"uss": ("Private_Clean", "Private_Dirty")} | {
    name: (field,) for field, name in SMAPS_FIELDS.items() if name != "swap"
}
TOO_LONG = (
    "reading smaps_rollup would hold the lock of a running process of this size for longer than the"
    " budget; use --freeze, or raise --budget"
)


def ask_rollup(table: Table, source: Source) -> Table:
    """Return ``table`` with the totals it withholds taken from smaps_rollup (``from_kernel``).

    The kernel holds the target's lock while it adds them up, 10 to 20 ms a GiB, so a running
    process is asked only if that fits the budget. What cannot be read stays withheld.
    """
    if not missing(table):
        return table
    rollup = rollup_of(table, source)
    return table if rollup is None else filled(table, rollup)


def rollup_of(table: Table, source: Source) -> Smaps | None:
    """Return the kernel's own sums over ``source``, or those that were recorded of it.

    None where they could not be read; where that would take too long, ``table`` says so.
    """
    if source.recorded is not None:
        return source.recorded.theirs[-1].rollup
    live = source.live
    if live is None:
        return None
    try:
        rss = table.totals["rss"] if table.outcome.vm_rss is None else table.outcome.vm_rss
        rollup = live.smaps(rss or 0, "smaps_rollup")
    except PagewalkError:
        return None
    if rollup is None:
        names = f"the kernel's own {', '.join(missing(table))}"
        table.outcome.withheld.append(Withheld(names, TOO_LONG))
    return rollup


def missing(table: Table) -> list[str]:
    return [name for name in SUMS if name in table.totals and table.totals[name] is None]


def filled(table: Table, rollup: Smaps) -> Table:
    """Return ``table`` with the totals that it withholds and ``rollup`` has."""
    told = {
        name: sum(int(rollup.columns[field].sum()) for field in SUMS[name])
        for name in missing(table)
        if rollup.columns.keys() >= set(SUMS[name])
    }
    return replace(table, totals={**table.totals, **told}, from_kernel=tuple(told))
