"""The screen, the document and the rows of `diff`."""

from __future__ import annotations

import csv
import io
import json

import pytest

from pagewalk.history.diff import Diff
from pagewalk.history.matching import Matched, Pair
from pagewalk.model.columns import Withheld
from pagewalk.render import diff_table, view
from tests import diff_by_hand
from tests.history.spaces import member, moment
from tests.snapshot.by_hand import PAGE


def screen(found: Diff | None = None, **options: object) -> str:
    out, found = io.StringIO(), found or diff_by_hand.found()
    view("text", "diff", True)(found, found.rows, out, **options)
    return out.getvalue()


def test_the_first_line_says_what_grew() -> None:
    lines = screen().splitlines()
    assert lines[0] == "RSS grew by 12M in 60 s, swap +4.0M: +20M heap, -8.0M files."
    assert lines[1] == "The largest part is +20M in [heap] of worker (1)."
    assert lines[2] == "Swapped out or given back: 4.0M swapped out, 10M dropped."


def test_by_vma_the_first_lines_say_where() -> None:
    found = diff_by_hand.found("vma")
    text = screen(found)
    heap = f"{0x1000 * PAGE:x}-{0x1000 * PAGE + (64 << 20):x}"
    assert text.splitlines()[1] == f"The largest part is +20M in [heap] at {heap} of worker (1)."
    assert ["[heap]", "1", heap, "+20M"] in [line.split()[:4] for line in text.splitlines()]
    out = io.StringIO()
    view("json", "diff")(found, found.rows, out)
    row = next(row for row in json.loads(out.getvalue())["rows"] if row["what"] == "[heap]")
    assert f"{row['addr']}-{row['end']}".replace("0x", "") == heap


def test_between_two_runs_nothing_is_said_to_be_given_back() -> None:
    pair = Pair(member(1), member(2), False)
    text = screen(diff_by_hand.found(matched=Matched((pair,), (), ())))
    assert "Less in the second: 4.0M swapped out, 10M dropped." in text
    text = screen(diff_by_hand.shrunk_between_runs())
    assert "Less in the second: 8.0M known by sums only." in text
    assert "less (sums only) 8.0M" in " ".join(text.split())
    assert "Less in the second: nothing." in screen(diff_by_hand.grown_between_runs())


def test_each_kind_says_how() -> None:
    lines = screen().splitlines()
    heap = next(line for line in lines if line.startswith("heap"))
    assert heap.split() == ["heap", "+20M", "8.0M", "28M", "+4.0M", "first", "touched", "24M,",
                            "swapped", "out", "4.0M"]
    assert any(line.split() == ["in", "all", "+12M"] for line in lines)


def test_nothing_changed() -> None:
    text = screen(diff_by_hand.nothing())
    assert text.startswith("Nothing changed in 1 s: RSS is 8K.\n") and "WHAT" not in text


@pytest.mark.parametrize(("seconds", "words"), [
    (0, "in 0 s"), (2.54, "in 2.5 s"), (60, "in 60 s"), (150, "in 2.5 min"), (7200, "in 2 h"),
    (3 * 86400, "in 3 days"), (-5, "going back 5 s"),
])
def test_how_long_it_was(seconds: float, words: str) -> None:
    assert diff_table.span(int(seconds * 1e9)) == words


def test_what_was_compared_with_what_is_said_where_it_is_not_plain() -> None:
    assert "compared" not in screen()
    pair = Pair(member(1), member(2), False)
    found = diff_by_hand.found(
        matched=Matched((pair,), (member(3),), tuple(member(pid) for pid in range(4, 9))),
        after=moment(60 * 10**9, host="b", kernel="6.19"), unexplained=4096)
    text = " ".join(screen(found).split())
    assert "compared: worker (1) with worker (2): not the same process" in text
    assert "recorded on two hosts: host and b" in text and "two kernels: 6.18.0 and 6.19" in text
    assert "only in the first: worker (3)" in text
    assert "only in the second: worker (4), worker (5), worker (6) and 2 more" in text
    assert "unexplained: +4K" in text
    again = diff_by_hand.found(after=moment(60 * 10**9, boot="other"))
    assert "the machine was started again in between" in screen(again)


def test_of_many_processes_those_that_are_not_the_same_are_named() -> None:
    same = tuple(Pair(member(pid), member(pid), True) for pid in range(1, 18))
    others = tuple(Pair(member(pid), member(pid + 1, program="/bin/timeout"), False)
                   for pid in range(20, 30, 2))
    for count, more in ((1, ""), (5, "compared likewise: 2 other processes")):
        made = diff_by_hand.found(matched=Matched((*same, *others[:count]), (), ()))
        text = " ".join(screen(made).split())
        assert "compared: worker (20) with timeout (21): not the same process" in text
        assert text.count("compared: ") == min(count, 3) and "worker (1) with" not in text
        assert more in text and ("likewise" in text) == bool(more)


@pytest.mark.parametrize("count", [3, 4, 5])
def test_one_kind_more_is_named_instead_of_counted(count: int) -> None:
    rows = diff_by_hand.found().kinds
    heap = next(row for row in rows if row.kind == "heap")
    kinds = tuple(heap._replace(what=f"kind {at}", change=(10 - at) << 20)
                  for at in range(count))
    made = diff_by_hand.found(kinds=kinds)
    whole = made.whole._replace(change=sum(row.change for row in kinds))
    said = " ".join(screen(made._replace(whole=whole)).split())
    assert "+10M kind 0, +9.0M kind 1, +8.0M kind 2" in said
    assert ("+7.0M kind 3." in said) == (count == 4)
    assert ("+13M of other kinds" in said) == (count == 5)


@pytest.mark.parametrize(("changed", "first"), [
    ({}, "in 60 s"),
    ({"matched": Matched((Pair(member(1), member(2), False),), (), ())},
     "between two runs, 60 s apart"),
    ({"matched": Matched((Pair(member(1), member(2, program="/bin/other"), False),), (), ())},
     "between two processes, 60 s apart"),
    ({"matched": Matched((Pair(member(1), member(2), False),), (member(3),), ())},
     "in 60 s"),
    ({"matched": Matched((Pair(member(1), member(1), True), Pair(member(2), member(3), False)),
                         (), ())}, "in 60 s"),
    ({"matched": Matched((Pair(member(1), member(2), False),) * 2, (), ()),
      "after": moment(60 * 10**9, live=True)}, "in 60 s"),
    ({"matched": Matched((Pair(member(1), member(2), False),) * 2, (), ()),
      "after": moment(60 * 10**9, live=True, boot="other")}, "since the recording"),
    ({"matched": Matched((Pair(member(1), member(2), False),), (), ()),
      "after": moment(60 * 10**9, boot="other")}, "between two runs"),
    ({"matched": Matched((Pair(member(1), member(2), False),), (), ()),
      "after": moment(-5 * 10**9)}, "between two runs, going back 5 s"),
    ({"matched": Matched((), (member(1),), (member(2),)), "after": moment(10**9, boot="other")},
     "between the two recordings"),
])
def test_only_what_is_the_same_grew_in_some_time(changed: dict[str, object], first: str) -> None:
    found = diff_by_hand.found(**changed)
    assert screen(found).startswith(f"RSS grew by 12M {first}, swap +4.0M: +20M heap")


def test_what_may_have_moved_is_said_in_a_word_and_is_not_zero() -> None:
    made = diff_by_hand.found(withheld=(Withheld("moved", "frames are numbered anew"),))
    rows = {" ".join(line.split()[:-2]) for line in screen(made).splitlines()}
    assert "unchanged or moved" in rows and "unchanged" not in rows
    assert "n/a" not in screen(made)
    asked = screen(made, columns=["moved"])
    assert "n/a: moved: frames are numbered anew" in asked
    assert [line.split()[-1] for line in asked.splitlines() if line.startswith("heap")] == ["n/a"]
    runs = made._replace(matched=Matched((Pair(member(1), member(2), False),), (), ()))
    assert "or moved" not in screen(runs)  # what does not last from run to run cannot move
    out = io.StringIO()
    view("json", "diff")(made, made.rows, out)
    said = json.loads(out.getvalue())
    assert {row["moved"] for row in (*said["rows"], *said["kinds"], said["totals"])} == {None}
    assert said["totals"]["huge"] == 0 and said["withheld"][0]["what"] == "moved"
    out = io.StringIO()
    view("csv", "diff")(made, made.rows, out)
    assert {row["moved"] for row in csv.DictReader(io.StringIO(out.getvalue()))} == {""}


def test_the_document_has_all_classes_of_all_rows() -> None:
    out, found = io.StringIO(), diff_by_hand.found()
    view("json", "diff")(found, found.rows, out)
    said = json.loads(out.getvalue())
    assert said["compared"] == [{"before": 1, "after": 1, "name": "worker", "same": True}]
    assert said["before"]["recording"] == "a.pagewalk"
    for row in (*said["rows"], said["totals"]):
        assert row["change"] == sum(row["of_rss"].values()) == row["after"] - row["before"]
    assert said["growth"] == said["totals"]["change"] + said["totals"]["swap"]


def test_csv_has_a_line_for_each_row() -> None:
    out, found = io.StringIO(), diff_by_hand.found()
    view("csv", "diff")(found, found.rows, out)
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert [row["what"] for row in rows] == ["heap", "file"]
    assert rows[0]["change"] == str(20 << 20) and rows[0]["pid"] == ""
