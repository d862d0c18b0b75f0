"""The screen and the document of `top`."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest

from pagewalk.render import top_table
from tests.render import written
from tests.share_by_hand import MIB, top


def screen(by: str = "process", shown: int = 3, **changed: Any) -> str:
    out, found = io.StringIO(), top(by, **changed)
    top_table.text(found, found.lines[:shown], out)
    return out.getvalue()


def test_the_first_sentence_has_the_three_sums() -> None:
    assert " ".join(screen().split()).startswith(
        "3 processes: USS adds up to 24576 KiB, PSS (each page divided by its mappers) to"
        " 68608 KiB, RSS to 163840 KiB.")


def test_a_process_is_a_line_with_what_has_grown() -> None:
    assert re.search(r"(?m)^PID +USS +PSS +RSS +SWAP +GROWN +NAME$", screen())
    assert re.search(r"(?m)^ 10 +12288 +25600 +61440 +0 +\+5120 +server$", screen())
    assert re.search(r"(?m)^ 11 +4096 +20480 +51200 +0 +- +worker$", screen())


def test_the_first_screen_has_no_column_for_what_has_grown() -> None:
    lines = tuple(line._replace(grown=None) for line in top().lines)
    assert "GROWN" not in screen(lines=lines)


@pytest.mark.parametrize(("by", "head"), [
    ("program", "PROGRAM"), ("user", "USER"), ("cgroup", "CGROUP"), ("mapping", "MAPPING")])
def test_what_is_in_common_stands_last(by: str, head: str) -> None:
    assert re.search(rf"(?m)^ +USS +PSS +RSS +SWAP +GROWN +PROCS +{head}$", screen(by))
    assert re.search(r"(?m)^12288 .* 1 +server$", screen(by))


def test_rows_that_are_left_out_are_counted() -> None:
    assert "1 more: --limit 3 shows all" in screen(shown=2)


def test_memory_without_a_name_is_called_anonymous() -> None:
    lines = tuple(line._replace(key="", name="") for line in top("mapping").lines)
    assert re.search(r"(?m) anonymous$", screen("mapping", lines=lines))


def test_the_document_has_the_sums_of_all_and_the_lines() -> None:
    found = json.loads(written.write("json", "top"))
    assert (found["by"], found["rss_sum"]) == ("process", 160 * MIB)
    assert found["lines"][0] == {
        "key": 10, "name": "server", "processes": 1, "uss": 12 * MIB, "pss": 25 * MIB,
        "rss": 60 * MIB, "swap": 0, "grown": 5 * MIB}
