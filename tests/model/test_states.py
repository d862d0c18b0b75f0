"""What is behind a page: one row per rule of fs/proc/task_mmu.c."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.model.bits import KPF
from pagewalk.model.columns import Backing, Flag, State
from pagewalk.model.states import classify

HERE = Flag.PRESENT
NAMED = Flag.PRESENT | Flag.FILE


def state(flags: Flag, backing: Backing, *kpageflags: str, frames: bool = True) -> State:
    word = sum(1 << KPF[name] for name in kpageflags)
    kflags = np.array([word], np.uint64) if frames else None
    (found,) = classify(np.array([flags], np.uint32), np.array([backing], np.uint8), kflags)
    return State(found)


@pytest.mark.parametrize(
    ("flags", "backing", "kpageflags", "expected"),
    [
        (HERE, Backing.ANON, ("anon", "swapbacked"), State.ANON),
        (HERE, Backing.ANON, ("anon", "ksm"), State.ANON),
        (HERE, Backing.FILE, ("anon", "swapbacked"), State.ANON),  # copied on write
        # A frame that the database knows nothing about: the entry without bit 61 is enough.
        (HERE, Backing.ANON, (), State.ANON),
        (HERE, Backing.FILE, (), State.ANON),
        (HERE, Backing.SHMEM, (), State.ANON),
        (HERE, Backing.DRIVER, (), State.SPECIAL),
        (NAMED, Backing.FILE, ("lru", "uptodate"), State.FILE),
        (NAMED, Backing.SHMEM, ("swapbacked", "lru"), State.SHMEM),
        (NAMED, Backing.KERNEL, ("reserved",), State.FILE),  # the vdso counts in RssFile
        (NAMED, Backing.DRIVER, (), State.DEVICE),  # ZONE_DEVICE: no page database entry
        # Up to 6.14 files and devices that are memory have entries without a normal page: no RSS.
        (HERE, Backing.FILE, ("nopage",), State.SPECIAL),
        (NAMED | Flag.HUGE, Backing.FILE, ("nopage",), State.SPECIAL),  # pagemap sets bit 61
        (NAMED | Flag.HUGE, Backing.DRIVER, ("nopage",), State.SPECIAL),
        (HERE, Backing.ANON, ("nopage",), State.ANON),  # migrated to a device, and normal
        # A page table says the same, whatever is in the device's struct page.
        (HERE | Flag.SPECIAL | Flag.DEVICE, Backing.FILE, ("reserved",), State.SPECIAL),
        (HERE | Flag.SPECIAL | Flag.DEVICE, Backing.FILE, ("head", "reserved"), State.SPECIAL),
        (HERE | Flag.NORMAL, Backing.FILE, ("nopage",), State.FILE),
        (HERE | Flag.SPECIAL, Backing.ANON, ("zero_page", "reserved"), State.ZERO),
        (NAMED, Backing.FILE, (), State.FILE),  # RAM initialised late, or DAX: the VMA decides
        (NAMED, Backing.SHMEM, (), State.SHMEM),
        (HERE, Backing.FILE, ("thp", "head", "lru"), State.FILE),  # to 6.8 a PMD lacks bit 61
        (HERE, Backing.ANON, ("zero_page",), State.ZERO),
        (HERE | Flag.ZERO, Backing.ANON, ("reserved",), State.ZERO),
        # The huge zero page has bit 61 (6.12) and is a large folio.
        (NAMED | Flag.HUGE, Backing.ANON, ("zero_page", "thp", "head"), State.ZERO),
        (HERE, Backing.DRIVER, ("reserved",), State.SPECIAL),  # neither anon nor bit 61
        (NAMED, Backing.HUGETLB, ("huge", "head", "swapbacked"), State.HUGETLB),
        (HERE, Backing.HUGETLB, ("huge", "anon", "head"), State.HUGETLB),
    ],
)
def test_a_present_page_is_what_its_frame_says(
    flags: Flag, backing: Backing, kpageflags: tuple[str, ...], expected: State
) -> None:
    assert state(flags, backing, *kpageflags) == expected


@pytest.mark.parametrize(
    ("flags", "backing", "expected"),
    [
        (HERE, Backing.ANON, State.ANON),
        (HERE, Backing.FILE, State.ANON),  # present without bit 61 in a file's VMA: copied
        (NAMED, Backing.FILE, State.FILE),
        (NAMED, Backing.SHMEM, State.SHMEM),
        (HERE, Backing.SHMEM, State.ANON),
        (NAMED, Backing.HUGETLB, State.HUGETLB),
        (HERE, Backing.HUGETLB, State.HUGETLB),
        (HERE | Flag.ZERO, Backing.ANON, State.ZERO),
        (NAMED | Flag.HUGE, Backing.ANON, State.ZERO),  # 6.12: the huge zero page
        (NAMED, Backing.ANON, State.FILE),  # a file that is called /dev/zero
        (HERE | Flag.HUGE | Flag.MAYBE_ZERO, Backing.ANON, State.PRESENT),
        (HERE, Backing.DRIVER, State.PRESENT),  # special or anonymous: there is no telling
        (HERE | Flag.NORMAL, Backing.FILE, State.PRESENT),  # a page table has no bit 61
        (HERE | Flag.NORMAL, Backing.HUGETLB, State.HUGETLB),
        (HERE | Flag.SPECIAL, Backing.ANON, State.ZERO),
        (HERE | Flag.SPECIAL, Backing.KERNEL, State.SPECIAL),
        (NAMED, Backing.DRIVER, State.FILE),
    ],
)
def test_without_frames_bit_61_and_the_vma_decide(
    flags: Flag, backing: Backing, expected: State
) -> None:
    assert state(flags, backing, frames=False) == expected


@pytest.mark.parametrize("frames", [True, False])
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (Flag.SWAP, State.SWAPPED),
        (Flag.MIGRATION, State.MIGRATING),
        (Flag.DEVICE, State.DEVICE),
        (Flag.HWPOISON, State.POISONED),
        (Flag.MARKER | Flag.UFFD_WP, State.MARKER),
        (Flag.MARKER | Flag.HWPOISON, State.POISONED),  # UFFDIO_POISON
        (Flag.GUARD | Flag.MARKER, State.GUARD),
        (Flag.UFFD_WP | Flag.SWAP, State.SWAPPED),
        (Flag(0), State.SOFT),  # the type was hidden
    ],
)
def test_a_software_entry_is_what_its_type_says(
    flags: Flag, expected: State, frames: bool
) -> None:
    assert state(Flag.SOFT | flags, Backing.ANON, frames=frames) == expected


def test_rows_of_different_kinds_are_classified_in_one_call() -> None:
    flags = np.array([Flag.SOFT | Flag.SWAP, NAMED, HERE], np.uint32)
    backing = np.array([Backing.ANON, Backing.FILE, Backing.ANON], np.uint8)
    kflags = np.array([0, 1 << KPF["lru"], 1 << KPF["anon"]], np.uint64)
    assert classify(flags, backing, kflags).tolist() == [State.SWAPPED, State.FILE, State.ANON]
