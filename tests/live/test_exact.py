"""On a stopped process every number equals the kernel's own, with tolerance 0."""

from __future__ import annotations

import os
from itertools import product

import numpy as np
import pytest

import pagewalk
from pagewalk.model.columns import Pages, State
from pagewalk.model.errors import NoAddressSpace, NotPermitted, PagewalkError
from pagewalk.proc.kernel import release
from tests.kernel_says import PAGE, read_maps, read_rollup
from tests.live.bracket import Wrong, compare, smaller, working_sources
from tests.machine import prepared
from tests.targets import TARGETS, start

pytestmark = pytest.mark.live

# In a private writable mapping of shmem 6.18 adds a whole large swap entry for each of its pages:
# smaps says 2 GiB of swap for 4 MiB (smaps_pte_hole_lookup). Ours comes from cachestat.
OVERCOUNTED = {"swap_huge": "Swap"}
WORKING = working_sources()
# The short round in other kernels has each rule that differs between them once.
SHORT = {
    (name, source)
    for name in ("zero_reads", "fork_three", "thp_part", "hugetlb_fork", "swap_private", "sleep")
    for source in ("procfs", "ebpf")
} | {("fork_three", "kcore")}
PARAMETERS = [
    pytest.param(
        *case, id="-".join(case), marks=[pytest.mark.vmshort] if case in SHORT else []
    )
    for case in product(TARGETS, WORKING)
]


@pytest.mark.parametrize(("name", "source"), PARAMETERS)
def test_equals_smaps_vma_by_vma(name: str, source: str) -> None:
    args = smaller(name, source)
    with prepared(*TARGETS[name].needs), start(name, *args, stopped=True) as running:
        for pid in running.pids:
            if name == "zombie" and pid != running.pid:
                with pytest.raises(NoAddressSpace, match="zombie"):
                    pagewalk.walk(pid)
                continue
            found = compare(pid, source)
            assert found.compared > 20
            assert wrong_but(found.wrong, OVERCOUNTED.get(name)) == []
            check_closes(found.table)


@pytest.mark.parametrize("source", WORKING)
def test_huge_leaves_are_withheld_only_where_the_kernel_does_not_show_them(source: str) -> None:
    # PAGEMAP_SCAN came in 6.7.
    untold = source == "procfs" and release() < (6, 7)
    with start("plain", stopped=True) as running:
        table = pagewalk.table(running.pid, source=source)
    for name in ("anon_huge", "shmem_huge", "file_huge"):
        assert (table.columns[name] is None) == untold
    assert any("PAGEMAP_SCAN" in row.why for row in table.outcome.withheld) == untold


def test_a_page_table_reader_works_here() -> None:
    assert "ebpf" in WORKING


def wrong_but(wrong: list[Wrong], overcounted: str | None) -> list[Wrong]:
    """Leave out a field that the kernel is known to overcount, if it does overcount it."""
    return [
        row for row in wrong
        if overcounted is None
        or row.field.split()[-1] != overcounted
        or row.ours is None
        or row.theirs <= row.ours
    ]


def check_closes(table: pagewalk.Table) -> None:
    """Check that every page is in exactly one state: they add up to each VMA's size."""
    columns = table.columns
    size, present, not_present = (columns[c] for c in ("size", "present", "not_present"))
    assert size is not None and present is not None and not_present is not None
    unmapped = columns["not_mapped"]
    total = present + not_present + (0 if unmapped is None else unmapped)
    np.testing.assert_array_equal(total, size)
    kinds = ("anon", "file", "shmem", "zero", "special", "hugetlb", "device")
    np.testing.assert_array_equal(sum(columns[kind] for kind in kinds), present)


@pytest.mark.parametrize("name", ["plain", "zero_reads", "guard", "uffd_wp", "swap_private", "ksm"])
def test_regions_contain_what_the_target_says(name: str) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:
        table = pagewalk.table(running.pid)
        for region, facts in running.facts.items():
            inside = (table.vmas.start >= facts["start"]) & (table.vmas.end <= facts["end"])
            for state in ("anon", "zero", "guard", "marker", "swapped"):
                column = table.columns["swap_private" if state == "swapped" else state]
                assert column is not None
                assert int(column[inside].sum()) == facts.get(state, 0) * PAGE, (region, state)


def test_every_process_of_this_machine() -> None:
    walked = refused = 0
    for pid in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        try:
            table = pagewalk.table(pid)
        except NotPermitted as err:
            assert "security module" in str(err)
            refused += 1
            continue
        except PagewalkError:
            continue  # a kernel thread, or gone: an error of ours, not a traceback
        walked += 1
        check_closes(table)
        assert table.totals["pss"] is not None and table.totals["rss"] is not None
        assert 0 <= (table.totals["uss"] or 0) <= table.totals["pss"] <= table.totals["rss"]
    assert walked >= 2
    assert refused <= 1


@pytest.mark.parametrize("source", WORKING)
def test_page_by_page_adds_up_to_the_table(source: str) -> None:
    with start("fork_cow", stopped=True) as running:
        table = pagewalk.table(running.pid, source=source)
        walked = pagewalk.walk(running.pid, source=source, holes=True)
        end = 0
        by_state = dict.fromkeys(State, 0)
        for batch in walked:
            assert isinstance(batch, Pages)
            assert int(batch.addr[0]) >= end
            assert (batch.addr[1:] >= batch.addr[:-1] + batch.size[:-1]).all()
            end = int(batch.addr[-1] + batch.size[-1])
            for state in State:
                by_state[state] += int(batch.size[batch.state == state].sum())
    assert sum(by_state.values()) == table.totals["size"]
    assert by_state[State.ANON] == table.totals["anon"]
    assert by_state[State.FILE] == table.totals["file"]
    assert by_state[State.EMPTY] + by_state[State.ABSENT] == table.totals["not_present"]
    assert by_state[State.NOT_MAPPED] == (table.totals["not_mapped"] or 0)


@pytest.mark.parametrize("source", WORKING)
@pytest.mark.parametrize("name", ["zero_reads", "huge_zero", "thp_part", "hugetlb_fork",
                                  "perf_ring", "swap_private", "guard", "runs", "packet_ring"])
def test_counting_without_frames_returns_the_same_numbers(name: str, source: str) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:
        full = pagewalk.table(running.pid, source=source).columns
        fast = pagewalk.table(running.pid, source=source, frames=False).columns
    for name in ("size", "present", "rss", "not_present", "zero", "hugetlb", "swap"):
        np.testing.assert_array_equal(full[name], fast[name], name)
    assert fast["pss"] is None and fast["anon"] is None


def test_a_sparse_reservation_is_walked_completely() -> None:
    with start("reservation", stopped=True) as running:
        region = next(iter(running.facts.values()))
        table = pagewalk.table(running.pid)
        inside = (table.vmas.start >= region["start"]) & (table.vmas.end <= region["end"])
        anon = table.columns["anon"]
        assert anon is not None
        assert int(anon[inside].sum()) == region["anon"] * PAGE
        # not VmRSS: up to 6.17 that counter lags
        assert table.totals["rss"] == read_rollup(running.pid)["Rss"] << 10
        assert len(read_maps(running.pid)) == len(table.vmas)
