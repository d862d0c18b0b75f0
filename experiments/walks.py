"""What pagewalk says about a process, by every source that works here."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pagewalk
from pagewalk.account.ledger import Line
from pagewalk.account.table import Table
from pagewalk.commands.explain import doubt, looks
from pagewalk.sources import SOURCES

# Parts of names that differ from run to run: suffixes of temporary directories, and numbers.
CHANCE = re.compile(r"(?<=experiments)-\w{8}|(?<=zoo)-\w{8}|(?<=/tmp)\w{8}|(?<=SQL)\.\d+")
# How often to look again while other processes map and unmap the same pages.
ROUNDS = 8
GROUPED = ("size", "present", "rss", "not_present", "not_mapped", "swap", "pss", "zero")


@dataclass(frozen=True, slots=True)
class Walked:
    """One process as one source walked it.

    totals: bytes by column, None where withheld. page_tables: bytes of the process's page
    tables, None if the source does not read any. lines, equal, open: how many lines the ledger
    has, how many of them agree, how many are unexplained; causes: how many lines each occurs in.
    walk_ns: one walk with frames, without opening the source. held_ns: the longest read that may
    have held the target's lock. ledger: the lines of pagewalk explain; groups: bytes by name and
    permissions of the VMAs; both are kept for the last run only.
    """

    totals: dict[str, int | None]
    page_tables: int | None
    lines: int
    equal: int
    open: int
    causes: dict[str, int]
    walk_ns: int
    held_ns: int
    ledger: list[dict[str, Any]]
    groups: list[dict[str, Any]]


def working_sources() -> tuple[dict[str, str], list[str]]:
    """Return why some sources do not work here, by name, and the names of those that do."""
    refused: dict[str, str] = {}
    for name in SOURCES:
        try:
            pagewalk.close(pagewalk.open_process(os.getpid(), name))
        except pagewalk.PagewalkError as err:
            refused[name] = str(err)
    return refused, [name for name in SOURCES if name not in refused]


def walk_by(source_name: str, pid: int) -> Walked:
    """Walk a stopped process; the round during which least moved counts."""
    source = pagewalk.open_process(pid, source_name)
    try:
        some = islice(looks(source, smaps=True), ROUNDS)
        table, _, lines = min(some, key=lambda look: doubt(look.lines))
        # Once more, timed: caches are warm now, and nothing else reads in between.
        stall = source.outcome().stall
        stall.longest_ns = 0
        begin = time.perf_counter_ns()
        again = pagewalk.table(source)
        walk_ns = time.perf_counter_ns() - begin
        held_ns = stall.longest_ns
        tables = again.outcome.page_tables
    finally:
        pagewalk.close(source)
    return Walked(
        totals=table.totals,
        page_tables=tables,
        lines=len(lines),
        equal=sum(line.ours == line.theirs for line in lines),
        # None is a line of which the source withholds one side.
        open=sum(line.unexplained != 0 for line in lines),
        causes=dict(Counter(cause.cause for line in lines for cause in line.causes)),
        walk_ns=walk_ns,
        held_ns=held_ns,
        ledger=[row_of(line) for line in lines],
        groups=groups(table),
    )


def groups(table: Table) -> list[dict[str, Any]]:
    """Return bytes of GROUPED by name and permissions, the largest first."""
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    vmas = table.vmas
    for row, name in enumerate(vmas.name):
        key = (CHANCE.sub("", name), permissions(int(vmas.perms[row])))
        group = sums.setdefault(key, {"name": key[0], "perms": key[1], "vmas": 0})
        group["vmas"] += 1
        for column in GROUPED:
            values = table.columns[column]
            if values is not None and values[row]:
                group[column] = group.get(column, 0) + int(values[row])
    return sorted(sums.values(), key=lambda g: (-g["size"], g["name"], g["perms"]))


def permissions(perms: int) -> str:
    letters = "".join(c if perms & bit else "-" for c, bit in (("r", 1), ("w", 2), ("x", 4)))
    return letters + ("s" if perms & 8 else "p")


def row_of(line: Line) -> dict[str, Any]:
    return {**line._asdict(), "causes": [cause._asdict() for cause in line.causes]}
