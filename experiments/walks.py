"""What pagewalk says of a process, by every source that works here."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pagewalk
from pagewalk.account import Table
from pagewalk.commands.explain import doubt, rounds
from pagewalk.pages import LEVEL_SHIFT, U64, Flag, Pages, State, take
from pagewalk.proc.stall import Stall
from pagewalk.sources import SOURCES, Source

# What a table maps: one PTE table 2 MiB, one PMD table 1 GiB, one PUD table 512 GiB (x86-64).
TABLE_SHIFTS = (21, 30, 39)
GROUPED = ("size", "present", "rss", "not_present", "not_mapped", "swap", "pss", "zero")


@dataclass(frozen=True, slots=True)
class Walked:
    """One process as one source walked it.

    totals: bytes by column, None where withheld. page_tables: bytes of the process's page
    tables, None where the source does not read any. ledger: pagewalk explain's lines. groups:
    bytes by name and permissions of the VMAs. walk_ns: one walk with frames, source opened.
    held_ns: the longest read that may have held the target's lock.
    """

    totals: dict[str, int | None]
    page_tables: int | None
    ledger: list[dict[str, Any]]
    groups: list[dict[str, Any]]
    walk_ns: int
    held_ns: int


def working_sources() -> tuple[dict[str, str], list[str]]:
    """Return why each source that does not work here does not, and the names of those that do."""
    refused: dict[str, str] = {}
    for name in SOURCES:
        try:
            pagewalk.close(pagewalk.open_process(os.getpid(), name))
        except pagewalk.PagewalkError as err:
            refused[name] = str(err)
    return refused, [name for name in SOURCES if name not in refused]


def walk_by(source_name: str, pid: int) -> Walked:
    """Walk a process that holds still; the round in which least moved around it counts."""
    source = pagewalk.open_process(pid, source_name)
    try:
        table, _, lines = min(rounds(source, smaps=True), key=lambda r: doubt(r[2]))
        # Once more for the clock: all is warm now, and nothing else reads in between.
        source.stall = Stall(source.stall.budget_ns)
        begin = time.perf_counter_ns()
        pagewalk.by_vma(pagewalk.walk(source))
        walk_ns = time.perf_counter_ns() - begin
        held_ns = source.stall.longest_ns
        tables = page_tables(source, table) if source.tables else None
    finally:
        pagewalk.close(source)
    ledger = [asdict(line) for line in lines]
    return Walked(table.totals, tables, ledger, groups(table), walk_ns, held_ns)


def page_tables(source: Source, table: Table) -> int:
    """Return the bytes of PTE, PMD and PUD tables, counted as the kernel counts VmPTE.

    For each huge page of anonymous memory the kernel keeps one more PTE table in store, to be
    able to split it (pgtable_trans_huge_deposit).
    """
    walked = pagewalk.walk(source, holes=True)
    spans: list[list[U64]] = [[] for _ in TABLE_SHIFTS]
    for batch in walked.batches:
        assert isinstance(batch, Pages)
        # The gate VMA is mapped by tables of the kernel's own.
        batch = take(batch, batch.addr < np.uint64(1 << 63))
        depth = table_depth(batch)
        for level in range(len(TABLE_SHIFTS)):
            rows = depth <= level
            spans[level].append(np.stack([batch.addr[rows], (batch.addr + batch.size)[rows]], 1))
    count = sum(
        slots(np.concatenate(parts), shift)
        for parts, shift in zip(spans, TABLE_SHIFTS, strict=True)
    )
    huge = (table.totals["anon_huge"] or 0) + (table.totals["huge_zero"] or 0)
    return (count + (huge >> TABLE_SHIFTS[0])) * walked.page_size


def table_depth(rows: Pages) -> U64:
    # 0 where a row's walk passed a PTE table, 1 where it ended in a PMD table, 2 in a PUD table.
    level = (rows.flags >> np.uint32(LEVEL_SHIFT)).astype(np.uint64)
    holes = np.isin(rows.state, (State.EMPTY, State.NOT_MAPPED, State.DOUBT))
    huge = (rows.flags & np.uint32(Flag.HUGE) != 0) & ~holes
    depth = np.where(holes, np.maximum(level, np.uint64(1)) - np.uint64(1), np.uint64(0))
    depth[huge] = np.where(rows.size[huge] < np.uint64(1 << TABLE_SHIFTS[1]), 1, 2)
    return depth


def slots(spans: U64, shift: int) -> int:
    """Return how many aligned blocks of ``1 << shift`` bytes the sorted ``spans`` touch."""
    if len(spans) == 0:
        return 0
    first, last = spans[:, 0] >> np.uint64(shift), (spans[:, 1] - np.uint64(1)) >> np.uint64(shift)
    again = first[1:] == last[:-1]
    return int((last - first + np.uint64(1)).sum()) - int(again.sum())


def groups(table: Table) -> list[dict[str, Any]]:
    """Return bytes of GROUPED by name and permissions, the largest first."""
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    vmas = table.vmas
    for row, name in enumerate(vmas.name):
        key = (name, permissions(int(vmas.perms[row])))
        group = sums.setdefault(key, {"name": key[0], "perms": key[1], "vmas": 0})
        group["vmas"] += 1
        for column in GROUPED:
            values = table.columns[column]
            if values is not None:
                group[column] = group.get(column, 0) + int(values[row])
    return sorted(sums.values(), key=lambda group: -group["size"])


def permissions(perms: int) -> str:
    letters = "".join(c if perms & bit else "-" for c, bit in (("r", 1), ("w", 2), ("x", 4)))
    return letters + ("s" if perms & 8 else "p")
