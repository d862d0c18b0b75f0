"""How large folios are mapped, on an address space that can be checked on paper."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.account.huge import Huge, Size, by_folio, large, may_be_huge, value
from pagewalk.model.columns import State, take
from tests import by_hand, huge_by_hand
from tests.by_hand import FACTS, PAGE, THP
from tests.huge_by_hand import LIBC, ROWS, VMAS, Frames, huge, mapped, walked

# In base pages, by VMA; see tests/huge_by_hand.py.
EXPECTED = {
    "rss": [1125, 37, 10, 0], "pmd": [512, 0, 0, 0], "contiguous": [512, 16, 0, 0],
    "unaligned": [0, 16, 0, 0], "partly": [101, 4, 10, 0], "small": [0, 1, 0, 0],
    "missing": [411, 12, 8 + 14, 0], "stranded": [300, 0, 0, 0], "anon_huge": [512, 0, 0, 0],
    "hugetlb": [0, 0, 0, 512], "private_hugetlb": [0, 0, 0, 512], "fits": [2048, 0, 0, 0],
}
SIZES = (
    Size(16 * PAGE, 4, 0, 16 * PAGE, 16 * PAGE, 14 * PAGE, 0),
    Size(THP, 4, THP, THP, 0, 101 * PAGE, THP),
)


def pages_of(found: Huge) -> dict[str, list[int]]:
    return {name: (found.columns[name] // PAGE).tolist() for name in EXPECTED  # type: ignore[operator]
            if found.columns[name] is not None}


def test_each_page_of_rss_is_in_one_column() -> None:
    found = huge()
    assert pages_of(found) == EXPECTED
    assert found.sizes == SIZES
    parts = ("pmd", "contiguous", "unaligned", "partly", "small")
    assert sum(found.totals[name] or 0 for name in parts) == found.totals["rss"]


def test_in_the_total_a_folio_misses_only_what_no_mapping_has() -> None:
    # All of 1010/16 is mapped by libc; of 1020/16 five pages are, one of them twice.
    assert huge().totals["missing"] == (411 + 11) * PAGE
    assert huge().totals["partly"] == (101 + 4 + 10) * PAGE


@pytest.mark.parametrize("at", [1, 3, 17, 100, 511, 700])
def test_where_a_batch_of_the_walk_ends_does_not_matter(at: int) -> None:
    whole = by_hand.pages(ROWS, VMAS)
    found = by_folio(walked(by_hand.cut(whole, at)), Frames())
    assert pages_of(found) == EXPECTED
    assert found.sizes == SIZES
    assert found.totals["missing"] == huge().totals["missing"]


def test_looking_folios_up_a_few_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pagewalk.account.huge.TOGETHER", 1)
    monkeypatch.setattr("pagewalk.account.folio_sums.COUNTED", 1)
    found = by_folio(walked(by_hand.cut(by_hand.pages(ROWS, VMAS), 5)), Frames())
    assert pages_of(found) == EXPECTED


def test_a_huge_page_with_uneven_mapcounts_is_one_all_the_same() -> None:
    # The walk makes a row of each base page, with the flags of the first.
    whole = by_hand.pages(ROWS, VMAS)
    spread = take(whole, np.append(np.zeros(512, np.int64), np.arange(1, len(whole))))
    assert spread.pfn is not None and spread.mapcount is not None
    step = np.arange(512, dtype=np.uint64)
    spread.addr[:512] += step * np.uint64(PAGE)
    spread.pfn[:512] += step
    spread.size[:512] = PAGE
    spread.mapcount[:256] = 2
    found = by_folio(walked([spread]), Frames())
    assert pages_of(found) == EXPECTED
    assert found.sizes == SIZES


def test_two_huge_pages_side_by_side_are_two() -> None:
    rows = [(huge_by_hand.HEAP + n * THP, THP, State.ANON, ROWS[0][3], 0x400 + 512 * n, ROWS[0][5],
             1) for n in (0, 1)]
    found = by_folio(walked([by_hand.pages(rows, VMAS)]), Frames({0x400: 9, 0x600: 9}))
    assert found.sizes == (Size(THP, 2, 2 * THP, 0, 0, 0, 0),)
    assert found.anon.tolist() == [huge_by_hand.HEAP, huge_by_hand.HEAP + THP]


def two_halves(*vmas: tuple[int, int], second: int) -> Huge:
    """Return what becomes of a folio whose second half is mapped at ``second``; VMAs in pages."""
    of = by_hand.vmas([(start, pages, 3, 0, by_hand.Backing.ANON, "") for start, pages in vmas])
    halves = [by_hand.pages(mapped(addr, pfn, 8, State.ANON, "anon"), of)
              for addr, pfn in ((LIBC, 0x1000), (second, 0x1008))]
    return by_folio(by_hand.page_walk(halves, of), Frames())


def test_two_halves_in_a_row_are_a_whole_only_in_one_mapping() -> None:
    size, half = 16 * PAGE, LIBC + 8 * PAGE
    one = two_halves((LIBC, 16), second=half)
    assert (one.totals["contiguous"], one.totals["partly"]) == (size, 0)
    for apart in (two_halves((LIBC, 8), (half, 8), second=half),
                  two_halves((LIBC, 32), second=half + PAGE)):
        assert (apart.totals["contiguous"], apart.totals["partly"]) == (0, size)
        assert apart.totals["missing"] == 0
        assert [row.folios for row in apart.sizes or ()] == [1]


def test_a_hugetlb_page_of_1_gib_is_one_however_many_entries_are_told() -> None:
    # pagemap has an entry for each base page, and the walk makes pieces of 2 MiB of them.
    gib, flags = 1 << 30, ROWS[-1][3]
    of = by_hand.vmas([(gib, gib // PAGE, 3, 0, by_hand.Backing.HUGETLB, "/x")])
    rows = [(gib + n * THP, THP, State.HUGETLB, flags, (1 << 18) + 512 * n,
             ("huge", "tail" if n else "head"), 1) for n in range(512)]
    found = by_folio(by_hand.page_walk([by_hand.pages(rows, of)], of), Frames({1 << 18: 18}))
    assert found.sizes == (Size(gib, 1, 0, 0, 0, 0, gib),)
    assert found.columns["hugetlb"] is not None and found.columns["hugetlb"].tolist() == [gib]


def test_a_folio_that_was_split_meanwhile_is_in_no_column_and_named() -> None:
    folios = {head: order for head, order in huge_by_hand.FOLIOS.items() if head != 0x1000}
    found = by_folio(walked(), Frames(folios))
    columns = pages_of(found)
    assert (columns["unaligned"][1], columns["small"][1]) == (0, 1)
    (row,) = [row for row in found.table.outcome.withheld if row.partial]
    assert row.what == f"{16 * PAGE} bytes" and "split or joined" in row.why


def test_without_frames_only_huge_pages_are_told() -> None:
    found = huge(frames=False)
    assert {name for name in EXPECTED if found.columns[name] is None} == {
        "contiguous", "unaligned", "partly", "small", "missing", "stranded", "private_hugetlb"}
    assert found.sizes is None and found.totals["missing"] is None
    assert found.totals["pmd"] == THP
    (row,) = [row for row in found.table.outcome.withheld if "large folios" in row.why]
    assert row.partial


def test_where_huge_entries_are_not_told_the_rest_is() -> None:
    # As if each page had an entry of its own, which is how pagemap shows it.
    whole = by_hand.pages(ROWS, VMAS)
    whole.flags[:] &= ~np.uint32(huge_by_hand.Flag.HUGE)
    found = by_folio(walked([whole], huge=False), Frames())
    for name in ("pmd", "contiguous", "anon_huge"):
        assert found.columns[name] is None and found.totals[name] is None
    told = pages_of(found)
    assert told == {name: EXPECTED[name] for name in told}
    assert {"unaligned", "partly", "missing", "stranded", "small"} <= set(told)
    assert found.sizes is None


def test_without_mapcounts_of_its_pages_nobody_knows_what_a_folio_has_left() -> None:
    facts = FACTS._replace(read_config=lambda: frozenset({"CONFIG_NO_PAGE_MAPCOUNT"}))
    found = by_folio(walked(facts=facts), Frames())
    assert found.columns["stranded"] is None and found.totals["stranded"] is None
    assert pages_of(found)["missing"] == EXPECTED["missing"]
    assert "stranded" in [row.what for row in found.table.outcome.withheld]


def test_what_is_in_the_swap_cache_is_not_stranded() -> None:
    whole = by_hand.pages(ROWS, VMAS)
    assert whole.kflags is not None and whole.pfn is not None
    whole.kflags[(whole.pfn >= 0x600) & (whole.pfn < 0x800)] |= by_hand.kpf("swapcache")
    found = by_folio(walked([whole]), Frames())
    assert pages_of(found)["stranded"] == [0, 0, 0, 0]
    assert pages_of(found)["missing"] == EXPECTED["missing"]


@pytest.mark.parametrize(("start", "pages", "offset", "backing", "room"), [
    (THP, 512, 0, "ANON", 1), (THP + PAGE, 1023, 0, "ANON", 1), (THP + PAGE, 1022, 0, "ANON", 0),
    (THP, 1024, THP, "FILE", 2), (THP, 1024, PAGE, "FILE", 0), (THP + PAGE, 1023, PAGE, "SHMEM", 1),
    (THP, 1024, 0, "HUGETLB", 0), (THP, 1024, 0, "DRIVER", 0),
])
def test_a_huge_page_fits_where_address_and_offset_are_aligned(
    start: int, pages: int, offset: int, backing: str, room: int
) -> None:
    from pagewalk.account.huge import fits

    vmas = by_hand.vmas([(start, pages, 3, offset, by_hand.Backing[backing], "")])
    assert fits(vmas, FACTS).tolist() == [room * THP]


def test_the_rows_that_are_shown_are_those_that_have_something_huge_or_could() -> None:
    found = huge()
    assert may_be_huge(found).tolist() == [0, 1, 2, 3]
    assert (large(found) // PAGE).tolist() == [1125, 36, 10, 512]
    empty = by_folio(walked([by_hand.pages([ROWS[0]], VMAS)]), Frames())
    assert may_be_huge(empty).tolist() == [0]


def test_a_value_is_a_number_a_word_or_withheld() -> None:
    found = huge()
    assert value(found, 0, "pmd") == THP
    assert value(found, 1, "name") == "/lib/libc.so"
    assert value(found, 0, "zeros") is None and value(found, 0, "eligible") is None
    told = found._replace(columns=found.columns | {"eligible": np.array([1, -1, 0, 0])})
    assert [value(told, row, "eligible") for row in range(3)] == [1, None, 0]


