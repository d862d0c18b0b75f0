"""Where large folios begin and how large they are, from the marks of a few pages."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from pagewalk.model.columns import U64
from pagewalk.walking.folios import find_folios, pieces
from tests import by_hand
from tests.by_hand import FACTS, PAGE, THP
from tests.huge_by_hand import AGAIN, HEAP, LIBC, POOL, ROWS, VMAS, Frames
from tests.properties import always


def numbers(*values: int) -> U64:
    return np.array(values, np.uint64)


def found(folios: dict[int, int], *pfns: int) -> list[tuple[int, int]]:
    frames = Frames(folios)
    asked = numbers(*pfns)
    heads, order = find_folios(frames, asked, frames.marks(asked))
    return list(zip(heads.tolist(), order.tolist(), strict=True))


def test_any_page_of_a_folio_leads_to_its_first_and_to_its_order() -> None:
    folios = {0x10: 1, 0x12: 1, 0x20: 4, 0x200: 9, 0x400: 9, 0x4_0000: 18}
    for head, order in folios.items():
        pages = {head, head + 1, head + (1 << order) // 2, head + (1 << order) - 1}
        assert found(folios, *pages) == [(head, order)] * len(pages)


def test_a_page_whose_folio_is_gone_has_order_0() -> None:
    # What its flags said when they were read is no longer true.
    heads, order = find_folios(Frames({0x200: 9}), numbers(0x20, 0x205, 0x21),
                               numbers(1 << 15, 1 << 16, 1 << 16))
    assert order.tolist() == [0, 9, 0]
    assert heads[1] == 0x200


def test_nothing_is_asked_for_no_pages() -> None:
    assert found({}) == []


@st.composite
def folios(draw: st.DrawFn) -> dict[int, int]:
    """Return folios by their first frame, each aligned to its size, with gaps in between."""
    made, at = {}, 0
    for order in draw(st.lists(st.integers(1, 9), min_size=1, max_size=12)):
        at = -(-at >> order) + draw(st.integers(0, 2)) << order
        made[at + (1 << 20)] = order
        at += 1 << order
    return made


@always(folios())
def test_every_page_of_every_folio_is_placed(made: dict[int, int]) -> None:
    for head, order in made.items():
        pages = list(range(head, head + (1 << order)))
        assert found(made, *pages) == [(head, order)] * len(pages)


def test_a_piece_ends_where_the_folio_the_mapping_or_the_order_of_pages_ends() -> None:
    told = pieces(by_hand.pages(ROWS, VMAS), FACTS)
    rows = list(zip(told.addr.tolist(), (told.size // np.uint64(PAGE)).tolist(), told.pfn.tolist(),
                    told.huge.tolist(), strict=True))
    assert rows == [
        (HEAP, 512, 0x400, True), (HEAP + THP, 100, 0x600, False),
        (HEAP + THP + 511 * PAGE, 1, 0x600 + 511, False), (HEAP + 2 * THP, 512, 0x800, False),
        (LIBC + PAGE, 16, 0x1000, False), (LIBC + 20 * PAGE, 4, 0x1021, False),
        (LIBC + 32 * PAGE, 16, 0x1010, False), (AGAIN, 8, 0x1010, False),
        (AGAIN + 8 * PAGE, 1, 0x1021, False), (AGAIN + 9 * PAGE, 1, 0x102F, False),
        (POOL, 512, 0xA00, True),
    ]
