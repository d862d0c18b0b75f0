"""The sums of a diff: fates made by hand, and which row each is in."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.history.changes import CODES, COUNT
from pagewalk.history.fates import Fate
from pagewalk.history.tally import BY, Most, Tables, Tally, largest
from pagewalk.model.columns import I64


def by_class(**amounts: int) -> I64:
    """Return amounts by the number of their class."""
    found = np.zeros(COUNT, np.int64)
    for key, amount in amounts.items():
        found[CODES[key]] = amount
    return found


def fate(name: str, kind: str, pid: int, addr: int, before: int, after: int) -> Fate:
    """Return a fate of which all that was or is there has changed."""
    return Fate(name, kind, pid, addr, addr + 5, before, after, 3, 5,
                by_class(touched=after, dropped=before), by_class(touched=after, dropped=-before))


PARTS = (
    (fate("[heap]", "heap", 1, 10, 4, 9), "one"), (fate("/a", "file", 1, 30, 2, 2), "one"),
    (fate("/a", "file", 1, 50, 0, 1), "one"), (fate("", "heap", 2, 10, 8, 0), "two"),
    (fate("/a", "file", 2, 10, 1, 0), "two"),
)


def tables(by: str) -> Tables:
    found = Tables(by)
    for one, called in PARTS:
        found.add(one, called)
    return found


@pytest.mark.parametrize(("by", "rows"), [
    ("kind", {"heap": -3, "file": 0}), ("file", {"[heap]": 5, "/a": 0, "[anon]": -8}),
    ("process", {"one": 6, "two": -9}),
])
def test_fates_with_one_key_are_one_row(by: str, rows: dict[str, int]) -> None:
    assert {row.what: row.change for row in tables(by).of_rows()} == rows


def test_by_vma_the_same_file_has_a_row_wherever_it_is_mapped() -> None:
    rows = tables("vma").of_rows()
    assert {(row.pid, row.addr, row.what, row.kind, row.change) for row in rows} == {
        (1, 10, "[heap]", "heap", 5), (1, 30, "/a", "file", 0), (1, 50, "/a", "file", 1),
        (2, 10, "[anon]", "heap", -8), (2, 10, "/a", "file", -1)}


@pytest.mark.parametrize("by", BY)
def test_rows_add_up_to_the_whole(by: str) -> None:
    found = tables(by)
    whole = found.whole.row()
    assert (whole.before, whole.after, whole.swap, whole.hugetlb) == (15, 12, 15, 25)
    assert whole.change == -3 and whole.bytes == {"touched": 12, "dropped": 15}
    for rows in (found.of_rows(), found.of_kinds()):
        assert sum(row.change for row in rows) == whole.change
        assert sum(row.rss["dropped"] for row in rows if "dropped" in row.rss) == -15
        assert sum(row.swap for row in rows) == 15


def test_most_is_what_changed_most_in_the_direction_of_the_whole() -> None:
    found = tables("kind")
    assert found.most() == Most(2, "two", "[anon]", None, None, -8)
    found.add(fate("/b", "file", 1, 70, 0, 7), "one")
    assert found.most() == Most(1, "one", "/b", None, None, 7)
    assert Tables("kind").most() is None


def test_by_vma_most_is_one_of_those_with_its_name_and_says_where() -> None:
    found = Tables("vma")
    for addr, after in ((10, 4), (30, 6), (50, 5)):
        found.add(fate("", "anonymous", 1, addr, 0, after), "one")
    assert found.most() == Most(1, "one", "[anon]", 30, 35, 6)
    assert [(row.addr, row.end) for row in found.of_rows()] == [(30, 35), (50, 55), (10, 15)]


def test_what_is_as_it_was_has_no_row() -> None:
    found = Tables("file")
    found.add(Fate("/a", "file", 1, 10, 20, 6, 6, 0, 0, by_class(unchanged=6), by_class()), "one")
    assert found.of_rows() == found.of_kinds() == () and not found.whole.row().changed


def test_rows_are_by_the_size_of_their_change_and_then_of_their_swap() -> None:
    sums = {"a": (1, 0, 0), "b": (-3, 0, 0), "c": (0, -9, 0), "d": (1, 0, 4), "e": (0, 0, 0)}
    rows = [Tally(what, swap=swap, hugetlb=hugetlb, rss=by_class(touched=change)).row()
            for what, (change, swap, hugetlb) in sums.items()]
    assert [row.what for row in largest(rows)] == ["d", "b", "a", "c", "e"]
