"""All of RAM on a screen, in JSON and in CSV."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from pagewalk.kernel.structs.open_files import Holder
from pagewalk.render import ram_words, view
from pagewalk.render.ram_words import ODD
from pagewalk.system.files import Deleted, Sort
from pagewalk.system.look import Ram
from pagewalk.system.ram import GROUPS
from tests.render.written import MIB
from tests.system.by_hand import file, ram


def wrote(format_name: str, found: Ram, **options: Any) -> str:
    out = io.StringIO()
    view(format_name, "ram")(found, out, **options)
    return out.getvalue()


def said(**changed: Any) -> str:
    return " ".join(ram_words.answers(ram()._replace(**changed)))


def test_the_first_sentence_has_the_five_rows_that_can_change() -> None:
    first = next(ram_words.answers(ram()))
    assert first == ("Processes hold 6144 KiB of anonymous memory, 4096 KiB are hugetlb pages,"
                     " files in cache are 6144 KiB, shared memory is 2048 KiB, the kernel has"
                     " 2048 KiB; 2048 KiB are free.")


@pytest.mark.parametrize("name", ODD)
def test_a_part_is_odd_from_a_twentieth_of_ram_on(name: str) -> None:
    for amount, told in ((5 * MIB, True), (5 * MIB - 1, False)):
        sentences = said(total=100 * MIB, parts={"anon": 90 * MIB, name: amount})
        assert (ODD[name].format("5120 KiB") in sentences) == told


def deleted(cached: int, files: int = 1) -> Deleted:
    one = file(Sort.DELETED, "/var/log/app.log", cached, nlink=0,
               kept_by=(Holder(812, "java", opened=True, mapped=False),))
    return Deleted(files, one.amounts._replace(cached=cached * files), one)


def test_deleted_files_are_odd_from_a_twentieth_of_ram_on() -> None:
    for amount, told in ((5 * MIB, True), (5 * MIB - 1, False)):
        sentences = said(total=100 * MIB, parts={"anon": 90 * MIB}, deleted=deleted(amount))
        assert ("5120 KiB are one deleted file, /var/log/app.log, kept by 812 java." in sentences
                ) == told
    assert ("10240 KiB are 2 deleted files; the largest is /var/log/app.log, 5120 KiB, kept by 812"
            " java.") in said(total=100 * MIB, deleted=deleted(5 * MIB, 2))


@pytest.mark.parametrize(("other", "told"), [(8 * MIB, True), (8 * MIB + 1, False)])
def test_deleted_files_come_before_shared_memory_that_is_as_large(other: int, told: bool) -> None:
    # A deleted file of a tmpfs is a part of it.
    found = list(ram_words.answers(ram()._replace(
        total=20 * MIB, parts={"shmem_unmapped": other}, deleted=deleted(8 * MIB))))
    assert len(found) == 3
    assert ("one deleted file" in found[1]) == told


def test_what_deleted_files_have_of_shared_memory_is_theirs() -> None:
    # 8 of 9 MiB of shared memory are the deleted file's.
    one = deleted(8 * MIB)._replace(shared=8 * MIB)
    found = list(ram_words.answers(ram()._replace(
        total=20 * MIB, parts={"shmem_unmapped": 9 * MIB}, deleted=one)))
    assert "one deleted file" in found[1]


def test_the_document_has_the_largest_deleted_file() -> None:
    found = json.loads(wrote("json", ram()._replace(deleted=deleted(MIB, 3))))["deleted"]
    assert (found["files"], found["cached"]) == (3, 3 * MIB)
    assert (found["largest"]["path"], found["largest"]["cached"]) == ("/var/log/app.log", MIB)
    none = json.loads(wrote("json", ram()._replace(deleted=deleted(MIB)._replace(largest=None))))
    assert none["deleted"]["largest"] is None
    assert json.loads(wrote("json", ram()))["deleted"] is None


def test_only_the_oddest_part_is_named() -> None:
    found = list(ram_words.answers(ram()._replace(
        total=20 * MIB, parts={"shmem_unmapped": 8 * MIB, "hugetlb_idle": 12 * MIB})))
    assert len(found) == 3
    assert "12288 KiB are hugetlb pages" in found[1]


def test_what_could_be_reclaimed_depends_on_swap() -> None:
    # at once 8 MiB; 1 MiB dirty; 7 MiB could be swapped, and there is room for 1
    assert ("8192 KiB are free or could be reclaimed at once before processes are killed, 1024 KiB"
            " after writing them to files and 1024 KiB by swapping; 14336 KiB could not.") in said()
    without = ram().totals._replace(meminfo={"SwapFree": 0})
    assert "15360 KiB could not (there is no free swap)." in said(totals=without)


def test_what_memory_min_protects_is_told_where_there_is_any() -> None:
    assert "memory.min" not in said() + wrote("text", ram()._replace(protected=0))
    kept = ram()._replace(protected=3 * MIB)
    assert "1024 KiB by swapping, but memory.min protects up to 3072 KiB of it;" in said(
        protected=3 * MIB)
    assert "3072  never, of the above: protected by memory.min, at most\n" in wrote("text", kept)
    assert json.loads(wrote("json", kept))["protected_by_min"] == 3 * MIB
    assert json.loads(wrote("json", ram()))["protected_by_min"] is None


def test_rows_add_up() -> None:
    rows = ram_words.rows(ram())[1:-1]
    whole = sum(int(amount) for amount, title in rows if not title.startswith(" "))
    parts = sum(int(amount) for amount, title in rows if title.startswith(" "))
    free = 2048  # a single part is not repeated below its row
    assert whole == parts + free == 24 * 1024


def test_the_screen_shows_what_is_unexplained_and_the_rest_on_demand() -> None:
    text = wrote("text", ram())
    assert "AGAINST /proc/meminfo, 2 lines: 1 equal, 1 unexplained" in text
    assert "meminfo AnonPages" in text and "meminfo MemFree" not in text
    whole = wrote("text", ram(), ledger=True)
    assert "meminfo MemFree" in whole
    assert "frames_changed:" in whole
    assert "not compared: DirectMap4k" in whole
    assert "KernelStack" in whole


def test_by_counters_the_screen_says_what_is_missing() -> None:
    text = wrote("text", ram(frames=False))
    assert "partial: what each frame is used for: hidden" in text
    assert "AGAINST" not in text and "COULD BE RECLAIMED" not in text
    assert "9216 KiB are available without swapping (MemAvailable)" in text


@pytest.mark.parametrize("form", ["text", "json", "csv"])
def test_counters_that_moved_give_no_parts_and_no_error(form: str) -> None:
    text = wrote(form, ram(frames=False)._replace(parts=None))
    assert "partial" in text or form == "csv"
    assert "anonymous" not in text


def test_json_adds_up_to_the_total() -> None:
    document = json.loads(wrote("json", ram()))
    assert sum(document["kinds"].values()) == document["total"] == 24 * MIB
    assert list(document["groups"]) == list(GROUPS)
    assert {kind for kinds in document["groups"].values() for kind in kinds} == {*document["kinds"]}
    for line in document["ledger"]:
        if line["ours"] is not None:
            causes = sum(cause["bytes"] for cause in line["causes"])
            assert line["ours"] - line["theirs"] == causes + line["unexplained"]


def test_csv_has_a_row_for_each_kind_or_cause() -> None:
    kinds = list(csv.DictReader(io.StringIO(wrote("csv", ram()))))
    assert sum(int(row["bytes"]) for row in kinds) == 24 * MIB
    assert {row["group"] for row in kinds} == set(GROUPS)
    causes = list(csv.DictReader(io.StringIO(wrote("csv", ram(), ledger=True))))
    names = [row["cause"] for row in causes if row["against"] == "meminfo AnonPages"]
    assert names == ["frames_changed", "unexplained"]
