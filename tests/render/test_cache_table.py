"""The screen, the document and the rows of `maps --cache`."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest

from pagewalk.render import cache_table
from pagewalk.system.file_cache import Cells
from tests.cache_by_hand import MEMFD, MIB, MODEL, UNTOLD, cells, look
from tests.render import written


def screen(*files: Any, shown: int = 9, **changed: Any) -> str:
    out, found = io.StringIO(), look(*files, **changed)
    cache_table.text(found, found.files[:shown], out)
    return out.getvalue()


def test_the_answer_says_where_the_files_are() -> None:
    text = " ".join(screen().split())
    assert text.startswith(
        "42 llama maps 3 files; what is in RAM is known of 2 of them, of 24576 KiB: 7168 KiB"
        " mapped, 6144 KiB in the page cache and not mapped, 4096 KiB in swap, 7168 KiB not in RAM."
        " Most of that is /srv/model.bin of 16384 KiB: 5120 KiB mapped, 5120 KiB in the page cache"
        " and not mapped, 6144 KiB only on disk."
        " 1024 KiB in the page cache must be written before it can go. SIZE ")
    assert "partial: what is in RAM of /mnt/far: it is on fuse" in text


def test_a_line_has_the_amounts_and_the_strip() -> None:
    lines = screen().splitlines()
    [model] = [line for line in lines if line.endswith("  /srv/model.bin")]
    assert model.split() == ["16384", "5120", "5120", "1024", "6144", "MCmC", "/srv/model.bin"]
    [far] = [line for line in lines if line.endswith("/mnt/far")]
    assert far.split() == ["n/a", "4", "n/a", "n/a", "n/a", "/mnt/far"]


def test_a_file_that_nobody_maps_is_told_with_its_picture() -> None:
    alone = MODEL._replace(mappings=0, mapped=0, cells=cells((0, 4), (0, 0)))
    text = screen(alone, who=None, asked="/srv/model.bin")
    assert " ".join(text.split()).startswith(
        "/srv/model.bin is a file of 16384 KiB: 10240 KiB in the page cache and not mapped,"
        " 6144 KiB only on disk. No process that could be looked at maps it.")
    assert "\n0x000000  C.\n" in text


def test_more_files_are_said_to_be_there() -> None:
    assert "2 more: --limit 3 shows all" in screen(shown=1)


@pytest.mark.parametrize(("mapped", "cached", "swapped", "letter"), [
    (4, 4, 0, "M"), (2, 4, 0, "M"), (1, 4, 0, "C"), (0, 1, 0, "c"), (1, 1, 0, "m"), (0, 0, 0, "."),
    (0, 0, 4, "S"), (0, 0, 1, "s"), (1, 2, 2, "S"),
])
def test_a_letter_is_the_most_of_a_part(
    mapped: int, cached: int, swapped: int, letter: str
) -> None:
    assert cache_table.letters(cells((mapped, cached), swapped=(swapped,))) == [letter]


def test_what_may_be_in_swap_is_said_to_be_unknown() -> None:
    old = MEMFD._replace(swapped=None, dirty=None, less="no cachestat")
    assert "1024 KiB in the page cache and not mapped, 5120 KiB in swap or never written" in (
        " ".join(screen(old).split()))


def test_what_is_not_known_is_no_dot() -> None:
    unknown = Cells(np.array([4, 4]), np.array([0, 4]), None)
    assert cache_table.letters(unknown) == ["?", "M"]


def test_a_strip_is_no_longer_than_its_column() -> None:
    fine = Cells(np.full(512, 4), np.r_[np.full(256, 4), np.zeros(256, np.int64)], np.full(512, 4))
    assert "".join(cache_table.letters(cache_table.coarser(fine))) == "MMMMMMMMCCCCCCCC"


def test_the_document_has_every_amount_and_cell() -> None:
    found = json.loads(written.write("json", "cache"))
    assert found["process"] == {"pid": 42, "name": "llama", "exe": "/usr/bin/llama"}
    model, memfd, far = found["files"]
    assert (model["cached"], model["unmapped"], model["absent"]) == (
        10 * MIB, 5 * MIB, 6 * MIB)
    assert model["strip"] == "MCmC" and len(model["cells"]) == 4
    assert sum(one["cached"] for one in model["cells"]) == model["cached"]
    assert memfd["swapped"] == MEMFD.swapped and memfd["absent"] == MIB
    assert far["cached"] is far["size"] is far["absent"] is far["cells"] is None
    assert far["mapped"] == UNTOLD.mapped


def test_csv_has_a_line_for_each_file() -> None:
    head, *rows = written.write("csv", "cache").splitlines()
    assert head == "name," + ",".join(cache_table.EVERY)
    assert len(rows) == 3 and rows[2].startswith("/mnt/far,,4096,,,")
