"""Accounting: the hand-made walk against figures worked out on paper, random walks against the rule
of smaps written down page by page (fs/proc/task_mmu.c: smaps_account, smaps_page_accumulate).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import strategies as st

from pagewalk.account import smaps
from pagewalk.account import table as account
from pagewalk.account.table import COLUMNS, TOTALS, Table, by_vma
from pagewalk.model.bits import KPF
from pagewalk.model.columns import READ, Amounts, Backing, Flag, State, VMAs, Withheld
from tests import by_hand
from tests.by_hand import HERE, ONCE, PAGE, SOFT, THP, VMAS, Row
from tests.properties import always

# By VMA: program, heap, memfd, big. The program's second page is mapped three times:
# 4096 + 4096 // 3 = 5461 bytes of PSS; the heap's pages 1, 2 and 4 times: 4096 + 2048 + 1024.
ON_PAPER = {
    "size": (16384, 24576, 12288, 2 * THP),
    "present": (8192, 12288, 8192, THP),
    "rss": (8192, 12288, 4096, THP),
    "not_present": (8192, 12288, 4096, THP),
    "swap": (0, 4096, 0, 0),
    "pss": (5461, 7168, 2048, THP),
    "uss": (4096, 4096, 0, THP),
    "distinct": (8192, 12288, 4096, THP),
    # The program's pages stay in the page cache; the heap's second and third pages are mapped
    # elsewhere too, and so is the memfd's.
    "freed": (0, 4096, 0, THP),
    "anon": (0, 12288, 0, THP),
    "file": (8192, 0, 0, 0),
    "shmem": (0, 0, 4096, 0),
    "zero": (0, 0, 4096, 0),
    "ksm": (0, 4096, 0, 0),
    "anon_huge": (0, 0, 0, THP),
    "marker": (0, 0, 4096, 0),
    "swap_private": (0, 4096, 0, 0),
}
TABLES_ONLY = {c.name for c in COLUMNS if c.name.startswith(("not_mapped", "empty"))}
NOTHING = {c.name for c in COLUMNS} - set(ON_PAPER) - TABLES_ONLY


def column(table: Table, name: str) -> list[int]:
    values = table.columns[name]
    assert values is not None
    return values.tolist()


@pytest.mark.parametrize("name", ON_PAPER)
def test_every_amount_is_the_one_worked_out_on_paper(name: str) -> None:
    table = by_hand.table()
    assert column(table, name) == list(ON_PAPER[name])
    assert table.totals[name] == sum(ON_PAPER[name])


@pytest.mark.parametrize("name", sorted(NOTHING))
def test_amounts_that_do_not_occur_are_zero_and_not_withheld(name: str) -> None:
    assert column(by_hand.table(), name) == [0, 0, 0, 0]


def test_where_frames_are_shown_only_amounts_from_page_tables_are_withheld() -> None:
    withheld = {name for name, c in by_hand.table().columns.items() if c is None}
    assert withheld == TABLES_ONLY


def test_every_key_of_the_totals_is_a_column() -> None:
    assert set(TOTALS) <= {c.name for c in COLUMNS} == set(by_hand.table().columns)


@pytest.mark.parametrize("at", [1, 2, 5])
def test_batches_may_be_cut_anywhere(at: int) -> None:
    batches = by_hand.cut(by_hand.pages(by_hand.ROWS), at)
    assert by_vma(by_hand.walk(batches)).totals == by_hand.table().totals


def test_without_any_batch_the_address_space_is_untouched() -> None:
    table = by_vma(by_hand.walk([]))
    assert table.totals["present"] == table.totals["rss"] == table.totals["pss"] == 0
    assert table.totals["not_present"] == table.totals["size"] == sum(ON_PAPER["size"])


def test_total_pss_is_truncated_after_adding_as_in_smaps_rollup() -> None:
    # Twice 4096 / 6 = 682.67: 682 in each VMA, 1365 in all.
    of = by_hand.vmas([(n << 20, 1, READ, 0, Backing.FILE, "/f") for n in (1, 2)])
    rows: list[Row] = [
        (n << 20, PAGE, State.FILE, HERE | Flag.FILE, n, ("lru",), 6) for n in (1, 2)
    ]
    table = by_vma(by_hand.walk([by_hand.pages(rows, of)], of))
    assert column(table, "pss") == [682, 682]
    assert table.totals["pss"] == 1365


# ---- special kinds of pages


def one_vma(*rows: tuple[State, Flag, tuple[str, ...], int], size: int = PAGE,
            backing: Backing = Backing.ANON, **outcome: object) -> Table:
    """Return the Table of one VMA with these pages (state, flags, kpageflags, mapcount)."""
    of = by_hand.vmas([(1 << 30, len(rows) * size // PAGE, READ, 0, backing, "")])
    made: list[Row] = [
        ((1 << 30) + i * size, size, state, flags, 1 + i * 512, kflags, mapcount)
        for i, (state, flags, kflags, mapcount) in enumerate(rows)
    ]
    return by_vma(by_hand.walk([by_hand.pages(made, of)], of, **outcome))


def test_hugetlb_is_in_no_rss_and_private_by_bit_56() -> None:
    # The third is mapped once, but by a page table that another process shares: bit 56 is clear.
    table = one_vma(
        (State.HUGETLB, ONCE | Flag.HUGE, ("huge", "head"), 1),
        (State.HUGETLB, HERE | Flag.HUGE, ("huge", "head"), 2),
        (State.HUGETLB, HERE | Flag.HUGE, ("huge", "head"), 1),
        size=THP, backing=Backing.HUGETLB,
    )
    totals = table.totals
    assert (totals["present"], totals["hugetlb"]) == (3 * THP, 3 * THP)
    assert totals["rss"] == totals["pss"] == totals["uss"] == totals["anon_huge"] == 0
    assert (totals["private_hugetlb"], totals["shared_hugetlb"]) == (THP, 2 * THP)
    assert totals["hugetlb_pmd_shared"] == THP


def test_a_migrating_page_counts_in_rss_and_in_full_in_pss_but_is_not_private() -> None:
    totals = one_vma((State.MIGRATING, SOFT | Flag.MIGRATION, (), 0)).totals
    assert (totals["present"], totals["rss"], totals["pss"], totals["uss"]) == (0, PAGE, PAGE, 0)
    assert (totals["migrating"], totals["untold"]) == (PAGE, 0)


LOST = (State.POISONED, SOFT | Flag.HWPOISON, (), 0)


@pytest.mark.parametrize("release", [(5, 15), (6, 1), (6, 8), (6, 9), (6, 18)])
@pytest.mark.parametrize(("counts", "lost"), [(True, PAGE), (False, 0)])
def test_a_hardware_poisoned_page_counts_as_smaps_counts_it(
    counts: bool, lost: int, release: tuple[int, int]
) -> None:
    # smaps_pte_entry: where it counts, its whole size is PSS.
    facts = by_hand.FACTS._replace(release=release)
    table = one_vma(LOST, (State.ANON, HERE, ("anon",), 2), counts_hwpoison=counts, facts=facts)
    totals = table.totals
    assert (totals["poisoned"], totals["present"]) == (PAGE, PAGE)
    assert (totals["rss"], totals["pss"]) == (PAGE + lost, PAGE // 2 + lost)
    assert table.pss_fixed is not None
    assert table.pss_fixed.tolist() == [(PAGE // 2 + lost) << 12]
    # Since 6.11 as shared.
    assert totals["uss"] == (lost if release < (6, 11) else 0)
    assert table.outcome.withheld == []


@pytest.mark.parametrize(("counts", "lost"), [(True, PAGE), (False, 0), (None, None)])
def test_each_field_of_smaps_counts_a_lost_page_as_what_it_was(
    counts: bool | None, lost: int | None
) -> None:
    # Recorded on 6.12: a lost anonymous page that was dirty is in Shared_Dirty.
    facts = by_hand.FACTS._replace(release=(6, 12))
    of = by_hand.vmas([(1 << 30, 2, READ, 0, Backing.ANON, "")])
    made: list[Row] = [
        (1 << 30, PAGE, State.POISONED, SOFT | Flag.HWPOISON, 1,
         ("anon", "swapbacked", "dirty", "hwpoison"), 0),
        ((1 << 30) + PAGE, PAGE, State.ANON, ONCE | Flag.DIRTY | Flag.ACCESSED, 2,
         ("anon", "swapbacked"), 1),
    ]
    walk = by_hand.page_walk([by_hand.pages(made, of)], of, tables=True, young=True, facts=facts,
                             counts_hwpoison=counts)
    totals = smaps.by_field(walk).totals
    known = None if lost is None else PAGE
    assert totals["shared_dirty"] == lost
    assert totals["pss_dirty"] == (None if lost is None else PAGE + lost)
    assert totals["private_dirty"] == totals["referenced"] == known
    clean = None if lost is None else 0
    assert totals["shared_clean"] == totals["private_clean"] == totals["lazyfree"] == clean


def test_unless_smaps_shows_whether_it_counts_lost_pages_amounts_are_withheld() -> None:
    table = one_vma(LOST, (State.ANON, HERE, ("anon",), 2))
    gone = {name for name, value in table.totals.items() if value is None}
    assert gone - TABLES_ONLY == {"rss", "pss", "uss", "locked"}
    assert table.pss_fixed is None
    assert (table.totals["poisoned"], table.totals["anon"]) == (PAGE, PAGE)


@pytest.mark.parametrize("counts", [True, False, None])
def test_hugetlb_memory_that_was_lost_is_in_no_rss(counts: bool | None) -> None:
    totals = one_vma(
        (State.POISONED, SOFT | Flag.HWPOISON | Flag.HUGE, (), 0), size=THP,
        backing=Backing.HUGETLB, counts_hwpoison=counts,
    ).totals
    assert (totals["poisoned"], totals["rss"], totals["pss"], totals["uss"]) == (THP, 0, 0, 0)


def test_a_page_poisoned_by_userfaultfd_is_a_marker_and_counts_nowhere() -> None:
    totals = one_vma((State.POISONED, SOFT | Flag.MARKER | Flag.HWPOISON, (), 0)).totals
    assert (totals["poisoned"], totals["rss"], totals["pss"]) == (PAGE, 0, 0)


@pytest.mark.parametrize(
    ("state", "name"),
    [(State.ANON, "anon_huge"), (State.SHMEM, "shmem_huge"), (State.FILE, "file_huge"),
     (State.ZERO, "huge_zero")],
)
def test_pmd_mapped_memory_by_kind(state: State, name: str) -> None:
    table = one_vma((state, HERE | Flag.HUGE, ("thp", "head"), 1), size=THP)
    small = one_vma((state, HERE, ("thp", "head"), 1))
    assert (table.totals[name], small.totals[name]) == (THP, 0)


def test_locked_is_the_pss_of_the_locked_vmas() -> None:
    table = by_hand.table(locked=np.array([True, False, True, False]))
    assert column(table, "locked") == [5461, 0, 2048, 0]


def test_all_of_a_hidden_vma_is_hidden() -> None:
    table = one_vma((State.ABSENT, Flag(0), (), 0), backing=Backing.HIDDEN)
    assert (table.totals["hidden"], table.totals["not_present"]) == (PAGE, PAGE)


# ---- withheld


def test_without_frames_every_amount_that_needs_them_is_withheld() -> None:
    table = by_hand.table(frames=False)
    gone = {name for name, value in table.totals.items() if value is None}
    assert gone - TABLES_ONLY == {
        "pss", "uss", "distinct", "freed", "ksm", "locked", "private_hugetlb", "shared_hugetlb",
        "hugetlb_pmd_shared", "untold",
    }
    assert table.totals["rss"] == sum(ON_PAPER["rss"])
    assert table.pss_fixed is None


def test_a_frame_without_flags_was_freed_if_struct_pages_were_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The flags of procfs lack some frames in use; a struct page without flags is of none."""
    silent: Row = (VMAS.start[1], PAGE, State.ANON, HERE, 9, (), 0)
    walk = by_hand.walk([by_hand.pages([silent])])
    assert "--source ebpf" in by_vma(walk).outcome.withheld[-1].why
    walk = by_hand.walk([by_hand.pages([silent])])
    monkeypatch.setattr(walk, "source", "ebpf")
    (said,) = by_vma(walk).outcome.withheld
    assert said.what == f"who else maps {PAGE} bytes"
    assert "has unmapped them meanwhile" in said.why and "--source" not in said.why


def test_a_page_of_unknown_kind_withholds_every_kind_it_may_be() -> None:
    totals = one_vma((State.PRESENT, HERE, (), 1), (State.ZERO, HERE, (), 0)).totals
    assert (totals["anon"], totals["file"], totals["shmem"], totals["special"]) == (None,) * 4
    assert (totals["present"], totals["rss"], totals["zero"]) == (2 * PAGE, PAGE, PAGE)


@pytest.mark.parametrize(
    ("vm_rss", "rss", "zero"),
    [(2 * THP, 2 * THP, THP), (THP, None, None), (0, None, None), (None, None, None)],
)
def test_a_possible_huge_zero_page_is_in_rss_only_if_vmrss_says_so(
    vm_rss: int | None, rss: int | None, zero: int | None
) -> None:
    table = one_vma(
        (State.ANON, ONCE | Flag.HUGE, (), 1),
        (State.PRESENT, HERE | Flag.HUGE | Flag.MAYBE_ZERO, (), 1),
        (State.ZERO, HERE | Flag.HUGE | Flag.ZERO, (), 1),
        size=THP, vm_rss=vm_rss,
    )
    totals = table.totals
    assert totals["present"] == 3 * THP
    assert (totals["rss"], totals["zero"], totals["huge_zero"]) == (rss, zero, zero)
    assert (totals["anon"], totals["anon_huge"]) == (None, None)
    assert account.NO_HUGE_ZERO in table.outcome.withheld


@pytest.mark.parametrize(
    ("vm_swap", "expected"), [(2 * PAGE, 2 * PAGE), (PAGE, None), (None, None)]
)
def test_software_entries_of_unknown_kind_are_swap_only_if_they_add_up_to_vmswap(
    vm_swap: int | None, expected: int | None
) -> None:
    table = one_vma((State.SOFT, SOFT, (), 0), (State.SOFT, SOFT, (), 0), vm_swap=vm_swap)
    assert table.totals["swap"] == table.totals["swap_private"] == expected


def test_unknown_swap_of_shmem_withholds_the_sum_but_not_the_private_part() -> None:
    table = by_hand.table(shmem_swap=None)
    assert (table.totals["swap"], table.totals["swap_shmem"]) == (None, None)
    assert table.totals["swap_private"] == PAGE


def test_swap_is_private_entries_and_swapped_shmem() -> None:
    table = by_hand.table(shmem_swap=np.array([0, 0, 8192, 0]))
    assert column(table, "swap") == [0, 4096, 8192, 0]


def test_a_counting_walk_gives_the_same_bytes_by_state() -> None:
    whole = by_hand.pages(by_hand.ROWS)
    counts = Amounts(whole.vma, whole.state, whole.level, whole.flags, whole.size)
    counted = by_vma(by_hand.walk([counts], frames=False))
    assert counted.totals == by_hand.table(frames=False).totals


# ---- rules that hold for every walk


@dataclass(frozen=True)
class Leaf:
    """One leaf of a random VMA."""

    state: State
    huge: bool
    mapcount: int

    @property
    def size(self) -> int:
        return THP if self.huge else PAGE

    @property
    def flags(self) -> Flag:
        soft = self.state in (State.SWAPPED, State.MIGRATING, State.GUARD, State.MARKER)
        kind = {State.SWAPPED: Flag.SWAP, State.MIGRATING: Flag.MIGRATION}.get(self.state, Flag(0))
        entry = SOFT | kind if soft else HERE if self.state <= State.PRESENT else Flag(0)
        return entry | Flag.HUGE if self.huge else entry


MAPPED = (State.ANON, State.FILE, State.SHMEM)
LEAF = st.builds(
    Leaf, st.sampled_from([*MAPPED, *MAPPED, State.ZERO, State.SPECIAL, State.SWAPPED, State.GUARD,
                           State.MIGRATING, State.EMPTY, State.NOT_MAPPED]),
    st.booleans(), st.integers(1, 40),
)
SPACES = st.lists(st.lists(LEAF, min_size=1, max_size=8), min_size=1, max_size=4)


def laid_out(space: list[list[Leaf]]) -> tuple[VMAs, list[Row]]:
    rows: list[Row] = []
    of = []
    at = 1 << 30
    for leaves in space:
        pages = sum(leaf.size for leaf in leaves) // PAGE
        of.append((at, pages, READ, 0, Backing.ANON, ""))
        for leaf in leaves:
            mapcount = leaf.mapcount if leaf.state in MAPPED else 0
            frame = at // PAGE  # one for each
            rows.append((at, leaf.size, leaf.state, leaf.flags, frame, ("anon",), mapcount))
            at += leaf.size
        at += PAGE
    return by_hand.vmas(of), rows


def random_table(space: list[list[Leaf]], cut_at: int = 100) -> Table:
    of, rows = laid_out(space)
    batches = by_hand.cut(by_hand.pages(rows, of), cut_at)
    return by_vma(by_hand.walk(batches, of, tables=True))


def kernel_pss(leaves: list[Leaf]) -> int:
    """Return mss->pss after smaps_account of every page: bytes << PSS_SHIFT."""
    pss = 0
    for leaf in leaves:
        for _ in range(leaf.size // PAGE):
            if leaf.state in MAPPED:
                pss += (PAGE << 12) if leaf.mapcount < 2 else (PAGE << 12) // leaf.mapcount
            elif leaf.state == State.MIGRATING:
                pss += PAGE << 12
    return pss


@always(SPACES)
def test_pss_is_the_kernels_integer_arithmetic(space: list[list[Leaf]]) -> None:
    table = random_table(space)
    expected = [kernel_pss(leaves) for leaves in space]
    assert table.pss_fixed is not None
    assert table.pss_fixed.tolist() == expected
    assert column(table, "pss") == [fixed >> 12 for fixed in expected]
    assert table.totals["pss"] == sum(expected) >> 12


@always(SPACES)
def test_uss_is_at_most_pss_and_pss_at_most_rss(space: list[list[Leaf]]) -> None:
    table = random_table(space)
    amounts = zip(*(column(table, name) for name in ("uss", "pss", "rss")), strict=True)
    assert all(uss <= pss <= rss for uss, pss, rss in amounts)


@always(SPACES)
def test_every_byte_is_present_or_not_present_or_not_mapped(space: list[list[Leaf]]) -> None:
    table = random_table(space)
    amounts = [column(table, name) for name in ("present", "not_present", "not_mapped", "size")]
    assert all(a + b + c == size for a, b, c, size in zip(*amounts, strict=True))
    mapped = [sum(x.size for x in leaves if x.state == State.NOT_MAPPED) for leaves in space]
    assert column(table, "not_mapped") == mapped


@always(SPACES, st.integers(1, 9))
def test_totals_are_sums_however_the_walk_was_cut(space: list[list[Leaf]], cut_at: int) -> None:
    table = random_table(space, cut_at)
    for name in set(table.columns) - {"pss", "freed"}:  # freed: shmem of an unknown object
        assert table.totals[name] == sum(column(table, name)), name
    assert table.totals == random_table(space).totals


def test_ksm_is_the_kpageflags_bit_of_anonymous_pages() -> None:
    assert KPF["ksm"] == 21  # include/uapi/linux/kernel-page-flags.h
    table = one_vma((State.ANON, HERE, ("anon", "ksm"), 3), (State.SWAPPED, SOFT, ("ksm",), 0))
    assert table.totals["ksm"] == PAGE


def test_other_programs_read_its_rows_without_a_copy() -> None:
    table = by_hand.table()
    found = pa.table(table)
    assert found.column("name").to_pylist() == list(table.vmas.name)
    rss, start = table.columns["rss"], table.vmas.start
    assert rss is not None
    for name, values in (("rss", rss), ("start", start)):
        (chunk,) = found.column(name).chunks
        assert chunk.buffers()[1].address == values.ctypes.data
    withheld = [name for name, column in table.columns.items() if column is None]
    assert all(found.column(name).null_count == len(found) for name in withheld)


def unknown_users(*slots: int) -> smaps.SwapUsers:
    """Return a census of swap in which some process could not be read; none used ``slots``."""
    words = np.array(slots, np.uint64)
    return smaps.SwapUsers(words, np.ones(len(slots), np.uint64), "process 1 could not be read")


@pytest.mark.parametrize("users", [unknown_users(), smaps.NOT_COUNTED])
def test_a_process_without_swap_shares_none_whoever_else_could_not_be_read(
    users: smaps.SwapUsers | Withheld
) -> None:
    walk = by_hand.page_walk([by_hand.pages([by_hand.ROWS[3]])], VMAS, tables=True, young=True)
    table = smaps.by_field(walk, users)
    assert table.totals["swap_pss"] == 0 and table.outcome.withheld == []


def test_a_share_of_swap_is_withheld_where_its_users_or_its_slot_are_not_known() -> None:
    for frames, users in ((True, unknown_users(by_hand.SWAP_PLACE)), (True, smaps.NOT_COUNTED),
                          (False, smaps.NO_USERS)):
        rows = [row for row in by_hand.ROWS if row[2] == State.SWAPPED]
        walk = by_hand.page_walk([by_hand.pages(rows, frames=frames)], VMAS, tables=True,
                                 young=True)
        table = smaps.by_field(walk, users)
        assert table.totals["swap_pss"] is None
        assert [row.what for row in table.outcome.withheld] == ["swap_pss"]
