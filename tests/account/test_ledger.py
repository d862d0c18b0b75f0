"""The ledger: hand-made numbers on both sides, each difference with the cause that was put in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import strategies as st

from pagewalk.account.causes import CAUSES
from pagewalk.account.ledger import (
    BEYOND_RSS,
    CONCURRENT,
    LINES,
    SHORT,
    WHY,
    Cause,
    Line,
    beyond_rss,
    bounded,
    ledger,
)
from pagewalk.account.table import Table
from pagewalk.model.columns import EXEC, READ, SHARED, WRITE, Backing, Flag, State
from pagewalk.proc.counters import Theirs
from pagewalk.proc.smaps import Smaps, parse_smaps
from tests import by_hand
from tests.by_hand import HEAP, MEMFD, PAGE, PROGRAM
from tests.properties import always

KIB = 1024
THEIRS, SMAPS, SIZE, RSS = by_hand.THEIRS, by_hand.SMAPS, by_hand.SIZE, by_hand.RSS

def line(against: str, theirs: Theirs = THEIRS, table: Table | None = None,
         before: Theirs | None = None) -> Line:
    ours = table or by_hand.table()
    ours.outcome.page_tables = by_hand.PAGE_TABLES
    rows = ledger(ours, theirs, before)
    return next(row for row in rows if row.against == against)


def with_status(**changes: int) -> Theirs:
    return THEIRS._replace(status={**THEIRS.status, **changes})


def with_row(*row: object, locked: bool = False, **outcome: object) -> Table:
    """Return by_hand's Table with one more page in the memfd VMA instead of its marker."""
    rows = [*by_hand.ROWS[:10], row, *by_hand.ROWS[11:]]
    return by_hand.table(rows, locked=np.array([locked] * 4), **outcome)  # type: ignore[arg-type]


def check_closes(table: Table) -> None:
    present, rss = table.totals["present"], table.totals["rss"]
    assert present is not None and rss is not None
    assert present - rss == sum(part.bytes for part in beyond_rss(table))


def test_what_present_has_beyond_rss_is_withheld_if_rss_is() -> None:
    table = by_hand.table()
    assert beyond_rss(replace(table, totals={**table.totals, "rss": None})) == ()


def test_what_present_has_beyond_rss_is_withheld_if_a_part_of_it_is() -> None:
    # As with --counts: the remaining parts would not add up to present - rss.
    table = by_hand.table()
    assert beyond_rss(replace(table, totals={**table.totals, "special": None})) == ()


def test_every_line_closes_and_says_why() -> None:
    rows = ledger(by_hand.table(page_tables=by_hand.PAGE_TABLES), THEIRS)
    causes = {row.against: row.causes for row in rows}
    assert set(causes) == {rule.against for rule in LINES if not rule.rare}
    cut = 5461 - 5 * KIB
    assert {name: found for name, found in causes.items() if found} == {
        "smaps Pss": (Cause("pss_truncation_by_vma", cut, True),),
        "smaps_rollup Pss": (Cause("pss_truncation", cut, True),),
        "status VmPTE": (Cause("thp_deposit", -PAGE, True),),
    }
    assert all(row.unexplained == 0 for row in rows)


def test_a_rare_line_is_shown_if_either_side_is_not_zero() -> None:
    smaps = SMAPS._replace(columns={**SMAPS.columns, "LazyFree": np.array([0, 8, 0, 0]) * KIB})
    told = by_hand.table()
    told = replace(told, totals={**told.totals, "lazyfree": 8 * KIB})
    theirs = THEIRS._replace(smaps=smaps)
    lines = {row.against: row for row in ledger(told, theirs)}
    assert lines["smaps LazyFree"] == Line("smaps LazyFree", "lazyfree", 8192, 8192, (), 0)
    # If no page tables were read, only the kernel has a figure.
    lines = {row.against: row for row in ledger(by_hand.table(), theirs)}
    assert lines["smaps LazyFree"] == Line("smaps LazyFree", "lazyfree", None, 8192, (), None)
    # And if only ours is not zero, that is a difference.
    (row,) = (row for row in ledger(told, THEIRS) if row.against == "smaps LazyFree")
    assert row.unexplained == 8 * KIB
    assert "smaps LazyFree" not in {row.against for row in ledger(by_hand.table(), THEIRS)}


@always(
    st.dictionaries(st.sampled_from(sorted(THEIRS.status)), st.integers(0, 1 << 40)),
    st.integers(0, 1 << 40), st.integers(0, 1 << 40),
)
def test_ours_minus_theirs_is_the_causes_and_the_rest(
    status: dict[str, int], rss: int, before: int
) -> None:
    theirs = with_status(**status)._replace(stat={"rss": rss, "vsize": SIZE})
    for row in ledger(by_hand.table(), theirs, with_status(VmRSS=before)):
        assert row.ours is not None and row.theirs is not None and row.unexplained is not None
        assert row.ours - row.theirs == sum(c.bytes for c in row.causes) + row.unexplained
        assert all(c.exact or abs(c.bytes) <= (c.bound or 0) for c in row.causes)


def test_a_difference_without_a_cause_stays_unexplained() -> None:
    row = line("status VmData", with_status(VmData=20 * KIB))
    assert (row.causes, row.unexplained) == ((), 4 * KIB)


def test_a_number_the_kernel_does_not_give_has_no_line() -> None:
    bare = THEIRS._replace(status={}, smaps=None, rollup=None, pmap=None)
    named = {row.against.split()[0] for row in ledger(by_hand.table(), bare)}
    assert named == {"statm", "stat"}


def test_page_tables_are_compared_only_where_they_were_counted() -> None:
    names = {row.against for row in ledger(by_hand.table(), THEIRS)}
    assert "status VmPTE" not in names


def test_a_number_of_ours_that_is_withheld_is_none_and_never_zero() -> None:
    row = line("smaps Pss", table=by_hand.table(frames=False))
    assert (row.ours, row.theirs, row.unexplained) == (None, 2062 * KIB, None)


# ---- one test per cause: the bytes put in are the bytes named


@pytest.mark.parametrize(
    ("start", "name"), [(0xFFFFFFFFFF600000, "[vsyscall]"), (0xFFFF0000, "[vectors]")]
)
def test_gate_vma(start: int, name: str) -> None:
    of = by_hand.vmas(
        [(0x400000, 4, READ | EXEC, 0, Backing.FILE, "/f"),
         (start, 1, READ | EXEC, 0, Backing.GATE, name)]
    )
    table = by_hand.by_vma(by_hand.walk([], of))
    row = line("status VmSize", with_status(VmSize=16 * KIB), table)
    assert (row.causes, row.unexplained) == ((Cause("gate_vma", PAGE, True),), 0)
    # smaps has VmFlags for it, but its page is not the process's code
    smaps = parse_smaps(
        b"00400000-00404000 r-xp 00000000 08:01 7 /f\nSize: 16 kB\nVmFlags: rd ex mr me\n"
        b"%x-%x r-xp 00000000 00:00 0 %b\nSize: 4 kB\nVmFlags: rd ex mr me\n"
        % (start, start + PAGE, name.encode())
    )
    code = with_status(VmExe=16 * KIB, VmLib=0)._replace(smaps=smaps)
    assert line("status VmExe+VmLib", code, table).unexplained == 0


@pytest.mark.parametrize(
    ("cause", "state", "flags"),
    [
        ("zero_page", State.ZERO, Flag.PRESENT),
        ("huge_zero_page", State.ZERO, Flag.PRESENT | Flag.HUGE),
        ("special_mapping", State.SPECIAL, Flag.PRESENT),
        ("hugetlb", State.HUGETLB, Flag.PRESENT),
    ],
)
def test_present_pages_that_are_in_no_rss(cause: str, state: State, flags: Flag) -> None:
    table = with_row(MEMFD + 2 * PAGE, PAGE, state, flags, 9, (), 0)
    found = {c.cause: c.bytes for c in beyond_rss(table)}
    # by_hand has a zero page of its own, which adds to that.
    assert found == {"zero_page": PAGE, cause: PAGE * (2 if cause == "zero_page" else 1)}
    check_closes(table)
    row = line("status VmRSS", table=table)
    assert (row.ours_is, row.causes, row.unexplained) == ("rss", (), 0)


def test_migration() -> None:
    table = with_row(MEMFD + 2 * PAGE, PAGE, State.MIGRATING, Flag.SOFT | Flag.MIGRATION, 9, (), 0)
    assert beyond_rss(table) == (Cause("zero_page", PAGE, True), Cause("migration", -PAGE, True))
    check_closes(table)
    row = line("status VmRSS", with_status(VmRSS=RSS + PAGE), table)
    assert (row.causes, row.unexplained) == ((), 0)


def test_hwpoison() -> None:
    # smaps counts the page that was lost, status does not.
    lost = (MEMFD + 2 * PAGE, PAGE, State.POISONED, Flag.SOFT | Flag.HWPOISON, 9, (), 0)
    table = with_row(*lost, counts_hwpoison=True)
    row = line("status VmRSS", with_status(VmRSS=RSS), table)
    assert (row.causes, row.unexplained) == ((Cause("hwpoison", PAGE, True),), 0)
    assert beyond_rss(table) == (Cause("zero_page", PAGE, True), Cause("hwpoison", -PAGE, True))
    check_closes(table)
    theirs = THEIRS._replace(smaps=SMAPS._replace(columns={
        **SMAPS.columns, "Rss": SMAPS.columns["Rss"] + np.array([0, 0, PAGE, 0])}))
    row = line("smaps Rss", theirs, table)
    assert (row.causes, row.unexplained) == ((), 0)
    # As anonymous, if it was anonymous; a memfd's page was not.
    anonymous = SMAPS.columns["Anonymous"] + np.array([0, 0, PAGE, 0])
    theirs = THEIRS._replace(smaps=SMAPS._replace(columns={
        **SMAPS.columns, "Anonymous": anonymous}))
    row = line("smaps Anonymous", theirs, table)
    assert (row.causes, row.unexplained) == ((Cause("hwpoison_page", -PAGE, False, PAGE),), 0)
    assert line("smaps Anonymous", THEIRS, table).causes == ()
    # smaps of other kernels does not count it either.
    table = with_row(*lost, counts_hwpoison=False)
    for against in ("status VmRSS", "smaps Rss"):
        row = line(against, with_status(VmRSS=RSS), table)
        assert (row.causes, row.unexplained) == ((), 0)
    assert beyond_rss(table) == (Cause("zero_page", PAGE, True),)


def test_shmem_swap() -> None:
    table = by_hand.table(shmem_swap=np.array([0, 0, 2 * PAGE, 0]))
    row = line("status VmSwap", table=table)
    assert (row.causes, row.unexplained) == ((Cause("shmem_swap", 2 * PAGE, True),), 0)


def test_locked_truncation() -> None:
    # All four VMAs are locked: the kernel's rounding down to KiB loses 5461 bytes - 5 KiB.
    table = by_hand.table(locked=np.array([True] * 4))
    smaps = SMAPS._replace(columns={**SMAPS.columns, "Locked": SMAPS.columns["Pss"]})
    row = line("smaps Locked", THEIRS._replace(smaps=smaps), table)
    assert row.causes == (Cause("locked_truncation", 5461 - 5 * KIB, True),)
    assert row.unexplained == 0


def test_hugetlb_pmd_shared() -> None:
    table = with_row(MEMFD + 2 * PAGE, PAGE, State.HUGETLB, Flag.PRESENT, 9, ("huge",), 1)
    row = line("status HugetlbPages", table=table)
    assert row.causes == (Cause("hugetlb_pmd_shared", PAGE, False, PAGE),)
    assert row.unexplained == 0


def test_device_page_is_of_a_kind_that_only_the_kernel_knows() -> None:
    # DEVICE, with no mapcount
    table = with_row(MEMFD + 2 * PAGE, PAGE, State.DEVICE, Flag.PRESENT | Flag.FILE, 9, (), 0)
    shmem = THEIRS.status["RssShmem"]
    row = line("status RssShmem", with_status(RssShmem=shmem + PAGE), table)
    assert row.causes == (Cause("device_page", -PAGE, False, PAGE),)
    assert line("status RssShmem", with_status(RssShmem=shmem + 2 * PAGE), table).unexplained


def locked_line(locked_kib: int) -> Line:
    """Return the line of Locked for a locked shmem VMA with a page whose frame is unknown."""
    table = with_row(MEMFD + 2 * PAGE, PAGE, State.DEVICE, Flag.PRESENT | Flag.FILE, 9, (), 0)
    table.outcome.locked = np.array([False, False, True, False])
    table.columns["locked"] = np.where(table.outcome.locked, table.columns["pss"], 0)
    table.totals["locked"] = int(table.columns["locked"].sum())
    locked = np.array([0, 0, locked_kib, 0]) * KIB
    smaps = SMAPS._replace(columns={**SMAPS.columns, "Locked": locked})
    return line("smaps Locked", THEIRS._replace(smaps=smaps), table)


def test_device_page_in_a_locked_vma() -> None:
    # Ours is 2 KiB of a page mapped by two processes, and all 4 KiB of the other.
    assert locked_line(6).causes == ()
    row = locked_line(3)
    assert (row.causes, row.unexplained) == ((Cause("device_page", 3 * KIB, False, PAGE),), 0)
    assert locked_line(1).unexplained == 5 * KIB


def test_the_first_cause_that_can_account_for_all_of_it_is_named() -> None:
    assert bounded(-3, [("a", 2), ("b", 4), ("c", 9)]) == [Cause("b", -3, False, 4)]


def test_bounded_causes_may_have_to_be_combined() -> None:
    assert bounded(-5, [("a", 2), ("b", 0), ("c", 4)]) == [
        Cause("a", -2, False, 2), Cause("c", -3, False, 4)
    ]


def test_a_difference_beyond_the_sum_of_all_bounds_stays_unexplained() -> None:
    assert bounded(7, [("a", 2), ("c", 4)]) == bounded(0, [("a", 2)]) == []


def test_migrating_page_is_of_a_kind_that_its_entry_does_not_show() -> None:
    table = with_row(MEMFD + 2 * PAGE, PAGE, State.MIGRATING, Flag.SOFT | Flag.MIGRATION, 9, (), 0)
    row = line("status RssShmem", with_status(RssShmem=8 * KIB), table)
    assert (row.causes, row.unexplained) == ((Cause("migrating_page", -PAGE, False, PAGE),), 0)


def with_locked(vm_lck: int, *vmas: int) -> Theirs:
    """Return THEIRS with this VmLck, and ``lo`` in these rows of smaps."""
    flags = [codes | {"lo"} if i in vmas else codes - {"lo"}
             for i, codes in enumerate(SMAPS.codes[row] for row in SMAPS.which)]
    smaps = SMAPS._replace(codes=tuple(flags), which=np.arange(len(flags)))
    return with_status(VmLck=vm_lck)._replace(smaps=smaps)


def test_locked_vm_leak_is_what_the_counter_has_beyond_the_locked_vmas() -> None:
    theirs = with_locked(1024 * KIB + 12 * KIB, 2)
    row = line("status VmLck", theirs)
    assert row.causes == (Cause("locked_vm_leak", -1024 * KIB, False, 1036 * KIB),)
    assert row.unexplained == 0


def test_a_counter_below_the_locked_vmas_is_no_leak() -> None:
    assert line("status VmLck", with_locked(0, 2)).unexplained == 12 * KIB


def test_a_counter_that_moves_is_no_leak() -> None:
    # locked or unlocked meanwhile: the kernel's two numbers are from different moments
    row = line("status VmLck", with_locked(24 * KIB, 2), before=with_locked(12 * KIB, 2))
    assert [cause.cause for cause in row.causes] == [CONCURRENT]
    row = line("status VmLck", with_locked(24 * KIB, 2), before=with_locked(24 * KIB, 1))
    assert [cause.cause for cause in row.causes] == [CONCURRENT]


def overcounting(swap_kib: int, perms: int) -> Line:
    rows = list(zip(by_hand.VMAS.start.tolist(), (4, 6, 3, 1024), strict=True))
    perm = (READ, READ | WRITE, perms, READ | WRITE)
    backing = (Backing.FILE, Backing.ANON, Backing.SHMEM, Backing.ANON)
    of = by_hand.vmas([(*rows[i], perm[i], 0, backing[i], "") for i in range(4)])
    table = by_hand.by_vma(by_hand.walk([by_hand.pages(by_hand.ROWS, of)], of))
    swap = np.array([0, 4, swap_kib, 0]) * KIB
    smaps = SMAPS._replace(columns={**SMAPS.columns, "Swap": swap})
    return line("smaps Swap", THEIRS._replace(smaps=smaps), table)


@pytest.mark.parametrize(("release", "left"), [((6, 5), 0), ((6, 6), -8 * KIB)])
def test_huge_device_page(release: tuple[int, int], left: int) -> None:
    # 4 MiB of a device, mapped by two huge entries: smaps up to 6.5 counts a page of each.
    flags = Flag.PRESENT | Flag.HUGE | Flag.SPECIAL
    table = with_row(MEMFD + 2 * PAGE, 4 << 20, State.SPECIAL, flags, 9, ("reserved",), 0,
                     facts=by_hand.FACTS._replace(release=release))
    rss = SMAPS.columns["Rss"].copy()
    rss[2] += 8 * KIB
    smaps = SMAPS._replace(columns={**SMAPS.columns, "Rss": rss})
    row = line("smaps Rss", THEIRS._replace(smaps=smaps), table)
    assert row.causes == (() if left else (Cause("huge_device_page", -8 * KIB, False, 8 * KIB),))
    assert row.unexplained == left


def test_smaps_large_shmem_swap_overcount() -> None:
    row = overcounting(2048, READ | WRITE)
    assert row.causes == (
        Cause("smaps_large_shmem_swap_overcount", -2048 * KIB, False, 2048 * KIB),
    )


@pytest.mark.parametrize("perms", [READ | WRITE | SHARED, READ])
def test_only_private_writable_shmem_can_be_overcounted(perms: int) -> None:
    assert overcounting(2048, perms).unexplained == -2048 * KIB


# ---- bounded causes


@pytest.mark.parametrize(
    ("release", "against", "most"),
    [
        # percpu_counter: up to max(32, 2 * 2 CPUs) - 1 = 31 pages on each of 2 CPUs, and three
        # counters; status and statm are exact sums from 6.18 on, stat never.
        ((6, 18), "stat rss", 186),
        ((6, 12), "stat rss", 186),
        ((6, 12), "status VmRSS", 186),
        ((6, 12), "status RssAnon", 62),
        ((6, 12), "statm shared (top SHR)", 124),
        # Per thread up to 6.1: 66 faults of up to 16 file pages; there is one thread here.
        ((6, 1), "status RssFile", 1056),
        ((6, 1), "status VmRSS", 3168),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_counters_lag_by_at_most_this_many_pages(
    release: tuple[int, int], against: str, most: int, sign: int
) -> None:
    table = by_hand.table(facts=by_hand.FACTS._replace(release=release, cpus=2))

    def off_by(pages: int) -> Line:
        bytes_off = sign * pages * PAGE
        changed = THEIRS._replace(
            status={k: v + bytes_off for k, v in THEIRS.status.items()},
            statm={k: v + bytes_off for k, v in THEIRS.statm.items()},
            stat={"rss": RSS + bytes_off, "vsize": SIZE},
        )
        return line(against, changed, table)

    inside, outside = off_by(most), off_by(most + 1)
    assert (inside.causes[-1].bytes, inside.unexplained) == (-sign * most * PAGE, 0)
    assert outside.unexplained == -sign * (most + 1) * PAGE


def test_from_6_18_on_status_does_not_lag() -> None:
    assert line("status VmRSS", with_status(VmRSS=RSS - PAGE)).unexplained == PAGE


def smaps_with_pss(*kib: int) -> Smaps:
    return SMAPS._replace(columns={**SMAPS.columns, "Pss": np.array(kib) * KIB})


def test_foreign_mapcount_change_is_bounded_by_what_moved_between_two_readings() -> None:
    # During the walk another process unmapped libc: one VMA's PSS rose by 3 KiB, another's fell
    # by 1; whatever mixture the walk saw, it is at most 4 KiB off.
    after, before = smaps_with_pss(8, 6, 2, 2048), smaps_with_pss(5, 7, 2, 2048)
    row = line("smaps Pss", THEIRS._replace(smaps=after), before=THEIRS._replace(smaps=before))
    assert row.causes == (
        Cause("pss_truncation_by_vma", 341, True),
        Cause("foreign_mapcount_change", -2 * KIB, False, 4 * KIB),
    )


def test_an_amount_that_moved_while_the_process_ran_is_a_concurrent_change() -> None:
    before, after = with_status(VmData=16 * KIB), with_status(VmData=20 * KIB)
    row = line("status VmData", after, before=before)
    assert (row.causes, row.unexplained) == ((Cause(CONCURRENT, 4 * KIB, False, 4 * KIB),), 0)


def test_a_change_too_small_to_explain_the_difference_explains_nothing() -> None:
    before, after = with_status(VmData=19 * KIB), with_status(VmData=20 * KIB)
    assert line("status VmData", after, before=before).unexplained == 4 * KIB


def test_readings_in_between_show_a_number_that_was_back_at_the_end() -> None:
    theirs = with_status(VmData=20 * KIB)
    rows = ledger(by_hand.table(), theirs, theirs, between=(with_status(VmData=28 * KIB),))
    (row,) = (row for row in rows if row.against == "status VmData")
    assert (row.causes, row.unexplained) == ((Cause(CONCURRENT, 4 * KIB, False, 8 * KIB),), 0)


def test_a_vma_that_came_and_went_moved_the_counters_too() -> None:
    # The walk before smaps has 64 KiB more than the walk after it, and the counters saw nothing.
    table, earlier = by_hand.table(), by_hand.table()
    rss = earlier.columns["rss"]
    assert rss is not None
    earlier.columns["rss"] = rss + np.array([0, 64 * KIB, 0, 0])
    rows = ledger(table, with_status(VmRSS=RSS + 40 * KIB), earlier=earlier)
    (row,) = (row for row in rows if row.against == "status VmRSS")
    assert (row.causes, row.unexplained) == (
        (Cause(CONCURRENT, -40 * KIB, False, 64 * KIB),), 0
    )


def test_when_a_counter_moves_the_sum_over_vmas_moves_too() -> None:
    smaps = SMAPS._replace(columns={**SMAPS.columns, "Rss": SMAPS.columns["Rss"] + 8 * KIB})
    theirs = THEIRS._replace(smaps=smaps)
    moved = with_status(VmRSS=RSS + 32 * KIB)
    rows = ledger(by_hand.table(), theirs, theirs, between=(moved,))
    (row,) = (row for row in rows if row.against == "smaps Rss")
    assert (row.causes, row.unexplained) == (
        (Cause(CONCURRENT, -32 * KIB, False, 32 * KIB),), 0
    )


# ---- the tables

# Which of our amounts a cause may affect, in whatever file the kernel reports them. A line of such
# an amount that does not name the cause must be listed here, with the reason.
AMOUNTS = {
    "device_page": {"anon", "file", "shmem", "file + shmem", "pss", "uss", "locked"},
    "migrating_page": {"anon", "file", "shmem", "file + shmem"},
    "huge_device_page": {"rss", "pss", "uss", "locked"},
    "foreign_mapcount_change": {"pss", "uss", "locked"},
    "gate_vma": {"size"},
    "hwpoison": {"rss"},
    "hwpoison_page": {"anon"},
    "smaps_large_shmem_swap_overcount": {"swap"},
    "shmem_swap": {"swap"},
    "hugetlb_pmd_shared": {"hugetlb"},
    "thp_deposit": {"page tables"},
    "locked_vm_leak": {"locked VMAs"},
}
COUNTERS = ("status", "statm", "stat ")
SMAPS_FILES = ("smaps", "smaps_rollup")
NOT_IN = {
    "huge_device_page": {
        **dict.fromkeys(COUNTERS, "the bug is smaps' own"),
        "smaps Locked": "memory without normal pages cannot be mlocked (VM_SPECIAL)",
    },
    "foreign_mapcount_change": {"smaps_rollup Pss": "it has rollup_mapcount_change"},
    "gate_vma": {
        "smaps Size": "smaps lists the gate too", "pmap total": "pmap adds up what maps lists",
    },
    "hwpoison": dict.fromkeys(SMAPS_FILES, "smaps counts such pages as rss does"),
    "hwpoison_page": dict.fromkeys(COUNTERS, "the page is taken off its counter"),
    "smaps_large_shmem_swap_overcount": dict.fromkeys(COUNTERS, "the bug is smaps' own"),
    "shmem_swap": dict.fromkeys(SMAPS_FILES, "smaps adds them as swap does"),
}


def excused(cause: str, against: str) -> bool:
    return any(against.startswith(where) for where in NOT_IN.get(cause, ()))


@pytest.mark.parametrize("cause", AMOUNTS)
def test_lines_of_one_amount_have_the_same_causes(cause: str) -> None:
    for rule in LINES:
        if rule.ours_is in AMOUNTS[cause] and not excused(cause, rule.against):
            assert cause in rule.causes, rule.against
        elif cause in rule.causes:
            assert rule.ours_is in AMOUNTS[cause], rule.against


def test_every_cause_affects_amounts_or_how_a_number_is_written_or_read() -> None:
    apart = {name for name in CAUSES if name.endswith(("_batching", "truncation", "_by_vma"))}
    assert set(CAUSES) - apart - {"rollup_mapcount_change"} == set(AMOUNTS)


def test_every_cause_is_used_by_a_line_and_every_line_names_known_causes() -> None:
    used = {name for rule in LINES for name in rule.causes}
    assert used == set(CAUSES)


@pytest.mark.parametrize("cause", [*CAUSES, *(row.name for row in BEYOND_RSS), CONCURRENT])
def test_every_cause_has_a_sentence(cause: str) -> None:
    assert len(WHY[cause].split()) >= 4
    assert not WHY[cause].endswith(".")


def test_the_short_ledger_is_lines_of_the_ledger() -> None:
    assert set(SHORT) <= {rule.against for rule in LINES}


def test_the_hand_made_smaps_matches_the_hand_made_vmas() -> None:
    assert SMAPS.start.tolist()[:3] == [PROGRAM, HEAP, MEMFD]
    assert SMAPS.end.tolist() == by_hand.VMAS.end.tolist()
