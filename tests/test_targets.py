"""Each target provokes what it says, according to the kernel's own files, not to pagewalk.

The kernel may move a page between the looks at pagemap and at its frame: then a test looks again.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests import kernel_says
from tests.live.bracket import looking_again
from tests.targets import STATES, TARGETS, start

pytestmark = pytest.mark.live

Fact = dict[str, Any]
Prepare = Callable[..., None]

PAGE = 4096
KIB = PAGE // 1024
HUGE_FIELDS = ("AnonHugePages", "ShmemPmdMapped", "FilePmdMapped")
# 2^32 entries would be 32 GiB of pagemap; its own test reads smaps.
WITHOUT_PAGEMAP = {"reservation"}
# Linux 6.12 to 6.18 at least count a large swap entry once for each of its pages there.
OVERCOUNTED = {("swap_huge", "copy")}


def regions(facts: dict[str, Fact]) -> list[tuple[str, Fact]]:
    # An arena of churn has an address but no states: it changes all the time.
    return [(name, fact) for name, fact in facts.items() if set(fact) & set(STATES)]


def task(fact: Fact) -> int:
    # /proc shows nothing for a leader that has exited; any live thread's id will do.
    tid: int = fact["tid"] if "tid" in fact else fact["pid"]
    return tid


def smaps_of(fact: Fact) -> kernel_says.VmaSays:
    return kernel_says.vma_at(kernel_says.read_smaps(task(fact)), fact["start"])


def present_entries(fact: Fact) -> np.ndarray:
    entries = kernel_says.read_pagemap(task(fact), fact["start"], fact["end"])
    here: np.ndarray = entries[entries & kernel_says.PRESENT != 0]
    return here


@pytest.mark.parametrize("name", sorted(TARGETS))
@looking_again
def test_every_page_is_in_the_stated_state(name: str, prepare: Prepare) -> None:
    prepare(*TARGETS[name].needs)
    with start(name, stopped=True) as running:
        for region, fact in regions(running.facts):
            vma = smaps_of(fact)
            stated = {state: fact[state] for state in STATES if fact.get(state)}
            assert (vma.start, vma.end) == (fact["start"], fact["end"]), region
            assert sum(stated.values()) * PAGE == vma.end - vma.start, region
            if name in WITHOUT_PAGEMAP:
                continue
            seen = kernel_says.count_states(task(fact), vma.start, vma.end)
            if "pf" in vma.flags:
                # The kernel does not show such entries at all.
                seen["special"] = seen.pop("empty")
            assert seen == stated, region


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_smaps_agrees(name: str, prepare: Prepare) -> None:
    prepare(*TARGETS[name].needs)
    with start(name, stopped=True) as running:
        for region, fact in regions(running.facts):
            fields = smaps_of(fact).fields
            pages = {state: fact.get(state, 0) for state in (*STATES, "shmem_swapped")}
            in_ram = pages["anon"] + pages["file"] + pages["shmem"]
            assert fields["Rss"] == in_ram * KIB, region
            assert fields["Anonymous"] == pages["anon"] * KIB, region
            assert fields["Private_Hugetlb"] + fields["Shared_Hugetlb"] == pages["hugetlb"] * KIB
            if (name, region) not in OVERCOUNTED:
                assert fields["Swap"] == (pages["swapped"] + pages["shmem_swapped"]) * KIB, region


# What the other keys of a fact must equal: sums of these fields of smaps.
DETAILS = {
    "locked": ("Locked",),
    "lazyfree": ("LazyFree",),
    "ksm": ("KSM",),
    "private": ("Private_Hugetlb",),
    "pmd_mapped": HUGE_FIELDS,
}
DETAILED = {
    "locked": ("locked", "secret"),
    "lazyfree": ("lazyfree", "droppable"),
    "ksm": ("ksm",),
    "private": ("hugetlb_private", "hugetlb_shared", "hugetlb_fork", "hugetlb_pmd"),
    "pmd_mapped": ("thp", "thp_part", "thp_fork", "thp_split", "thp_holes", "thp_moved",
                   "thp_half", "shmem_thp", "file_thp"),
}


@pytest.mark.parametrize(
    ("key", "name"), [(key, name) for key, names in DETAILED.items() for name in names]
)
def test_details_agree_with_smaps(key: str, name: str, prepare: Prepare) -> None:
    prepare(*TARGETS[name].needs)
    with start(name, stopped=True) as running:
        for region, fact in regions(running.facts):
            fields = smaps_of(fact).fields
            assert sum(fields[field] for field in DETAILS[key]) == fact[key] * KIB, region


@pytest.mark.parametrize("name", ["fork_cow", "fork_three", "shared_fork", "thp_part", "thp_fork"])
@looking_again
def test_mapcounts_are_as_stated_and_so_is_pss(name: str, prepare: Prepare) -> None:
    prepare(*TARGETS[name].needs)
    with start(name, stopped=True) as running:
        for region, fact in regions(running.facts):
            stated = {n: fact.get(f"mapped_by_{n}", 0) for n in range(1, 5)}
            counts = kernel_says.read_counts(present_entries(fact) & kernel_says.PFN)
            assert {n: int((counts == n).sum()) for n in stated} == stated, region
            # Each page adds a share with 12 fractional bits; the sum is truncated to KiB.
            shares = sum(pages * ((PAGE << 12) // n) for n, pages in stated.items())
            assert smaps_of(fact).fields["Pss"] == shares >> 22, region


@looking_again
def test_swap_slots_are_shared_by_three(prepare: Prepare) -> None:
    prepare("zram")
    with start("swap_forked", stopped=True) as running:
        assert len(running.facts) == len(running.pids) == 3
        for region, fact in regions(running.facts):
            assert fact["slots_of_3"] + fact["slots_of_2"] == fact["swapped"], region
            shares = sum(fact[f"slots_of_{n}"] * ((PAGE << 12) // n) for n in (2, 3))
            assert smaps_of(fact).fields["SwapPss"] == shares >> 22, region
            flags = kernel_says.read_folio_flags(present_entries(fact) & kernel_says.PFN)
            cached = (flags & kernel_says.KPF_SWAPCACHE != 0).sum()
            assert cached == fact.get("swapcache", 0), region


@pytest.mark.parametrize("name", ["swap_private", "swap_shmem", "swap_mixed"])
def test_vmswap_counts_private_swap_only(name: str, prepare: Prepare) -> None:
    prepare("zram")
    with start(name, stopped=True) as running:
        private = sum(fact.get("swapped", 0) for _, fact in regions(running.facts))
        assert kernel_says.read_status_kib(running.pid)["VmSwap"] == private * KIB


def test_smaps_overcounts_huge_swap_entries(prepare: Prepare) -> None:
    prepare(*TARGETS["swap_huge"].needs)
    with start("swap_huge", stopped=True) as running:
        copy = running.facts["copy"]
        excess = smaps_of(copy).fields["Swap"] // KIB - copy["shmem_swapped"]
        # Each hole whose page is in an entry of 512 adds 511 too many; 0 without the bug.
        assert excess in (0, copy["shmem_swapped"] * 511)


@looking_again
def test_uffd_marks_pages_and_holes(prepare: Prepare) -> None:
    prepare("userfaultfd")
    with start("uffd_wp", stopped=True) as running:
        for region, fact in regions(running.facts):
            entries = kernel_says.read_pagemap(fact["pid"], fact["start"], fact["end"])
            marked = (entries & kernel_says.UFFD_WP != 0).sum()
            assert marked == fact["uffd_wp"] == 32, region


@looking_again
def test_huge_zero_page_is_one_frame_run(prepare: Prepare) -> None:
    prepare("thp")
    with start("huge_zero", stopped=True) as running:
        frames = present_entries(running.facts["zeroes"]) & kernel_says.PFN
        assert (np.diff(frames) == 1).all()
        assert len(frames) == running.facts["zeroes"]["pmd_zero"] == 512


@looking_again
def test_a_gib_of_hugetlb_is_one_mapping_of_one_page(prepare: Prepare) -> None:
    prepare("hugetlb_gib")
    with start("hugetlb_pud", stopped=True) as running:
        fact = running.facts["gib"]
        frames = present_entries(fact) & kernel_says.PFN
        assert frames[0] % len(frames) == 0 and (np.diff(frames) == 1).all()
        assert (kernel_says.read_counts(frames) == 1).all()
        assert smaps_of(fact).fields["KernelPageSize"] == 1 << 20
        assert kernel_says.read_status_kib(running.pid)["HugetlbPages"] == 1 << 20


@looking_again
def test_hugetlb_table_is_shared(prepare: Prepare) -> None:
    prepare("hugetlb")
    with start("hugetlb_pmd", stopped=True) as running:
        for _, fact in regions(running.facts):
            entries = present_entries(fact)
            # The mapcount is 1, although smaps calls all of it shared.
            assert (kernel_says.read_counts(entries & kernel_says.PFN) == 1).all()
            assert not (entries & kernel_says.ONCE).any()
            assert smaps_of(fact).fields["Shared_Hugetlb"] == fact["hugetlb"] * KIB


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("perf_ring", "pf"),
        ("packet_ring", "mm"),
        ("secret", "lo"),
        ("droppable", "dp"),
        ("hugetlb_shared", "ht"),
        ("uffd_wp", "uw"),
        ("ksm", "mg"),
    ],
)
def test_vma_has_the_flag(name: str, flag: str, prepare: Prepare) -> None:
    prepare(*TARGETS[name].needs)
    with start(name, stopped=True) as running:
        for region, fact in regions(running.facts):
            assert flag in smaps_of(fact).flags, region


@pytest.mark.parametrize("count", [511, 512, 513, 1025, 65536])
@looking_again
def test_runs_has_that_many_runs(count: int) -> None:
    with start("runs", count, stopped=True) as running:
        fact = running.facts["runs"]
        here = kernel_says.read_pagemap(fact["pid"], fact["start"], fact["end"])
        here = here & kernel_says.PRESENT != 0
        assert int(here[0]) + int((~here[:-1] & here[1:]).sum()) == count == fact["anon"]


def test_reservation_is_sixteen_tib_with_a_thousand_pages() -> None:
    with start("reservation") as running:
        fact = running.facts["reserved"]
        assert fact["end"] - fact["start"] == 16 << 40
        assert fact["anon"] == 1000
        last = kernel_says.read_pagemap(running.pid, fact["end"] - PAGE, fact["end"])
        assert last[0] & kernel_says.PRESENT


def test_vmas_has_that_many_vmas() -> None:
    with start("vmas", stopped=True) as running:
        area = running.facts["area"]
        vmas = [
            vma
            for vma in kernel_says.read_smaps(running.pid)
            if area["start"] <= vma.start < area["end"]
        ]
        assert len(vmas) == area["vmas"] == 3000
        assert all(vma.fields["Rss"] == vma.fields["Size"] == KIB for vma in vmas)


def test_batching_makes_stat_and_statm_differ() -> None:
    with start("batching", stopped=True) as running:
        seen = kernel_says.read_statm(running.pid)["resident"]
        smaps = sum(vma.fields["Rss"] for vma in kernel_says.read_smaps(running.pid))
        assert seen == smaps // KIB
        assert seen - kernel_says.read_stat_rss(running.pid) >= 16


def test_names_are_awkward() -> None:
    endings = {
        "spaces": "/two  spaces.dat",
        "newline": "/new\nline.dat",
        "deleted": "/looks (deleted)",
        "unlinked": "/gone.dat (deleted)",
        "backslash": "/back\n" + "slash.dat",  # the maps file writes a newline the same way
    }
    with start("names", stopped=True) as running:
        assert set(running.facts) == set(endings)
        for region, ending in endings.items():
            assert smaps_of(running.facts[region]).name.endswith(ending)
