"""The picture of this machine's RAM: all of it, and each use as large as elsewhere."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.live.bracket import look_again
from tests.live.command import pagewalk

pytestmark = pytest.mark.live
NOBODY = ("setpriv", "--reuid=65534", "--clear-groups")


def by_group(document: dict[str, Any]) -> dict[str, int]:
    kinds = document["kinds"]
    return {group: sum(kinds[name] for name in names)
            for group, names in document["groups"].items()}


def test_stretches_add_up_to_ram_and_to_each_use() -> None:
    def look() -> None:
        before, ran, after = (pagewalk("ram", *words, "--format", "json") for words in (
            (), ("--map",), ()))
        assert ran.code == 0, ran.err
        rows = ran.json["stretches"]
        told = {group: sum(row[group] for row in rows) for group in ran.json["groups"]}
        assert sum(told.values()) == before.json["total"] == ran.json["total"]
        assert told == ran.json["groups"]
        # Others allocate and free meanwhile: a use lies between how it was before and after.
        for group, amount in told.items():
            around = [by_group(other.json)[group] for other in (before, after)]
            assert min(around) <= amount <= max(around), group

    look_again(look)


def test_the_screen_has_an_address_in_each_line_of_letters() -> None:
    ran = pagewalk("ram", "--map")
    assert ran.code == 0, ran.err
    lines = re.findall(r"(?m)^0x([0-9a-f]+)  [ PCSKBpcskb.]{1,64}$", ran.out)
    assert lines and lines == sorted(lines)
    assert "The largest piece that is free is" in ran.out


def test_who_may_not_see_frames_is_told() -> None:
    ran = pagewalk("ram", "--map", before=NOBODY)
    assert (ran.code, ran.out) == (6, "") and "run as root" in ran.err
    assert pagewalk("ram", "--map", "--ledger").code == 2
    assert pagewalk("ram", "--map", "--limit", "3").code == 2
