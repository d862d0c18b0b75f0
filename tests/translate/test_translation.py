"""What pagemap says of an address beside its trace; what is expected is worked out on paper."""

from __future__ import annotations

import pytest

from pagewalk.translate.translation import compare, spell_pagemap
from tests.memory import DATA
from tests.pagetables.test_trace import PSE, X86, follow, tables

HERE, SOFT = 1 << 63, 1 << 62


@pytest.mark.parametrize(
    ("pte", "word", "agrees"),
    [
        (DATA | 0x1234_5000, HERE | 1 << 56 | 0x12345, True),
        (DATA | 0x1234_5000, HERE | 0x12346, False),
        (DATA | 0x1234_5000, 0, False),
        # hidden frames read as 0: only presence can be compared
        (DATA | 0x1234_5000, HERE, True),
        (0, 0, True),
        # soft-dirty of the VMA, bit 55, says nothing about the page
        (0, 1 << 55, True),
        (0, HERE | 0x12345, False),
        # swap: type 1, offset 5
        (1 << 59 | (~5 & (1 << 50) - 1) << 9, SOFT | 1 | 5 << 5, True),
        (1 << 59 | (~5 & (1 << 50) - 1) << 9, SOFT | 1 | 6 << 5, False),
        # the markers of KERNEL: wp, poison, guard
        (0xFFFF_FFFF_FFFF_FC00, 0x4200_0000_0000_003F, True),
        (0xFFFF_FFFF_FFFF_FA00, 0x4000_0000_0000_005F, True),
        (0xFFFF_FFFF_FFFF_F600, 0x4400_0000_0000_009F, True),
        # migration, type 30 of this kernel: young and dirty above the frame are not shown
        (30 << 59 | (~(3 << 34 | 0x777) & (1 << 50) - 1) << 9, SOFT | 30 | 0x777 << 5, True),
    ],
)
def test_whether_pagemap_agrees(pte: int, word: int, agrees: bool) -> None:
    opinion = compare(X86, follow(tables(pte=pte)), word)
    assert opinion.agrees is agrees
    assert opinion.word == word
    assert bool(opinion.why) is (not agrees or word == HERE)


def test_pagemap_numbers_the_pages_of_a_huge_page() -> None:
    # page 0x167 of the 2 MiB at frame 0x40000
    found = follow(tables(pmd=0x4000_0000 | DATA | PSE))
    assert compare(X86, found, HERE | 0x4_0167).agrees is True
    assert compare(X86, found, HERE | 0x4_0000).agrees is False


@pytest.mark.parametrize(
    ("word", "says"),
    [
        (None, "nothing: it ends below this address"),
        (0, "no page"),
        (HERE | 0x12345, "present, frame 0x12345"),
        (HERE, "present, its frame is hidden"),
        (SOFT | 1 | 5 << 5, "swap or another software entry, type 1, offset 5"),
    ],
)
def test_a_pagemap_word_in_words(word: int | None, says: str) -> None:
    assert spell_pagemap(word) == says
