"""The page cache by file in words: parts that add up, answers that hold, and no name that lies."""

from __future__ import annotations

import io
import json
import re

import pytest

from pagewalk.model.columns import Withheld
from pagewalk.render import view
from pagewalk.render.columns import WHOLE, Choice, choose
from pagewalk.render.file_table import HEADINGS, answers, charged, keepers, name_of, pick, remark
from pagewalk.system.files import CachedFile, FilesReport, Sort
from tests import files_by_hand as by_hand
from tests.files_by_hand import MIB, NAMES, REPORT, amounts, total


def screen(report: FilesReport = REPORT, choice: Choice = WHOLE) -> list[str]:
    out = io.StringIO()
    view("text", "files")(pick(report, NAMES.get, choice), NAMES.get, out)
    return out.getvalue().splitlines()


def table(report: FilesReport = REPORT, choice: Choice = WHOLE) -> list[str]:
    lines = screen(report, choice)
    return lines[next(at for at, line in enumerate(lines) if "CACHED" in line) + 1 :]


def test_the_files_of_a_sort_add_up_to_it_and_the_sorts_to_all() -> None:
    first, *rest = table()
    at = first.index("page cache")
    sums: list[list[int]] = []
    for line in rest:
        amount = int(line.split()[0])
        if line[at] != " ":
            sums.append([amount])
        else:
            sums[-1].append(amount)
    assert sum(row[0] for row in sums) == int(first.split()[0]) == 5023 * 1024
    for head, *parts in sums[:-1]:
        assert sum(parts) == head
    assert sums[-1] == [1024]  # what is gone has no lines of its own


def test_sorts_are_listed_deleted_files_first_and_only_if_there_are_any() -> None:
    text = "\n".join(table())
    heads = [text.index(f"{HEADINGS[sort]}, ") for sort in Sort]
    assert heads == sorted(heads)
    few = REPORT._replace(files=(), totals={sort: total() for sort in Sort})
    assert len(table(few)) == 1


@pytest.mark.parametrize(("file", "name", "told"), [
    (by_hand.LOG, "/var/log/app.log", "deleted, kept by 812 java, 900 tail and 1 other"),
    (by_hand.OLD, "/tmp/old", "deleted, no process has it open or mapped"),
    (by_hand.TABLE, "/srv/base/1/2", ""),
    (by_hand.TABLE._replace(removed=True), "/srv/base/1/2",
     "this name was removed, another is left"),
    (by_hand.LAYER, "/x", "as pid 4711 sees it"),
    (by_hand.HIDDEN, "/lost", "in xfs 254:1, which is not mounted here"),
    (by_hand.NAMELESS, "inode 12 on xfs 254:1", "its name is not in memory"),
    (by_hand.SHM, "/dev/shm/segment", ""),
    (by_hand.MEMFD, "memfd:cache", "kept by 5 compositor"),
    (by_hand.ZERO, "dev/zero", "shared anonymous memory, kept by 5 compositor"),
    (by_hand.DISK, "block device 254:1", ""),
    (by_hand.WENT, "went before its name was read", ""),
    # it went between the two looks
    (by_hand.WENT._replace(sort=Sort.FILE), "went before its name was read", ""),
])
def test_a_file_in_words(file: CachedFile, name: str, told: str) -> None:
    assert (name_of(file), remark(file)) == (name, told)


def test_who_is_charged() -> None:
    cases = (by_hand.OLD, by_hand.SHM, by_hand.LAYER, by_hand.HIDDEN)
    assert [charged(file, NAMES.get) for file in cases] == [
        "/web.slice and 1 other", "nobody", "a group that is gone (0xffff888100002000)", "n/a",
    ]
    assert any(re.search(r"n/a +/lost", line) for line in table())


def test_the_answer_names_the_largest_deleted_file_and_who_keeps_it() -> None:
    cached, deleted, lasting = answers(REPORT)
    assert cached == (
        f"{5023 * 1024} KiB of RAM are page cache and shared memory; no process maps"
        f" {4751 * 1024} KiB of it."
    )
    assert deleted == (
        f"{3000 * 1024} KiB are 2 deleted files; the largest is /var/log/app.log,"
        f" {2900 * 1024} KiB, kept by 812 java, 900 tail and 1 other."
    )
    assert lasting.startswith(f"{372 * 1024} KiB are files on tmpfs and shared memory:")


def test_one_deleted_file_is_called_one_and_none_is_not_spoken_of() -> None:
    totals = {**REPORT.totals, Sort.DELETED: total(by_hand.LOG)}
    one = list(answers(REPORT._replace(files=(by_hand.LOG,), totals=totals)))[1]
    assert one.startswith(f"{2900 * 1024} KiB are one deleted file, /var/log/app.log, kept by 812")
    totals = {**totals, Sort.DELETED: total()}
    assert not any("deleted" in said for said in answers(REPORT._replace(files=(), totals=totals)))


def test_a_name_with_an_escape_cannot_drive_a_terminal() -> None:
    evil = by_hand.MEMFD._replace(sort=Sort.DELETED, inside="\x1b[2J\nx")
    report = REPORT._replace(files=(evil,), totals={**REPORT.totals, Sort.DELETED: total(evil)})
    assert "\x1b" not in "".join(screen(report))
    assert all("\n" not in said and "\x1b" not in said for said in answers(report))


def test_a_newline_in_a_name_does_not_end_a_row_of_csv() -> None:
    evil = by_hand.MEMFD._replace(inside="one\ntwo")
    out = io.StringIO()
    view("csv", "files")(REPORT._replace(files=(evil, by_hand.LOG)), NAMES.get, out)
    rows = out.getvalue().split("\n")
    assert len(rows) == 4 and rows[1].startswith("one\\012two,")


def test_limit_and_order_are_those_that_were_asked_for() -> None:
    limited = table(choice=choose("files", limit=1))
    assert any("1003 others" in line for line in limited)
    by_dirty = table(choice=choose("files", sort="dirty"))
    assert len(by_dirty) == len(table())
    smallest = table(choice=choose("files", sort="-cached", limit=1))
    assert any(line.endswith("inode 12 on xfs 254:1, its name is not in memory")
               for line in smallest)


def test_what_is_not_listed_is_one_line() -> None:
    many = tuple(by_hand.TABLE._replace(amounts=amounts(5), inode=row) for row in range(40))
    totals = {sort: total() for sort in Sort} | {Sort.FILE: total(*many)}
    report = REPORT._replace(files=many, totals=totals)
    lines = table(report, Choice(limit=10))
    assert len(lines) == 1 + 1 + 10 + 1
    assert lines[-1].split() == [str(150 * MIB // 1024), "0", "0", "30", "others"]


def test_what_was_not_read_is_not_zero() -> None:
    unknown = by_hand.TABLE._replace(amounts=amounts(5, huge=None))
    whole = total(by_hand.TABLE)
    whole = whole._replace(amounts=whole.amounts._replace(huge=None))
    totals = {sort: total() for sort in Sort} | {Sort.FILE: whole}
    report = REPORT._replace(files=(unknown,), totals=totals)
    out = io.StringIO()
    view("text", "files")(report, NAMES.get, out, columns=["huge"])
    assert out.getvalue().count("n/a") == 3


def test_what_is_withheld_is_said() -> None:
    why = Withheld("who is charged", "no memory cgroups", partial=True)
    report = REPORT._replace(withheld=(why,))
    assert screen(report)[-1] == "partial: who is charged: no memory cgroups"
    out = io.StringIO()
    view("json", "files")(report, NAMES.get, out)
    assert json.loads(out.getvalue())["partial"] == ["who is charged: no memory cgroups"]


def test_a_list_of_holders_that_is_cut_says_so() -> None:
    assert "more processes may keep a file" in screen(REPORT._replace(holders_complete=False))[-1]
    assert keepers(by_hand.MEMFD) == "kept by 5 compositor"
