"""maps --all: every field of smaps, from page tables and struct pages, with tolerance 0."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import pytest

import pagewalk
from pagewalk.account.smaps import OTHER_FIELDS, by_field, others, vmflags, with_particulars
from pagewalk.account.swap_users import count_swap_users
from pagewalk.account.table import SMAPS_FIELDS, Table
from tests.kernel_says import VmaSays, parse_smaps, read_smaps, read_status_kib, smaps_text
from tests.live.bracket import Seen, living_thread, settle, working_sources
from tests.machine import prepared
from tests.targets import TARGETS, start

pytestmark = pytest.mark.live

WORKING = [name for name in working_sources() if name != "procfs"]
# smaps adds a whole large swap entry for each of its pages (see test_exact.py).
OVERCOUNTED = {"swap_huge": "Swap"}
# How many fields each test in this run compared.
COMPARED: list[int] = []


@dataclass(frozen=True)
class Field:
    """One field of one VMA: in smaps before and after the walk, and ours (KiB or codes)."""

    name: str
    before: object
    after: object
    ours: object


def fields(table: Table, before: VmaSays, after: VmaSays, row: int) -> list[Field]:
    rows = []
    for name, column in SMAPS_FIELDS.items():
        values = table.columns[column]
        ours = None if values is None else int(values[row]) >> 10
        if name in before.fields:
            rows.append(Field(name, before.fields[name], after.fields[name], ours))
    rows.append(Field("VmFlags", before.flags, after.flags, tuple(vmflags(table, row) or ())))
    for name, key in OTHER_FIELDS.items():
        value = others(table, row)[key]
        ours = value >> 10 if value is not None and name.endswith("PageSize") else value
        said = before.fields.get(name)  # no ProtectionKey where the CPU has none
        rows.append(Field(name, said, after.fields.get(name), ours))
    return rows


def wrong_fields(pid: int, source: str) -> tuple[int, list[tuple[str, object]]]:
    """Compare every field until each held still; return how many, and each difference."""
    said = living_thread(pid)
    total = 0
    # Only its own family, which is stopped too, has entries for its swap slots.
    users = count_swap_users(source)

    def look() -> Seen[tuple[int, str]]:
        nonlocal total
        text = smaps_text(said)
        opened = pagewalk.open_process(pid, source)
        table = with_particulars(by_field(pagewalk.walk(opened), users), opened)
        pagewalk.close(opened)
        before, after = parse_smaps(text), read_smaps(said)
        differ: dict[tuple[int, str], object] = {}
        moved = set()
        for row, (first, last) in enumerate(zip(before, after, strict=True)):
            for field in fields(table, first, last, row):
                if field.before != field.after:
                    moved.add((row, field.name))
                    continue
                total += 1
                if field.ours != field.before:
                    differ[row, field.name] = f"{first.start:x} {first.name}", field
        return Seen(differ, moved)

    left = settle(look)
    return total, [(name, how) for (_, name), how in left.items()]


@pytest.mark.parametrize("source", WORKING)
@pytest.mark.parametrize("name", TARGETS)
def test_equals_smaps_in_every_field(name: str, source: str) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:
        pids = running.pids[:1] if name == "zombie" else running.pids
        for pid in pids:
            total, wrong = wrong_fields(pid, source)
            COMPARED.append(total)
            skipped = OVERCOUNTED.get(name)
            assert [how for field, how in wrong if field != skipped] == []


def test_smaps_has_no_unknown_field() -> None:
    names = {name for vma in read_smaps(os.getpid()) for name in vma.fields}
    assert names <= {*SMAPS_FIELDS, *OTHER_FIELDS}
    # These of our fields may be missing on a kernel or a CPU, and no others.
    assert {*SMAPS_FIELDS, *OTHER_FIELDS} - names <= {"KSM", "ProtectionKey"}


def test_at_least_100_000_fields_were_compared() -> None:
    assert sum(COMPARED) >= 100_000


def test_procfs_withholds_fields_that_need_page_tables() -> None:
    with start("plain", stopped=True) as running:
        table = by_field(pagewalk.walk(running.pid, source="procfs"))
    for name in ("pss_dirty", "private_dirty", "shared_clean", "referenced", "lazyfree"):
        assert table.columns[name] is None
    assert any("--source ebpf" in row.why for row in table.outcome.withheld)


def test_shared_and_private_add_up_to_rss() -> None:
    with start("fork_cow", stopped=True) as running:
        table = by_field(pagewalk.walk(running.pid, source="ebpf"))
    parts = ("shared_clean", "shared_dirty", "private_clean", "private_dirty")
    np.testing.assert_array_equal(sum(table.columns[p] for p in parts), table.columns["rss"])


@pytest.mark.parametrize("source", WORKING)
@pytest.mark.parametrize("name", ["plain", "thp", "thp_part", "huge_zero", "hugetlb_pmd",
                                  "reservation", "shmem_thp"])
def test_vmpte_is_the_tables_walked_and_the_deposits(name: str, source: str) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:
        for pid in running.pids:
            opened = pagewalk.open_process(pid, source)
            table, counted = (pagewalk.table(opened, frames=frames) for frames in (True, False))
            pagewalk.close(opened)
            tables, totals = table.outcome.page_tables, table.totals
            assert counted.outcome.page_tables == tables
            # one table for each anonymous huge page and huge zero page mapped by a PMD leaf
            deposits = ((totals["anon_huge"] or 0) + (totals["huge_zero"] or 0)) // (2 << 20) * 4096
            assert (tables or 0) + deposits == read_status_kib(pid)["VmPTE"] << 10
