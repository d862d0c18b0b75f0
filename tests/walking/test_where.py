"""Filter expressions, on the pages of tests/by_hand.py."""

from __future__ import annotations

import pytest

from pagewalk.model.columns import ENTRY_FLAGS, Flag, State
from pagewalk.model.errors import BadRequest
from pagewalk.walking.where import check_told, parse_where, terms
from tests import by_hand
from tests.by_hand import BIG, HEAP, MEMFD, PAGE, PROGRAM, ROWS, THP, pages

ALL = {row[0] for row in ROWS}
FILES = {PROGRAM, PROGRAM + PAGE}
ANON = {HEAP, HEAP + PAGE, HEAP + 2 * PAGE, BIG}
ABSENT = {PROGRAM + 2 * PAGE, HEAP + 4 * PAGE, BIG + THP}
SWAPPED, MARKER, ZERO = HEAP + 3 * PAGE, MEMFD + 2 * PAGE, MEMFD + PAGE
PRESENT = FILES | ANON | {MEMFD, ZERO}


def found(expression: str, *, frames: bool = True) -> set[int]:
    rows = pages(ROWS, frames=frames)
    return set(rows.addr[parse_where(expression)(rows)].tolist())


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("anon", ANON),
        ("anon,~ksm", ANON - {HEAP + 2 * PAGE}),
        (" ANON , ~ KSM ", ANON - {HEAP + 2 * PAGE}),
        ("ksm", {HEAP + 2 * PAGE}),
        ("swapped", {SWAPPED}),
        ("marker", {MARKER}),
        ("uffd_wp", {MARKER}),
        ("zero", {ZERO}),
        ("absent", ABSENT),
        ("present", PRESENT),
        ("not_present", ALL - PRESENT),
        ("~present", ALL - PRESENT),
        ("pmd", {BIG}),
        ("thp", {BIG}),
        ("exclusive", {PROGRAM, HEAP, BIG}),
        ("present,~exclusive", PRESENT - {PROGRAM, HEAP, BIG}),
        ("mapcount>1", {PROGRAM + PAGE, HEAP + PAGE, HEAP + 2 * PAGE, MEMFD}),
        ("mapcount>=2", {PROGRAM + PAGE, HEAP + PAGE, HEAP + 2 * PAGE, MEMFD}),
        ("mapcount=1", {PROGRAM, HEAP, BIG}),
        ("mapcount != 1, anon", {HEAP + PAGE, HEAP + 2 * PAGE}),
        ("mapcount<1", {ZERO}),  # of pages in RAM only
        ("mapcount<=007", PRESENT),
        ("pfn=0x200", {HEAP}),
        ("pfn=512", {HEAP}),
        ("pfn>0x10,pfn<=0x101", FILES),
        ("anon,file", set()),
    ],
)
def test_all_terms_must_hold(expression: str, expected: set[int]) -> None:
    assert found(expression) == expected


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("", "unknown term ''"),
        ("anon,,ksm", "unknown term ''"),
        ("~~anon", "unknown term '~anon'"),
        ("size>1", "'size' cannot be compared with a number; only mapcount and pfn can be"),
        ("mapcount>", "'mapcount>' does not compare"),
        ("mapcount>99999999999999999999", "mapcount.*64 bits"),
    ],
)
def test_an_unknown_word_is_named(expression: str, complaint: str) -> None:
    with pytest.raises(BadRequest, match=complaint):
        parse_where(expression)


@pytest.mark.parametrize("expression", ["ksm", "thp,anon", "mapcount>1", "pfn=1"])
def test_withheld_frames_are_reported_and_never_an_empty_answer(expression: str) -> None:
    with pytest.raises(BadRequest, match="withheld"):
        found(expression, frames=False)


def test_states_and_entry_flags_need_no_frames() -> None:
    assert found("anon,exclusive", frames=False) == {HEAP, BIG}


def test_a_name_that_is_both_a_state_and_a_frame_flag_means_the_state() -> None:
    # A copied shmem page is anonymous by its frame and by its state; but the anon state is also
    # known where frames are withheld.
    assert found("anon", frames=False) == ANON
    assert set(ENTRY_FLAGS) <= set(terms())


def from_tables(flags: Flag, kpageflags: tuple[str, ...], mapcount: int, *terms: str) -> list[bool]:
    """Return which of ``terms`` are true for an anonymous page read from a page table."""
    rows = pages([(HEAP, PAGE, State.ANON, Flag.PRESENT | Flag.NORMAL | flags, 5, kpageflags,
                   mapcount)])
    return [bool(parse_where(term)(rows)[0]) for term in terms]


@pytest.mark.parametrize(
    ("flags", "kpageflags", "expected"),
    [
        (Flag(0), ("anon", "lru"), True),  # after MADV_FREE
        (Flag.DIRTY, ("anon", "lru"), False),  # written again since
        (Flag(0), ("anon", "lru", "dirty"), False),
        (Flag(0), ("anon", "lru", "swapbacked"), False),  # never freed
    ],
)
def test_lazyfree_is_what_smaps_calls_lazyfree(
    flags: Flag, kpageflags: tuple[str, ...], expected: bool
) -> None:
    assert from_tables(flags, kpageflags, 1, "lazyfree", "~lazyfree") == [expected, not expected]


def test_exclusive_is_the_mapcount_where_a_page_table_was_read() -> None:
    assert from_tables(Flag(0), ("anon",), 1, "exclusive", "~exclusive") == [True, False]
    assert from_tables(Flag(0), ("anon",), 2, "exclusive", "~exclusive") == [False, True]


@pytest.mark.parametrize("term", ["lazyfree", "~pte_dirty", "write", "young", "empty"])
def test_a_term_that_the_source_does_not_provide_is_refused(term: str) -> None:
    with pytest.raises(BadRequest, match=f"--where {term.strip('~')}: source 'procfs' does not"):
        check_told(f"anon,{term}", by_hand.walk([]))
    check_told("anon,dirty,mapcount>1", by_hand.walk([]))
    if term != "young":
        check_told(term, by_hand.walk([], tables=True))


@pytest.mark.parametrize(("expression", "hint"), [
    ("anno", "did you mean 'anon'"), ("anon,~lazyfre", "did you mean 'lazyfree'"),
    ("qqqq", "choose from: "), ("mapcount>x", "does not compare mapcount with a number"),
    ("pfn=0xg", "write pfn=2 or pfn=0x2"), ("!anon", "write ~anon"), ("not anon", "write ~anon"),
    ("anon and dirty", "a comma means and: anon,dirty"), ("anon&&thp", "means and: anon,thp"),
])
def test_a_wrong_word_is_told_from_a_wrong_number(expression: str, hint: str) -> None:
    with pytest.raises(BadRequest) as found:
        parse_where(expression)
    assert hint in str(found.value)
