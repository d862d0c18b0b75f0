"""Remarks on a translation beyond its bits; the rules are those of the page-fault handler."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from pagewalk.model.columns import VMAs
from pagewalk.translate.remarks import amount, neighbours
from pagewalk.translate.translation import Opinion
from tests.by_hand import VMAS
from tests.vtop_by_hand import found


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 bytes"), (1, "1 byte"), (1023, "1023 bytes"), (4096, "4 KiB"), (1 << 21, "2 MiB"),
     (1 << 30, "1 GiB"), (1 << 39, "512 GiB"), (3 << 29, "1.5 GiB"), (16 << 40, "16 TiB")],
)
def test_an_amount_in_its_largest_unit(size: int, words: str) -> None:
    assert amount(size) == words


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("copied", "a write faults, and copy-on-write gives this process a copy"),
        ("shared", "a write faults, and the kernel marks the file's page dirty"),
        ("zero", "shared zero page"),
        ("huge", "the PMD entry maps 2 MiB directly, so the bits that would select a PTE are"),
        ("none", "The page table exists, but this slot is empty"),
        ("none", "An access that the VMA permits allocates a page."),
        ("none", "The file's page may still be in the page cache"),
        ("no_table", "nothing is mapped in the 2 MiB that it covers"),
        ("no_table", "allocates a page and the missing tables (PTE)"),
        ("swap", "swapped out: an access reads it back"),
        ("guard", "any access raises SIGSEGV"),
        ("prot_none", "an access faults, as a NUMA hint"),
        ("doubt", "its frame is beyond the end of memory"),
        # PROGRAM begins at 0x400000, that is 0x3ff000 above 0x1000
        ("outside", "not in any VMA, so an access raises SIGSEGV; /usr/bin/program begins 0x3ff000"
         " above"),
        ("kernel", "in the kernel half of the address space"),
    ],
)
def test_an_unusual_page_gets_a_remark(case: str, says: str) -> None:
    assert says in " ".join(found(case).remarks)


@pytest.mark.parametrize("case", ["page", "file"])
def test_an_ordinary_page_gets_no_remark(case: str) -> None:
    assert found(case).remarks == ()


def test_a_page_that_no_other_process_maps_may_be_reused() -> None:
    one = found("copied")
    assert one.frame is not None
    alone = found("copied", frame=type(one.frame)(one.frame.pfn, one.frame.kflags, 1))
    assert "reuses the page" in alone.remarks[0]


BARRED = replace(VMAS, perms=np.zeros(len(VMAS), np.uint8))
NOBODY = VMAs(**{
    f.name: None if (c := getattr(VMAS, f.name)) is None else c[:0] for f in fields(VMAS)
})


def test_a_page_without_access_is_prot_none_and_not_a_numa_hint() -> None:
    said = " ".join(found("prot_none", vmas=BARRED).remarks)
    assert "because the VMA grants no access (PROT_NONE)" in said
    assert "NUMA" not in said


def test_touching_a_hole_without_access_allocates_no_page() -> None:
    said = " ".join(found("none", vmas=BARRED).remarks)
    assert "grants no access: touching it raises SIGSEGV and allocates nothing" in said
    assert "allocates a page" not in said


def test_a_race_and_a_difference_come_first() -> None:
    moving = found("page", stable=False)
    assert moving.remarks[0].startswith("The entries changed between readings")
    other = found("page", pagemap=Opinion(0, False, "the page tables say 4 KiB page"))
    assert other.remarks[0] == "pagemap disagrees: the page tables say 4 KiB page."


def test_between_two_vmas_both_neighbours_are_named() -> None:
    # The program ends at 0x404000 and the heap begins at 0x600000: 0x500000 is 0xfc000 above the
    # one and 0x100000 below the other.
    assert neighbours(VMAS, 0x50_0000) == (
        "; /usr/bin/program ends 0xfc000 below it, [heap] begins 0x100000 above it"
    )
    assert neighbours(NOBODY, 0x50_0000) == ""
