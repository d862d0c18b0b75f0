"""How a page counts: the table against the kernel's rules, its masks against what they change."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from pagewalk.account.smaps import by_field
from pagewalk.account.table import Table, by_vma
from pagewalk.kernel.structs.struct_page import EXPORTED
from pagewalk.model.bits import KPF, kpf
from pagewalk.model.columns import READ, U32, U64, Backing, Flag, State
from pagewalk.model.rules import HAS_ENTRY, HELD, IN_PSS, IN_RSS, IS_PRESENT, KEPT, SIZES, STANDINGS
from pagewalk.model.states import classify, maybe_repeated
from pagewalk.proc import pagemap
from pagewalk.sources.amounts import alone_amounts
from pagewalk.sources.pagemap import sum_regions
from tests import by_hand
from tests.by_hand import HEAP, PAGE

SOFTWARE = (Flag.SWAP, Flag.MIGRATION, Flag.DEVICE, Flag.HWPOISON, Flag.MARKER, Flag.GUARD)
HERE = (Flag.FILE, Flag.NORMAL, Flag.SPECIAL, Flag.ZERO, Flag.HUGE, Flag.MAYBE_ZERO)
DECIDING = ("anon", "huge", "zero_page", "swapbacked", "nopage", "head", "tail", "thp")
FRAMES = (*DECIDING, "lru")  # and one that says only that the frame is known
OWN = (Backing.ANON, Backing.FILE, Backing.SHMEM)  # where no driver maps its own pages


def words(bits: list[int]) -> list[int]:
    """Return every combination of ``bits``."""
    return [sum(bit for bit, on in zip(bits, which, strict=True) if on)
            for which in product((False, True), repeat=len(bits))]


ENTRIES = np.array(words([flag.value for flag in HERE]), np.uint32)
SOFT_ENTRIES = np.array(words([flag.value for flag in SOFTWARE]), np.uint32)
KFLAGS = np.array(words([1 << KPF[name] for name in FRAMES]), np.uint64)
NAMES = [frozenset(n for n in FRAMES if word >> KPF[n] & 1) for word in KFLAGS.tolist()]


def software(entry: Flag) -> State:
    # include/linux/swapops.h: a marker's payload has one bit each for guard and poison
    if Flag.GUARD in entry:
        return State.GUARD
    if Flag.HWPOISON in entry:
        return State.POISONED
    if Flag.MARKER in entry:
        return State.MARKER
    if Flag.DEVICE in entry:
        return State.DEVICE
    if Flag.MIGRATION in entry:
        return State.MIGRATING
    return State.SWAPPED if Flag.SWAP in entry else State.SOFT


def by_frame(entry: Flag, frame: frozenset[str], backing: Backing) -> State:
    # smaps_pte_entry, vm_normal_page, smaps_account (fs/proc/task_mmu.c, mm/memory.c), of one page
    if "zero_page" in frame or Flag.ZERO in entry:
        return State.ZERO
    if "huge" in frame:
        return State.HUGETLB
    if "anon" in frame:  # folio_test_anon
        return State.ANON
    normal = Flag.NORMAL in entry  # pte_special is clear
    if Flag.SPECIAL in entry or ("nopage" in frame and not normal and backing != Backing.ANON):
        return State.SPECIAL
    if backing == Backing.ANON and Flag.FILE not in entry:  # the frame is not its own any more
        return State.ANON
    if normal or Flag.FILE in entry or frame & {"head", "tail", "thp"}:
        if not frame - {"nopage"}:
            told = {Backing.FILE: State.FILE, Backing.SHMEM: State.SHMEM}
            return told.get(backing, State.DEVICE)
        return State.SHMEM if "swapbacked" in frame else State.FILE
    return State.ANON if backing in OWN else State.SPECIAL


def by_entry(entry: Flag, backing: Backing) -> State:
    # The same if the frame may not be looked at.
    if Flag.ZERO in entry:
        return State.ZERO
    if Flag.MAYBE_ZERO in entry:
        return State.PRESENT
    if Flag.SPECIAL in entry:
        return State.ZERO if backing == Backing.ANON else State.SPECIAL
    if backing == Backing.HUGETLB:
        return State.HUGETLB
    if Flag.NORMAL in entry:  # page tables have no bit 61
        return State.PRESENT
    if Flag.FILE in entry:
        if backing == Backing.ANON and Flag.HUGE in entry:
            return State.ZERO
        return State.SHMEM if backing == Backing.SHMEM else State.FILE
    return State.PRESENT if backing == Backing.DRIVER else State.ANON


def classified(flags: U32, backing: Backing, kflags: U64 | None) -> np.ndarray:
    return classify(flags, np.full(len(flags), backing.value, np.uint8), kflags)


@pytest.mark.parametrize("backing", Backing)
def test_present_pages_with_frames(backing: Backing) -> None:
    expected = np.array(
        [by_frame(Flag(e), names, backing) for e in ENTRIES.tolist() for names in NAMES], np.uint8
    )
    entries, kflags = np.repeat(ENTRIES, len(KFLAGS)), np.tile(KFLAGS, len(ENTRIES))
    for soft in SOFT_ENTRIES:  # which mean nothing for a present page
        flags = entries | np.uint32(Flag.PRESENT) | soft
        assert (classified(flags, backing, kflags) == expected).all()


@pytest.mark.parametrize("backing", Backing)
def test_present_pages_without_frames(backing: Backing) -> None:
    expected = [by_entry(Flag(entry), backing) for entry in ENTRIES.tolist()]
    for soft in SOFT_ENTRIES:
        flags = ENTRIES | np.uint32(Flag.PRESENT) | soft
        assert classified(flags, backing, None).tolist() == expected


@pytest.mark.parametrize("backing", Backing)
def test_software_entries(backing: Backing) -> None:
    expected = np.array([software(Flag(entry)) for entry in SOFT_ENTRIES.tolist()], np.uint8)
    entries, kflags = np.repeat(SOFT_ENTRIES, len(KFLAGS)), np.tile(KFLAGS, len(SOFT_ENTRIES))
    for here in ENTRIES:
        flags = SOFT_ENTRIES | np.uint32(Flag.SOFT) | here
        assert (classified(flags, backing, None) == expected).all()
        found = classified(entries | np.uint32(Flag.SOFT) | here, backing, kflags)
        assert (found == np.repeat(expected, len(KFLAGS))).all()


def test_where_only_sizes_are_wanted_no_kind_is_told() -> None:
    kinds = {State.ANON, State.FILE, State.SHMEM}
    assert SIZES.tolist() == [State.PRESENT if s in kinds else s for s in State]
    zero, huge = pagemap.PFNZERO, pagemap.HUGE
    for backing, categories in product(Backing, (0, zero, huge, zero | huge)):
        of = by_hand.vmas([(HEAP, 1, READ, 0, backing, "")])
        regions = np.array([[HEAP, HEAP + PAGE, categories]], np.uint64)
        (state,) = sum_regions(of, regions).amounts.state
        held = State.HUGETLB if backing == Backing.HUGETLB else State.PRESENT
        assert state == (State.ZERO if categories & zero else held)


def test_tables_whose_frames_are_not_read_count_as_their_pages_would() -> None:
    found = alone_amounts(np.zeros(2, np.int64), np.array([1, 512])).amounts
    assert classified(found.flags, Backing.ANON, found.kflags).tolist() == found.state.tolist()
    assert found.state.tolist() == [State.ANON] * 2
    assert not maybe_repeated(found).any()


def test_a_mixed_batch_is_classified_like_its_rows_one_by_one() -> None:
    rng = np.random.default_rng(11)
    some = 4096
    flags = rng.choice(ENTRIES, some) | rng.choice(SOFT_ENTRIES, some)
    flags |= np.where(rng.integers(2, size=some), Flag.PRESENT, Flag.SOFT).astype(np.uint32)
    backing = rng.integers(len(Backing), size=some).astype(np.uint8)
    kflags = rng.choice(KFLAGS, some)
    for frames in (kflags, None):
        alone = [
            int(classify(flags[i : i + 1], backing[i : i + 1],
                         None if frames is None else frames[i : i + 1])[0])
            for i in range(some)
        ]
        assert classify(flags, backing, frames).tolist() == alone


def test_every_state_has_a_standing() -> None:
    # All states, including those for what a source may be unable to tell apart.
    assert list(STANDINGS) == list(State)
    present = "anon file shmem zero special hugetlb device present"
    others = "empty swapped migrating poisoned guard marker soft not_mapped absent doubt"
    assert {s.label for s in State} == {*present.split(), *others.split()}


@pytest.mark.parametrize(
    ("mask", "states"),
    [
        (IS_PRESENT, "anon file shmem zero special hugetlb device present"),
        # smaps_pte_entry: vm_normal_page, and the pages of migration and device-private entries
        (IN_RSS, "anon file shmem device present migrating"),
        (IN_PSS, "anon file shmem device migrating"),  # whose mapcount is known
        (HELD, "anon file shmem hugetlb migrating"),  # RAM, and neither zero page nor poisoned
        (~HAS_ENTRY, "empty not_mapped absent"),
    ],
)
def test_the_states_that_count(mask: np.ndarray, states: str) -> None:
    assert {s.label for s in State if mask[s]} == set(states.split())


# Frames in which to flip a bit: all combinations of the bits that decide anything.
BITS = ("anon", "ksm", "swapbacked", "dirty", "huge", "zero_page", "nopage", "thp")
BEFORE = np.array(words([1 << KPF[name] for name in BITS]), np.uint64) | kpf("mmap")


def account(flags: Flag, kflags: U64, *, fields: bool) -> list[list[int] | None]:
    """Return all columns of pages with these frames, one per VMA, from the accounting itself."""
    count = len(kflags)
    of = by_hand.vmas(
        [(HEAP + i * PAGE, 1, READ, 0, Backing.KERNEL, "") for i in range(count)]
    )
    state = classified(np.full(count, flags, np.uint32), Backing.KERNEL, kflags)
    rows = [
        (HEAP + i * PAGE, PAGE, State(s), flags, 0x1000 + i, (), i // 2 % 3)
        for i, s in enumerate(state.tolist())
    ]
    pages = replace(by_hand.pages(rows, of), kflags=kflags)
    table: Table = (
        by_field(by_hand.page_walk([pages], of, tables=True, young=True))
        if fields
        else by_vma(by_hand.walk([pages], of, tables=True))
    )
    return [None if c is None else c.tolist() for c in table.columns.values()]


def deciding(*entries: Flag, fields: bool) -> np.uint64:
    """Return the bits of a frame behind one of ``entries`` that change any column."""
    found = np.uint64(0)
    for flags in entries:
        before = account(flags, BEFORE, fields=fields)
        for name in KPF.keys() - {"mmap"}:
            if account(flags, BEFORE ^ kpf(name), fields=fields) != before:
                found |= kpf(name)
    return found


def test_a_program_keeps_the_bits_that_change_a_sum() -> None:
    assert deciding(Flag.PRESENT | Flag.NORMAL, fields=False) == KEPT


def test_what_is_accounted_is_verified() -> None:
    accounted = deciding(Flag.PRESENT, Flag.PRESENT | Flag.NORMAL, fields=True)
    # nopage is not a bit in a struct page but the lack of one, an errno; young has its own column.
    assert kpf("nopage") | kpf("young") == accounted & ~EXPORTED
    assert KEPT & ~EXPORTED == 0
