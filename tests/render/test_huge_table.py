"""The screen, the document and the rows of `maps --huge`."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest

from pagewalk.account.huge import Huge, Zeros
from pagewalk.render import view
from pagewalk.render.huge_table import answers
from tests.by_hand import PAGE, THP
from tests.huge_by_hand import huge, huge_of_each
from tests.render.written import Terminal


def with_totals(**pages: int | None) -> Huge:
    found = huge()
    changed = {name: None if n is None else n * PAGE for name, n in pages.items()}
    return found._replace(totals=found.totals | changed)


def screen(found: Huge, out: io.StringIO | None = None, **options: Any) -> str:
    out = io.StringIO() if out is None else out
    view("text", "huge", False)(found, [0, 1, 2, 3], out, **options)
    return out.getvalue()


def test_the_answer_is_what_is_huge_what_is_broken_up_and_what_is_zero() -> None:
    assert list(answers(huge(zeros=True))) == [
        "2048 KiB of the 4688 KiB in RAM (44%) is in huge pages, mapped by one entry each; 2112 KiB"
        " more is other large folios, whole and aligned; besides, 2048 KiB is hugetlb pages.",
        "Broken up, with an entry for each page: 460 KiB in large folios that a mapping has only"
        " in part (1688 KiB of these folios is mapped nowhere in the process, 1200 KiB by nobody:"
        " in RAM until the kernel splits them), and 64 KiB in whole ones at addresses where no"
        " larger entry fits.",
        "1024 KiB of the 2048 KiB in anonymous huge pages contains only zeros, which splitting them"
        " would give back; 1024 KiB of it is in those that the kernel splits when memory runs"
        " short, with more than 200 of 512 pages zero.",
    ]


@pytest.mark.parametrize(("pages", "says"), [
    ({"pmd": 0, "contiguous": 0, "hugetlb": 0}, "None of the 4688 KiB in RAM is in huge pages."),
    ({"pmd": None, "contiguous": None, "hugetlb": 0},
     "How much of the 4688 KiB in RAM is in huge pages cannot be told here."),
    ({"rss": None, "contiguous": 0, "hugetlb": 0},
     "2048 KiB of what is in RAM is in huge pages, mapped by one entry each."),
])
def test_what_is_not_there_or_not_known_is_not_spoken_of(
    pages: dict[str, int | None], says: str
) -> None:
    assert next(answers(with_totals(**pages, unaligned=0, partly=0))) == says
    assert len(list(answers(with_totals(**pages, unaligned=0, partly=0)))) == 1


@pytest.mark.parametrize(("looked", "zero", "most", "says"), [
    (0, 0, 512, "There are no anonymous huge pages to look into."),
    (THP, 0, 512, "0 KiB of the 2048 KiB in anonymous huge pages contains only zeros, which"
     " splitting them would give back."),
    (THP, THP // 2, 512, "; the kernel is set to split none of them for that."),
    (THP, THP // 2, None, "which splitting them would give back."),
])
def test_zeros_are_told_with_what_the_kernel_does_about_them(
    looked: int, zero: int, most: int | None, says: str
) -> None:
    zeros = Zeros(np.array([zero]), looked, 0, None if most is None else 0, most)
    *_, last = answers(huge()._replace(zeros=zeros))
    assert last.endswith(says)


def test_the_screen_has_the_mappings_their_sum_and_the_folios_by_size() -> None:
    lines = [line.split() for line in screen(huge(zeros=True)).splitlines()]
    heading = ["ADDRESS", "RSS", "PMD", "CONTIGUOUS", "UNALIGNED", "PARTLY", "NOT", "HERE",
               "STRANDED", "HUGETLB", "ZEROS", "NAME"]
    at = lines.index(heading)
    assert lines[at + 1] == ["001000000000", "4500", "2048", "2048", "0", "404", "1644", "1200",
                             "0", "1024", "[heap]"]
    assert lines[at + 5] == ["4688", "2048", "2112", "64", "460", "1688", "1200", "2048", "1024",
                             "total", "of", "4", "VMAs"]
    assert lines[at + 7 : at + 10] == [
        ["FOLIO", "FOLIOS", "PMD", "CONTIGUOUS", "UNALIGNED", "PARTLY", "HUGETLB"],
        ["64", "4", "0", "64", "64", "56", "0"],
        ["2048", "4", "2048", "2048", "0", "404", "2048"],
    ]


def test_mappings_that_are_left_out_are_counted() -> None:
    out = io.StringIO()
    view("text", "huge", False)(huge(), [0, 3], out)
    assert "2 more: --limit 4 shows all" in out.getvalue().splitlines()
    assert "more:" not in screen(huge())


def test_a_terminal_is_told_how_to_look_for_zeros_unless_that_was_done() -> None:
    assert "maps 4711 --huge --zeros" in screen(huge(), Terminal()).replace("\xa0", " ")
    assert "--zeros" not in screen(huge(zeros=True), Terminal())


def test_what_is_withheld_is_na_with_the_reason() -> None:
    text = screen(huge(frames=False))
    assert "n/a" in text and "partial: contiguous, unaligned, partly" in text
    assert "FOLIOS" not in text


def test_the_document_has_all_of_it() -> None:
    out = io.StringIO()
    view("json", "huge")(huge(zeros=True), [0, 3], out)
    document = json.loads(out.getvalue())
    assert document["totals"]["missing"] == (411 + 11) * PAGE
    assert document["zeros"] == {"bytes": 256 * PAGE, "looked": THP, "moved": 0,
                                 "underused": 256 * PAGE, "splits_above": 200}
    assert [vma["start"] for vma in document["vmas"]] == ["0x1000000000", "0x4000000000"]
    assert [row["size"] for row in document["sizes"]] == [16 * PAGE, THP]
    assert document["vmas"][0]["zeros"] == 256 * PAGE


def test_csv_has_a_line_for_each_mapping() -> None:
    out = io.StringIO()
    view("csv", "huge")(huge(), [1], out, columns=["unaligned", "zeros", "end"])
    assert out.getvalue() == (
        f"start,perms,name,unaligned,zeros,end\n0x2000000000,r--p,/lib/libc.so,{16 * PAGE},,"
        "0x2000030000\n")


# ---- of several processes


def test_of_several_the_sum_is_the_answer_and_each_has_a_line() -> None:
    found = huge_of_each()
    out = io.StringIO()
    view("text", "huge_of_each", False)(found, found.rows[:2], out)
    first, *lines = out.getvalue().replace("\n  ", " ").splitlines()
    assert first == (
        "3 processes: RSS adds up to 14064 KiB; 6144 KiB of it is in huge pages, mapped by one"
        " entry each, 1380 KiB in large folios that a mapping has only in part.")
    assert lines[1].split() == ["PID", "RSS", "PMD", "CONTIGUOUS", "UNALIGNED", "PARTLY", "NOT",
                                "HERE", "STRANDED", "HUGETLB", "ZEROS", "NAME"]
    assert len([line for line in lines if line.split()[:3][1:] == ["4688", "2048"]]) == 2
    assert "1 more: --limit 3 shows all" in lines


def test_of_several_what_one_withholds_has_no_sum() -> None:
    found = huge_of_each()
    row = found.rows[0]
    found = found._replace(rows=(row._replace(amounts=row.amounts | {"pmd": None}), *found.rows))
    assert found.sum_of("pmd") is None and found.sum_of("rss")
    out = io.StringIO()
    view("csv", "huge_of_each")(found, found.rows[:1], out, columns=["pmd", "name"])
    assert out.getvalue() == f"pid,pmd,name\n{row.pid},,{row.name}\n"
