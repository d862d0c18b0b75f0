"""The columns of every table: each has one name everywhere, and each format writes it if asked."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import pytest

from pagewalk.account.check import Difference, Report
from pagewalk.account.table import Column
from pagewalk.model.errors import BadRequest
from pagewalk.render import FORMATS, columns, view
from pagewalk.render.columns import TABLES, Choice, choose, named, spelled
from tests import by_hand
from tests.render import written

REPORT = Report("ebpf", "procfs", 9, 9)
REPORT.differences.append(Difference(0x1000, 4096, "state", "anon", None))
# The heads of a column in CSV, where one has more than its name.
HEADS = {("pages", "swap"): ["swap_type", "swap_offset"]}
ALL = [(table, column.name) for table in TABLES for column in TABLES[table]().others]
# smaps' other fields need a walk that asks for them: tests/live/test_every_field.py.
HERE = [(table, name) for table, name in ALL
        if table not in ("maps", "groups") or name in by_hand.table().columns
        or name in ("end", "offset", "vm_flags", "vmas")]


def wrote(format_name: str, table: str, *names: str) -> str:
    given: tuple[Any, ...] = (REPORT,) if table == "check" else written.arguments(table)
    out = io.StringIO()
    view(format_name, table)(*given, out, columns=names)
    return out.getvalue()


@pytest.mark.parametrize("table", TABLES)
def test_no_two_columns_of_a_table_are_called_alike(table: str) -> None:
    these = TABLES[table]()
    every = (*these.naming, *these.others)
    for words in ([c.name for c in every], [spelled(c.title) for c in every]):
        assert len(set(words)) == len(words)
    assert all(c.name == spelled(c.name) and c.title == c.title.upper() and c.doc for c in every)
    for column in every:
        assert these.known[spelled(column.title)] == these.known[column.name] == column


def heading(table: str, *names: str) -> str:
    # The line that has what names a row.
    title = "PID" if table == "top" else TABLES[table]().naming[0].title
    lines = wrote("text", table, *names).splitlines()
    return next((line for line in lines if title in line.split()), "")


@pytest.mark.parametrize(("table", "name"), HERE)
def test_text_has_the_column_that_was_asked_for_and_no_other(table: str, name: str) -> None:
    if table == "doctor":  # no heading: it is read line by line
        texts = {one: wrote("text", table, one) for one in ("ok", "finding", "remedy")}
        assert len(set(texts.values())) == 3
        assert ("yes" in texts[name]) == (name == "ok")
        return
    titles = columns.titles(table)
    others = {c.title for c in TABLES[table]().others} - {titles[name]}
    line = heading(table, name)
    shown = {"FIRST": "ebpf", "SECOND": "procfs", "VMFLAGS": "NAME"}.get(titles[name], titles[name])
    assert shown in line
    assert not [other for other in others if other in line.replace(shown, "").split()]


@pytest.mark.parametrize(("table", "name"), HERE)
def test_csv_and_json_have_it_or_refuse(table: str, name: str) -> None:
    naming = {column.name for column in TABLES[table]().naming}
    if table in ("maps", "groups", "pages", "files", "slab", "cgroups", "share", "top", "huge",
                 "huge_of_each", "cache", "diff"):
        head = next(csv.reader(io.StringIO(wrote("csv", table, name))))
        heads = HEADS.get((table, name), [name])
        assert [word for word in head if word not in naming] == heads
    text = wrote("json", table, name)
    key = {"explain": "ledger", "heap": "arenas", "check": "differences", "doctor": "checks",
           "maps": "vmas", "groups": "groups", "show": "groups", "cgroups": "cgroups",
           "files": "files", "cache": "files", "slab": "caches", "processes": "processes",
           "share": "members", "top": "lines", "overview": "processes", "huge": "vmas",
           "huge_of_each": "processes", "diff": "rows",
           "who": "mappers"}.get(table, "")
    rows = ([json.loads(line) for line in text.splitlines()] if table == "pages"
            else json.loads(text)[key])
    assert rows
    assert all(set(row) - naming == {name} for row in rows)


@pytest.mark.parametrize(("table", "amount", "human"), [
    ("pages", "2048", "2.0M"), ("check", "4", "4K"), ("maps", "4096", "4.0M"),
    ("groups", "2048", "2.0M"), ("show", "2048", "2.0M"), ("heap", "102400", "100M"),
    ("processes", "12288", "12M"), ("files", "2969600", "2.8G"),
    ("slab", "1024", "1.0M"), ("share", "61440", "60M"), ("top", "61440", "60M"),
    ("overview", "61440", "60M"), ("huge", "2048", "2.0M"),
    ("huge_of_each", "2048", "2.0M"), ("diff", "28672", "28M"),
])
def test_every_table_with_amounts_has_them_in_units_too(
    table: str, amount: str, human: str
) -> None:
    given: tuple[Any, ...] = (REPORT,) if table == "check" else written.arguments(table)
    texts = []
    for asked in (False, True):
        out = io.StringIO()
        view("text", table, asked)(*given, out)
        texts.append(out.getvalue())
    assert re.search(rf"\b{amount}\b", texts[0]) and not re.search(rf"\b{human}\b", texts[0])
    assert re.search(rf"\b{human}\b", texts[1]) and "KIB" not in texts[1]


def test_every_view_of_a_table_takes_columns() -> None:
    for table in TABLES:
        for format_name in ("text", "json"):
            assert wrote(format_name, table)  # none but those that name a row
    assert set(FORMATS) == {"text", "json", "csv", "log"}


@pytest.mark.parametrize(("typed", "column"), [
    ("rss", "rss"), ("RSS", "rss"), (" Rss ", "rss"), ("not_present", "not_present"),
    ("NOT PRES", "not_present"), ("not-present", "not_present"), ("PERM", "perms"),
])
def test_a_column_is_called_by_its_key_or_as_it_is_printed(typed: str, column: str) -> None:
    assert named(typed, TABLES["maps"]().known).name == column


def test_an_unknown_column_is_answered_with_the_nearest_and_with_all() -> None:
    with pytest.raises(BadRequest, match=r"no column is called 'rs'; did you mean 'rss'\? choose"
                       r" from: start, perms, name, size, present, rss, .*, vm_flags$"):
        choose("maps", "size,rs")
    with pytest.raises(BadRequest, match="no column is called 'qqqqq'; choose from: pid, rss"):
        choose("processes", None, "-qqqqq")


def test_what_names_a_row_is_no_choice_but_no_mistake_either() -> None:
    assert choose("maps", "name,RSS,rss").columns == ("rss",)
    assert choose("maps", "name").columns == ()
    assert choose("maps", None, "rss").columns is None


WORD, AMOUNT = Column("name", "NAME", "", words=True), Column("rss", "RSS", "")
ROWS = [{"name": "b", "rss": 5}, {"name": "c", "rss": None}, {"name": "a", "rss": 9}]


@pytest.mark.parametrize(("choice", "order"), [
    (Choice(), "bca"), (Choice(limit=2), "bc"),
    (Choice(sort=AMOUNT), "abc"), (Choice(sort=AMOUNT, reversed=True), "bac"),
    (Choice(sort=AMOUNT, limit=1), "a"),
    (Choice(sort=WORD), "abc"), (Choice(sort=WORD, reversed=True), "cba"),
])
def test_amounts_begin_with_the_largest_words_with_the_first_and_what_is_withheld_is_last(
    choice: Choice, order: str
) -> None:
    rows = choice.rows(ROWS, lambda row, name: row[name])
    assert "".join(row["name"] for row in rows) == order


def test_rows_that_are_equal_keep_their_order() -> None:
    for down in (False, True):
        rows = Choice(sort=AMOUNT, reversed=down).rows(range(4), lambda row, _: row // 2)
        assert rows == ([0, 1, 2, 3] if down else [2, 3, 0, 1])


def test_a_column_by_its_title_may_begin_with_a_dash() -> None:
    choice = choose("processes", None, "-RSS")
    assert choice.sort is not None and (choice.sort.name, choice.reversed) == ("rss", True)
