"""Every process on this machine, in figures without names: size, states, and the kernel's RSS."""

from __future__ import annotations

from dataclasses import dataclass

import pagewalk
from pagewalk.account.table import Table
from pagewalk.model.errors import PagewalkError
from pagewalk.proc.counters import read_status
from pagewalk.proc.processes import read_processes

LEVELS = ("pmd", "pud", "p4d", "pgd")
COLUMNS = ("size", "present", "rss", "pss", "uss", "not_present", "not_mapped",
           *(f"not_mapped_{level}" for level in LEVELS))


@dataclass(frozen=True, slots=True)
class Everyone:
    """All processes with memory: bytes by column, with "VmSize" and "VmRSS" of status.

    moved: processes that ran, so that status changed during the walk; they are left out of
    processes. refused: those that may not be read.
    """

    processes: list[dict[str, int]]
    moved: int
    refused: int


def read_everyone(source: str) -> Everyone:
    """Walk every process; those that change meanwhile are tried again, and then only counted."""
    rows, moved, refused = [], 0, 0
    for process in read_processes():
        try:
            row = still(process.pid, source)
        except pagewalk.NotPermitted:
            refused += 1
        except PagewalkError:
            continue  # a kernel thread, or gone
        else:
            moved += row is None
            rows += [row] if row else []
    return Everyone(sorted(rows, key=lambda row: row["size"]), moved, refused)


def still(pid: int, source: str, tries: int = 5) -> dict[str, int] | None:
    """Return a process's figures from a moment when its counters did not change, None if none."""
    opened = pagewalk.open_process(pid, source)
    try:
        assert opened.live is not None
        target = opened.live.target
        target.read("smaps_rollup")  # refused if others may not see what is inside
        for _ in range(tries):
            before = read_status(target)
            table = pagewalk.table(opened)
            if before == (status := read_status(target)):
                return {**columns(table), "VmSize": status["VmSize"], "VmRSS": status["VmRSS"]}
    finally:
        pagewalk.close(opened)
    return None


def columns(table: Table) -> dict[str, int]:
    """Return the totals of COLUMNS that are known."""
    known = ((name, table.totals[name]) for name in COLUMNS)
    return {name: value for name, value in known if value is not None}
