"""The order of VMAs, and what can be asked of them together."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys

import pytest

from pagewalk.commands.maps import details, ordered, refuse_frames
from pagewalk.model.errors import BadRequest
from pagewalk.render.columns import choose
from tests import by_hand

TABLE = by_hand.table()


@pytest.mark.parametrize(("sort", "limit", "rows"), [
    (None, None, [0, 1, 2, 3]), (None, 2, [0, 1]),
    ("size", None, [3, 1, 0, 2]), ("-size", 3, [2, 0, 1]),
    ("ADDRESS", None, [0, 1, 2, 3]), ("-address", 1, [3]),
    ("name", None, [3, 2, 0, 1]),  # "", "/tmp/...", "/usr/...", "[heap]"
])
def test_the_order_of_vmas(sort: str | None, limit: int | None, rows: list[int]) -> None:
    assert ordered(TABLE, choose("maps", None, sort, limit)) == rows


def test_where_amounts_are_withheld_the_order_stays() -> None:
    assert ordered(by_hand.table(frames=False), choose("maps", None, "pss", 3)) == [0, 1, 2]


def test_a_column_of_smaps_is_noticed_wherever_it_is_named() -> None:
    assert details(choose("maps", "rss,lazyfree", "pss_dirty")) == ["lazyfree", "pss_dirty"]
    assert details(choose("maps", None, "rss")) == []


def test_what_looks_at_frames_cannot_be_asked_for_together_with_counts() -> None:
    with pytest.raises(BadRequest, match="column lazyfree looks at every page frame"):
        refuse_frames(True, False, ["lazyfree"])
    with pytest.raises(BadRequest, match="--all looks at every page frame"):
        refuse_frames(True, True, [])
    refuse_frames(False, True, ["lazyfree"])
    refuse_frames(True, False, [])


@pytest.mark.parametrize("form", ["json", "csv"])
def test_all_adds_fields_to_a_document_and_takes_none_away(form: str) -> None:
    plain, whole = (keys(form, *words) for words in ((), ("--all",)))
    assert set(plain) < set(whole) and {"poisoned", "doubt"} <= set(whole)


def keys(form: str, *words: str) -> list[str]:
    """Return the names of what is told of each VMA."""
    ran = subprocess.run(
        [sys.executable, "-m", "pagewalk", "maps", str(os.getpid()), "--source", "procfs",
         "--quiet", "--format", form, *words],
        capture_output=True, text=True, check=False,
    )
    if form == "csv":
        return next(csv.reader(io.StringIO(ran.stdout)))
    return list(json.loads(ran.stdout)["vmas"][0])
