"""Kernel objects by cache: sentences, table and documents of a report made by hand."""

from __future__ import annotations

import io
import json

import pytest

from pagewalk.render.columns import choose
from pagewalk.render.slab_table import COLUMNS, answers, cell, document, pick, records, text
from pagewalk.system.slabs import Charge, SlabReport
from tests.kernel_by_hand import DENTRY, FILP, MIB, SLABS


def shown(report: SlabReport, limit: int | None = 20) -> str:
    out = io.StringIO()
    text(report, report.caches[:limit], out)
    return out.getvalue()


def test_the_answer_names_what_can_go_and_who_is_charged() -> None:
    said = list(answers(SLABS))
    assert said[0].startswith("1536 KiB of RAM are kernel objects: 1024 KiB the kernel can shrink")
    assert "dentry: 1024 KiB, at most 5100 objects of 192 bytes" in said[1]
    assert said[1].endswith("most of them charged to /a\\x1b[1m.")
    # 1 MiB less 5100 objects, and less 5376 places
    assert said[2].startswith("At least 68 KiB of the slabs hold no object: 16 KiB are ends")


def test_nobody_is_named_who_is_charged_for_less_than_half() -> None:
    few = DENTRY._replace(charges=(Charge("/few", 2550, 1),))
    assert "/few" not in "".join(answers(SLABS._replace(caches=(few,))))


def test_rows_add_up_to_the_total() -> None:
    lines = shown(SLABS, limit=1).splitlines()
    table = [line.split() for line in lines[lines.index(next(
        line for line in lines if line.lstrip().startswith("SIZE")
    )) :]]
    assert table[1][:6] == ["1024", "68", "5100", "192", "yes", "dentry"]
    assert table[1][6:] == ["781", "/a\\x1b[1m", "and", "1", "other"]
    assert table[2] == ["512", "0", "2048", "1", "other"]
    assert table[3] == ["1536", "68", "7148", "total,", "2", "caches"]
    assert "8 KiB more are kmalloc of whole pages, in no cache." in lines


@pytest.mark.parametrize("room", [40, 80, 120])
def test_no_amount_is_cut_on_a_narrow_terminal(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(room))
    long = DENTRY._replace(charges=(Charge("/system.slice/" + 60 * "x", 4000, 781 << 10),))
    lines = shown(SLABS._replace(caches=(long, FILP))).splitlines()
    row = next(line for line in lines if line.lstrip().startswith("1024"))
    assert "781 /" in row or "/" not in row
    table = next(at for at, line in enumerate(lines) if line.lstrip().startswith("SIZE"))
    assert all(len(line) <= room for line in lines[table:])  # a sentence has the whole path


def test_what_is_not_known_is_said() -> None:
    gone = DENTRY._replace(name=None, charges=None)
    report = SlabReport((gone,), 0, 7, ())
    said = shown(report)
    assert "a cache that could not be read" in said and "n/a" in said
    assert "7 objects" in said
    assert document(report, report.caches)["caches"][0]["charged"] is None


def test_caches_are_chosen_by_any_column() -> None:
    for words, names in ((("each",), ["filp", "dentry"]), (("-at_most",), ["filp", "dentry"]),
                         (("name",), ["dentry", "filp"]), (("charged",), ["dentry", "filp"])):
        found = pick(SLABS, choose("slab", None, *words))
        assert [cache.name for cache in found] == names
    assert len(pick(SLABS, choose("slab", None, None, 1))) == 1
    assert len(pick(SLABS, choose("slab"), 1)) == 1


def test_columns_that_were_asked_for_add_up() -> None:
    out = io.StringIO()
    text(SLABS, (FILP,), out, columns=("slabs", "places"))
    lines = [line.split() for line in out.getvalue().splitlines()]
    at = lines.index(["SLABS", "PLACES", "CACHE"])
    assert lines[at + 1 : at + 4] == [["128", "2048", "filp"], ["256", "5376", "1", "other"],
                                      ["384", "7424", "total,", "2", "caches"]]


def test_nothing_is_nothing() -> None:
    nothing = SlabReport((), 0, 0, ())
    assert shown(nothing).startswith("0 KiB of RAM are kernel objects")
    assert len(list(records(()))) == 1


def test_documents_have_bytes() -> None:
    made = json.loads(json.dumps(document(SLABS, SLABS.caches)))
    assert (made["total"], made["reclaimable"], made["unreclaimable"]) == (
        3 * MIB // 2, MIB, MIB // 2,
    )
    assert made["unused_at_least"] == MIB - 5100 * 192
    first = made["caches"][0]
    assert list(first) == list(COLUMNS)
    assert first["charged"][1] == {"group": None, "name": None, "objects": 1, "bytes": 200}
    heading, *rows = records(SLABS.caches)
    assert heading == list(COLUMNS) and len(rows) == 2
    assert rows[0][-1] == 4000 * 200 + 200 and rows[1][-1] == 1024 * 264 == cell(FILP, "charged")
