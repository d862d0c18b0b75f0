"""The original kernel module's lines, literally, except that pages and kB now agree."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import pytest
from hypothesis import strategies as st

from pagewalk.model.columns import READ, Backing, Flag, State
from pagewalk.render import log
from tests import by_hand
from tests.by_hand import HERE, PAGE, SOFT, THP, Row
from tests.properties import always
from tests.render import written

STACK = 0x7FFD_1234_5000
VA = re.compile(r"VA:[0-9a-f]{16} (Physical page exists at PA:[0-9a-f]{16}|Physical Page Not in RAM"
                r"|Not Mapped|Not Shown by this source)")
AMOUNT = re.compile(r"(.+?) ?: ?(\d+) \((\d+) kB\)")


def logged(rows: Sequence[Row], *vmas: tuple[int, int, Backing], cut_at: int = 100) -> list[str]:
    of = by_hand.vmas([(start, n, READ, 0, backing, "") for start, n, backing in vmas])
    out = io.StringIO()
    log.pages(by_hand.cut(by_hand.pages(rows, of), cut_at), by_hand.walk([], of), out)
    return out.getvalue().splitlines()


def anon(addr: int, pfn: int) -> Row:
    return (addr, PAGE, State.ANON, HERE, pfn, ("anon",), 1)


def hole(addr: int, pages: int, state: State) -> Row:
    return (addr, pages * PAGE, state, Flag(0), 0, (), 0)


def test_a_stack_of_34_pages_as_the_module_printed_it() -> None:
    rows = [anon(STACK, 0x145B0C), hole(STACK + PAGE, 32, State.EMPTY),
            anon(STACK + 33 * PAGE, 0x145B0D)]
    lines = logged(rows, (STACK, 34, Backing.ANON))
    assert lines[0] == "VA:00007ffd12345000 Physical page exists at PA:0000000145b0c000"
    assert lines[1] == "VA:00007ffd12346000 Physical Page Not in RAM"
    assert lines[33] == "VA:00007ffd12366000 Physical page exists at PA:0000000145b0d000"
    assert lines[34:] == [
        "FOR CURRENT VMA,",
        "Present in RAM (RSS): 2 (8 kB)",
        "Not Present in RAM : 32 (128 kB)",
        "Not Mapped : 0 (0 kB)",
        "Total Pages : 34 (136 kB)",
        "TOTAL VM,",
        "RSS : 2 (8 kB)",
        "Size: 34 (136 kB)",
    ]


def test_a_missing_page_table_is_not_mapped() -> None:
    lines = logged([hole(STACK, 2, State.NOT_MAPPED)], (STACK, 2, Backing.ANON))
    assert lines[:2] == ["VA:00007ffd12345000 Not Mapped", "VA:00007ffd12346000 Not Mapped"]
    assert "Not Mapped : 2 (8 kB)" in lines
    assert "Not Present in RAM : 0 (0 kB)" in lines


def test_not_mapped_is_withheld_if_no_page_tables_were_read_and_a_page_is_missing() -> None:
    # All pages of the first VMA are present, so none is unmapped, with or without page tables.
    rows = [anon(PAGE, 5), anon(8 * PAGE, 6), hole(9 * PAGE, 1, State.ABSENT), anon(20 * PAGE, 7)]
    lines = logged(rows, (PAGE, 1, Backing.ANON), (8 * PAGE, 2, Backing.ANON),
                   (20 * PAGE, 1, Backing.ANON))
    assert [line for line in lines if line.startswith("Not Mapped")] == [
        "Not Mapped : 0 (0 kB)", "Not Mapped : n/a", "Not Mapped : 0 (0 kB)",
    ]


def test_swapped_and_marked_pages_are_not_in_ram() -> None:
    rows: list[Row] = [
        (PAGE, PAGE, State.SWAPPED, SOFT | Flag.SWAP, 32, (), 0),
        (2 * PAGE, PAGE, State.GUARD, SOFT | Flag.GUARD, 159, (), 0),
    ]
    lines = logged(rows, (PAGE, 2, Backing.ANON))
    assert lines[0] == "VA:0000000000001000 Physical Page Not in RAM"
    assert "Not Present in RAM : 2 (8 kB)" in lines


def test_a_huge_leaf_is_a_line_for_each_base_page() -> None:
    rows: list[Row] = [(THP, THP, State.ANON, HERE | Flag.HUGE, 0x400, ("anon", "head"), 1)]
    lines = logged(rows, (THP, 512, Backing.ANON))
    assert lines[511] == "VA:00000000003ff000 Physical page exists at PA:00000000005ff000"
    assert "Present in RAM (RSS): 512 (2048 kB)" in lines


def test_hidden_pages_are_shown_as_hidden() -> None:
    lines = logged([hole(PAGE, 1, State.ABSENT)], (PAGE, 1, Backing.HIDDEN))
    assert lines[0] == "VA:0000000000001000 Not Shown by this source"


def test_a_withheld_frame_is_not_zero() -> None:
    out = written.write("log", "pages", frames=False)
    assert out.startswith("VA:0000000000400000 Physical page exists at PA:hidden")


def test_only_vmas_that_were_walked_have_a_block() -> None:
    assert logged([anon(PAGE, 1)], (PAGE, 1, Backing.ANON), (9 * PAGE, 1, Backing.ANON)).count(
        "FOR CURRENT VMA,"
    ) == 1


STATES = st.sampled_from(
    [State.ANON, State.FILE, State.ZERO, State.SWAPPED, State.EMPTY, State.NOT_MAPPED]
)
SPACES = st.lists(
    st.lists(st.tuples(STATES, st.integers(1, 5)), min_size=1, max_size=6), min_size=1, max_size=4
)


@always(SPACES, st.integers(1, 7))
def test_every_page_has_a_line_and_pages_and_kb_agree(
    space: list[list[tuple[State, int]]], cut_at: int
) -> None:
    rows: list[Row] = []
    vmas = []
    expected = []
    at = 16 * PAGE
    for parts in space:
        vmas.append((at, sum(n for _, n in parts), Backing.ANON))
        for state, n in parts:
            flags = HERE if state <= State.PRESENT else Flag(0)
            rows.append((at, n * PAGE, state, flags, 7, (), 0))
            expected += [f"{at + i * PAGE:016x}" for i in range(n)]
            at += n * PAGE
        at += PAGE
    lines = logged(rows, *vmas, cut_at=cut_at)
    pages = [line for line in lines if line.startswith("VA:")]
    assert [line[3:19] for line in pages] == expected
    assert all(VA.fullmatch(line) for line in pages)
    amounts = [m.groups() for line in lines if (m := AMOUNT.fullmatch(line))]
    assert len(amounts) == 4 * len(vmas) + 2
    assert all(int(count) * 4 == int(kb) for _, count, kb in amounts)
    for i in range(len(vmas)):
        present, absent, unmapped, total = (int(n) for _, n, _ in amounts[4 * i : 4 * i + 4])
        assert present + absent + unmapped == total == vmas[i][1]
    assert int(amounts[-1][1]) == sum(n for _, n, _ in vmas)
    assert int(amounts[-2][1]) == sum("exists" in line for line in pages)


@pytest.mark.parametrize("name", ["maps", "pages"])
def test_maps_writes_the_same_blocks_without_the_pages(name: str) -> None:
    lines = written.write("log", name).splitlines()
    blocks = [line for line in lines if not line.startswith("VA:")]
    assert blocks[:5] == [
        "FOR CURRENT VMA,", "Present in RAM (RSS): 2 (8 kB)", "Not Present in RAM : 2 (8 kB)",
        "Not Mapped : n/a", "Total Pages : 4 (16 kB)",
    ]
    # 2 + 3 + 2 + 512 pages are present, of 4 + 6 + 3 + 1024.
    assert blocks[20:] == ["TOTAL VM,", "RSS : 519 (2076 kB)", "Size: 1037 (4148 kB)"]
