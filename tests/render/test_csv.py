"""CSV: a program reads back exactly what was written."""

from __future__ import annotations

import csv
import io

import pytest

from tests import by_hand
from tests.by_hand import ROWS
from tests.render import written
from tests.render.written import HOSTILE


def rows(name: str, *, frames: bool = True) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(written.write("csv", name, frames=frames), newline="")))


def test_each_total_is_a_line() -> None:
    found = {row["name"]: row["bytes"] for row in rows("show")}
    assert (found["rss"], found["pss"], found["not_mapped"]) == ("2121728", "2111829", "")


def test_a_vma_is_a_line_and_any_name_survives() -> None:
    found = rows("maps")
    assert [row["name"] for row in found] == list(by_hand.VMAS.name)
    assert (found[0]["start"], found[0]["end"]) == ("0x400000", "0x404000")
    assert found[0]["perms"] == "r-xp"
    assert [int(row["uss"]) for row in found] == [4096, 4096, 0, 2 << 20]


# What some readers take for the end of a line, except a newline, which the kernel writes as \012.
ENDS = ["\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


@pytest.mark.parametrize("end", [*ENDS, '"', ",", '","', " ", "\0", "", "日本", HOSTILE])
def test_every_name_is_read_back(end: str) -> None:
    # HOSTILE has every control character except newline, which is never in a name from the kernel.
    text = written.write("csv", "maps", names=end.replace("\n", "\\012"))
    lines = text.split("\n")
    assert len(lines) == 1 + len(by_hand.VMAS) + 1 and lines[-1] == ""
    names = [name + end.replace("\n", "\\012") for name in by_hand.VMAS.name]
    for source in (io.StringIO(text, newline=""), iter(lines[:-1])):  # whole, and line by line
        assert [row["name"] for row in csv.DictReader(source)] == names


def test_withheld_is_empty_and_never_zero() -> None:
    assert {row["pss"] for row in rows("maps", frames=False)} == {""}
    assert {row["pfn"] + row["phys"] + row["mapcount"] for row in rows("pages", frames=False)} == {
        ""
    }


def test_a_page_is_a_line() -> None:
    found = rows("pages")
    assert [int(row["addr"], 16) for row in found] == [row[0] for row in ROWS]
    assert [int(row["size"]) for row in found] == [row[1] for row in ROWS]
    assert found[0] == {
        "addr": "0x0000000000400000", "size": "4096", "state": "file", "pfn": "256",
        "phys": "0x0000000000100000", "mapcount": "1", "swap_type": "", "swap_offset": "",
        "flags": "exclusive|uptodate|lru|mmap",
    }
    swapped = next(row for row in found if row["state"] == "swapped")
    assert (swapped["swap_type"], swapped["swap_offset"]) == ("1", "5")
    assert (swapped["pfn"], swapped["phys"], swapped["mapcount"]) == ("", "", "")


def test_every_line_of_the_ledger_ends_with_its_unexplained_remainder() -> None:
    found = rows("explain")
    pss = [row for row in found if row["against"] == "smaps_rollup Pss"]
    assert [(row["cause"], row["bytes"], row["exact"]) for row in pss] == [
        ("pss_truncation", "341", "1"), ("unexplained", "0", ""),
    ]
