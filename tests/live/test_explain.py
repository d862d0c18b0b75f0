"""The ledger closes on every stopped target, and each cause has the size that the target made."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagewalk.proc.kernel import release
from tests import kernel_says
from tests.kernel_says import PAGE
from tests.live.bracket import living_thread, look_again, looks, smaller, working_sources
from tests.live.command import Ran, pagewalk, pagewalk_here
from tests.machine import prepared
from tests.targets import TARGETS, Running, start

pytestmark = pytest.mark.live

KIB = 1024
PMD = 512 * PAGE
SHORT = ("zero_reads",)
PARAMETERS = [
    pytest.param(name, marks=[pytest.mark.vmshort] if name in SHORT else []) for name in TARGETS
]
SHMEM_SWAP = ("swap_shmem", "swap_mixed", "swap_huge")
TELLS_HUGE = "procfs" if release() >= (6, 7) else "ebpf"  # procfs needs PAGEMAP_SCAN
TELLS_SHMEM_SWAP = "procfs" if release() >= (6, 5) else "ebpf"  # procfs needs cachestat(2)
# What may be in a stopped process's ledger without being exact: other processes map the same pages,
# and the kernel itself reads some counters approximately.
BOUNDED = {
    "foreign_mapcount_change", "rollup_mapcount_change", "hugetlb_pmd_shared", "stat_batching",
    "device_page",
    "locked_vm_leak",
    "counter_batching", "counters_batching", "shared_batching", "smaps_large_shmem_swap_overcount",
}


def explain(pid: int, source: str = "procfs") -> Ran:
    return pagewalk_here("explain", pid, "--format", "json", "--source", source)


def check_adds_up(ledger: list[dict[str, Any]]) -> None:
    for line in ledger:
        if line["ours"] is None:  # known from page tables only
            assert line["against"] == "smaps LazyFree"
            assert (line["causes"], line["unexplained"]) == ([], None)
            continue
        named = sum(cause["bytes"] for cause in line["causes"])
        assert line["ours"] - line["theirs"] == named + line["unexplained"], line
        for cause in line["causes"]:
            assert cause["bytes"] != 0, line
            assert cause["exact"] or abs(cause["bytes"]) <= cause["bound"], line


def lines(ran: Ran) -> dict[str, dict[str, Any]]:
    """Return the lines of a ledger that closes, by what they are compared with."""
    assert ran.code == 0, ran.err
    ledger = ran.json["ledger"]
    check_adds_up(ledger)
    assert [line for line in ledger if line["unexplained"]] == []
    return {line["against"]: line for line in ledger}


def beyond_rss(ran: Ran) -> dict[str, int]:
    """Return what is in present and not in rss, where each is compared with its own number."""
    against = lines(ran)
    for name in ("status VmRSS", "statm resident (top RES)", "smaps Rss", "smaps_rollup Rss"):
        assert against[name]["ours_is"] == "rss"
        assert not [cause for cause in against[name]["causes"] if cause["exact"]], name
    return {row["part"]: row["bytes"] for row in ran.json["beyond_rss"]}


def causes(line: dict[str, Any]) -> dict[str, int]:
    return {cause["cause"]: cause["bytes"] for cause in line["causes"]}


def counted(running: Running, state: str) -> int:
    """Return the bytes in a state over the whole process, counted from pagemap and kpageflags."""
    # The gate VMA is above the addresses that pagemap covers.
    vmas = [vma for vma in kernel_says.read_maps(running.pid) if vma.start < 1 << 63]
    states = [kernel_says.count_states(running.pid, vma.start, vma.end) for vma in vmas]
    return sum(found.get(state, 0) for found in states) * PAGE


@pytest.mark.parametrize("source", working_sources())
@pytest.mark.parametrize("name", PARAMETERS)
def test_closes_on_a_stopped_process(name: str, source: str) -> None:
    args = smaller(name, source)
    with prepared(*TARGETS[name].needs), start(name, *args, stopped=True) as running:
        thread = living_thread(running.pid)
        ran = explain(running.pid, source)
        if name in SHMEM_SWAP and source == "procfs" != TELLS_SHMEM_SWAP:
            assert ran.code == 3 and "swap of shmem: only cachestat(2)" in ran.err
            return
        ledger = lines(ran)
        status = kernel_says.read_status_kib(thread)
        smaps = kernel_says.read_smaps(thread)
    assert {c["cause"] for x in ledger.values() for c in x["causes"] if not c["exact"]} <= BOUNDED
    for key in ("VmSize", "VmRSS", "RssAnon", "RssFile", "RssShmem", "VmSwap", "VmLck"):
        assert ledger[f"status {key}"]["theirs"] == status[key] * KIB
    for key in ("Size", "Rss", "Anonymous", "Swap", "Locked"):
        if (key, name) != ("Locked", "locked_all"):  # PSS of libc's pages, which others map too
            said = sum(v.fields[key] for v in smaps) * KIB
            assert ledger[f"smaps {key}"]["theirs"] == said


def test_zero_page() -> None:
    with start("zero_reads", stopped=True) as running:
        parts = beyond_rss(explain(running.pid))
        zero = counted(running, "zero")
    assert zero >= running.facts["zeroes"]["zero"] * PAGE > 0
    assert parts["zero_page"] == zero


def test_huge_zero_page() -> None:
    with prepared("thp"), start("huge_zero", stopped=True) as running:
        parts = beyond_rss(explain(running.pid, TELLS_HUGE))
    assert running.facts["zeroes"]["pmd_zero"] * PAGE == PMD
    assert parts["huge_zero_page"] == PMD


def test_ksm_merged_zero_pages_are_zero_pages() -> None:
    with prepared("ksm"), start("ksm", stopped=True) as running:
        parts = beyond_rss(explain(running.pid))
        zero = counted(running, "zero")
    assert zero >= running.facts["ksm"]["zero"] * PAGE == 20 * PAGE
    assert parts["zero_page"] == zero


def test_hugetlb() -> None:
    with prepared("hugetlb"), start("hugetlb_private", stopped=True) as running:
        ran = explain(running.pid)
        ledger = lines(ran)
        said = kernel_says.read_status_kib(running.pid)["HugetlbPages"] * KIB
    assert beyond_rss(ran)["hugetlb"] == said == 2 * PMD
    assert ledger["status HugetlbPages"]["ours"] == said
    assert ledger["status HugetlbPages"]["causes"] == []


def test_hugetlb_pmd_shared() -> None:
    with prepared("hugetlb"), start("hugetlb_pmd", stopped=True) as running:
        missing = {}
        for pid in running.pids:
            line = lines(explain(pid))["status HugetlbPages"]
            said = kernel_says.read_status_kib(pid)["HugetlbPages"] * KIB
            assert line["theirs"] == said
            assert line["ours"] == 3 * PMD
            missing[pid] = causes(line).get("hugetlb_pmd_shared", 0)
            assert missing[pid] == 3 * PMD - said
    # Three pages in one shared table: what one process is not charged for, the other is.
    assert sum(missing.values()) == 3 * PMD


def test_gate_vma() -> None:
    with start("plain", stopped=True) as running:
        ledger = lines(explain(running.pid))
        gates = [v for v in kernel_says.read_maps(running.pid) if v.name == "[vsyscall]"]
    size = sum(gate.end - gate.start for gate in gates)
    for against in ("status VmSize", "statm size", "stat vsize"):
        assert causes(ledger[against]).get("gate_vma", 0) == size
    assert ledger["pmap total"]["causes"] == []


@pytest.mark.skipif("ebpf" not in working_sources(), reason="no source reads page tables here")
def test_special_mapping() -> None:
    # Every page of a PFN map has a special entry, which no counter of the kernel includes. (A perf
    # ring is ordinary pages in 6.12.)
    with start("perf_ring", stopped=True) as running:
        parts = beyond_rss(explain(running.pid, "ebpf"))
        ours = pagewalk_here("maps", running.pid, "--format", "json", "--source", "ebpf").json
        smaps = kernel_says.read_smaps(running.pid)
    ring = running.facts["ring"]["start"]
    special = {int(v["start"], 16): v["special"] for v in ours["vmas"] if v["special"]}
    mapped = running.facts["ring"]["special"] * PAGE
    assert special.get(ring, 0) == (mapped if ring in pfn_maps(smaps) else 0)
    assert all("pf" in kernel_says.vma_at(smaps, start).flags for start in special)
    assert parts.get("special_mapping", 0) == sum(special.values())


def pfn_maps(smaps: list[kernel_says.VmaSays]) -> dict[int, int]:
    """Return the end of each PFN map by its start: perhaps the ring, and [vvar] on any kernel."""
    return {vma.start: vma.end for vma in smaps if "pf" in vma.flags}


def test_special_mapping_is_hidden_from_procfs() -> None:
    # pagemap shows nothing for a PFN map, so the pages are on neither side of any line.
    with start("perf_ring", stopped=True) as running:
        maps = pfn_maps(kernel_says.read_smaps(running.pid))
        for begin, end in maps.items():
            entries = kernel_says.read_pagemap(running.pid, begin, end)
            assert not (entries & (kernel_says.PRESENT | kernel_says.SWAP)).any()
        parts = beyond_rss(explain(running.pid))
        ours = pagewalk_here("maps", running.pid, "--format", "json", "--source", "procfs").json
    assert "special_mapping" not in parts
    rows = {begin: row for row in ours["vmas"] if (begin := int(row["start"], 16)) in maps}
    assert rows.keys() == maps.keys() and maps
    for begin, row in rows.items():
        assert (row["present"], row["rss"], row["size"]) == (0, 0, maps[begin] - begin)


def pss_of(pid: int) -> list[int]:
    """Return the PSS of each VMA in 1/4096 bytes: smaps_account of fs/proc/task_mmu.c."""
    said = []
    for vma in kernel_says.read_maps(pid):
        if vma.start >= 1 << 63:
            continue
        entry = kernel_says.read_pagemap(pid, vma.start, vma.end)
        frames = entry[entry & kernel_says.PRESENT != 0] & kernel_says.PFN
        flags = kernel_says.read_folio_flags(frames)
        frames = frames[flags & kernel_says.KPF_ZERO == 0]
        counts = kernel_says.read_counts(frames).tolist()
        said.append(sum((PAGE << 12) // max(1, count) for count in counts))
    return said


def test_pss_truncation() -> None:
    with start("fork_three", stopped=True) as running:
        look_again(lambda: check_truncation(running.pid))


def check_truncation(pid: int) -> None:
    # Others map and unmap libc's pages: what held still during the command must be what it said.
    before = pss_of(pid)
    ledger = lines(explain(pid))
    assert before == pss_of(pid)
    ours = sum(before) >> 12
    whole_kib = sum(fixed >> 22 for fixed in before) * KIB
    # Seven pages divided by three: 9557 bytes, which smaps prints as 9 kB.
    assert ours > whole_kib
    assert ledger["smaps Pss"]["ours"] == ours
    # libc may have frames that the kernel's frame database does not know.
    by_vma, at_once = (
        {cause: amount for cause, amount in causes(ledger[line]).items() if cause != "device_page"}
        for line in ("smaps Pss", "smaps_rollup Pss")
    )
    assert by_vma == {"pss_truncation_by_vma": ours - whole_kib}
    assert at_once == ({"pss_truncation": ours % KIB} if ours % KIB else {})


def test_shmem_swap() -> None:
    with prepared("zram"), start("swap_shmem", stopped=True) as running:
        ledger = lines(explain(running.pid, TELLS_SHMEM_SWAP))
        swapped = sum(fact.get("shmem_swapped", 0) for fact in running.facts.values()) * PAGE
        private = kernel_says.read_status_kib(running.pid)["VmSwap"] * KIB
    assert swapped == (48 + 48 + 24) * PAGE
    assert causes(ledger["status VmSwap"])["shmem_swap"] == swapped
    assert ledger["smaps Swap"]["ours"] == swapped + private
    assert ledger["smaps Swap"]["causes"] == []


def test_smaps_large_shmem_swap_overcount() -> None:
    with prepared("zram", "shmem_thp"), start("swap_huge", stopped=True) as running:
        ledger = lines(explain(running.pid, TELLS_SHMEM_SWAP))
        swapped = sum(fact["shmem_swapped"] for fact in running.facts.values()) * PAGE
        said = sum(vma.fields["Swap"] for vma in kernel_says.read_smaps(running.pid)) * KIB
        private = kernel_says.read_status_kib(running.pid)["VmSwap"] * KIB
    ours = swapped + private
    assert ledger["smaps Swap"]["ours"] == ours
    excess = {"smaps_large_shmem_swap_overcount": ours - said} if said != ours else {}
    assert causes(ledger["smaps Swap"]) == excess
    # Each page adds the whole entry of 2**order pages, so it overcounts by (2**order - 1).
    assert excess == {} or (said - ours) % ((512 - 1) * PAGE) == 0


def test_stat_batching() -> None:
    with start("batching", stopped=True) as running:
        line = lines(explain(running.pid))["stat rss"]
        statm = kernel_says.read_statm(running.pid)["resident"]
        lag = statm - kernel_says.read_stat_rss(running.pid)
        zero = counted(running, "zero")
    assert causes(line)["stat_batching"] == line["ours"] - line["theirs"] - zero
    if lag >= 16:  # statm is an exact sum since 6.18; before that both lag equally
        assert causes(line)["stat_batching"] == lag * PAGE


def test_locked_and_swapped_pages_need_no_cause() -> None:
    with start("locked", stopped=True) as running:
        line = lines(explain(running.pid))["smaps Locked"]
    assert line["ours"] == sum(f.get("locked", 0) for f in running.facts.values()) * PAGE > 0
    assert line["causes"] == []


@pytest.mark.parametrize("source", working_sources())
def test_locked_vm_leak(source: str) -> None:
    with start("locked_leak", stopped=True) as running:
        line = lines(explain(running.pid, source))["status VmLck"]
        smaps = kernel_says.read_smaps(running.pid)
        said = kernel_says.read_status_kib(running.pid)["VmLck"] * KIB
    pages = running.facts["leak"]["pages"]
    assert not any("lo" in vma.flags for vma in smaps)
    # A kernel with a fix counts nothing, and needs no cause.
    assert said in (pages * PAGE, 0)
    assert (line["ours"], line["theirs"]) == (0, said)
    assert causes(line) == ({"locked_vm_leak": -said} if said else {})


@pytest.mark.parametrize("source", working_sources())
def test_locked_has_the_same_causes_as_pss(source: str) -> None:
    # All of it is locked, including libc, whose pages others map and the frame database may not
    # know.
    with start("locked_all", stopped=True) as running:
        for _ in range(5):
            ledger = lines(explain(running.pid, source))
            locked, pss = ledger["smaps Locked"], ledger["smaps Pss"]
            assert 0 < locked["theirs"] <= pss["theirs"]
            assert set(causes(locked)) <= {
                "locked_truncation", "device_page", "foreign_mapcount_change"
            }


@pytest.mark.parametrize("source", working_sources())
def test_the_ledger_of_a_changing_process_is_never_said_to_close(source: str) -> None:
    named = False
    with start("churn", 2) as running:
        for _ in looks():
            ran = explain(running.pid, source)
            ledger = ran.json["ledger"]
            check_adds_up(ledger)
            open_lines = [line for line in ledger if line["unexplained"]]
            assert ran.code == 4 if open_lines else ran.code in (0, 3)
            assert ("unexplained: " in ran.err) == bool(open_lines)
            found = itertools.chain.from_iterable(causes(line) for line in ledger)
            # Two threads keep mapping and unmapping up to 4 MiB, if the scheduler lets them.
            if named := bool(open_lines) or "concurrent_change" in found:
                break
    assert named


def test_the_screen_says_why_and_freeze_makes_it_close() -> None:
    with start("churn", 2) as running:
        ran = pagewalk("explain", running.pid, "--freeze")
        assert kernel_says.read_status(running.pid)["State"][0] not in "Tt"
    assert ran.code == 0, ran.out
    assert "gate_vma: " in ran.out or not Path("/proc/self/maps").read_text().count("[vsyscall]")
    assert "pss_truncation" in ran.out


def test_without_smaps_nothing_holds_the_lock() -> None:
    with start("plain", stopped=True) as running:
        ran = pagewalk("explain", running.pid, "--no-smaps", "--format", "json")
    against = [line["against"] for line in ran.json["ledger"]]
    assert ran.code == 0
    assert not any(name.startswith(("smaps", "pmap")) for name in against)
    assert "status VmRSS" in against


def test_pss_rule_of_this_file() -> None:
    """The oracle above against smaps: each VMA's Pss, on a process that shares no pages."""
    with start("plain", stopped=True) as running:
        anon = [v for v in kernel_says.read_smaps(running.pid) if not v.inode and v.start < 1 << 63]
        said = dict(zip((v.start for v in kernel_says.read_maps(running.pid)), pss_of(running.pid),
                        strict=False))
    private = [v for v in anon if not v.name]
    assert private
    np.testing.assert_array_equal(
        [said[v.start] >> 22 for v in private], [v.fields["Pss"] for v in private]
    )
