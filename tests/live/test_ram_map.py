"""The picture of this machine's RAM: all of it, and each use as large as among the kinds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import pytest

from pagewalk.model.frames import Frames
from pagewalk.sources.ram import open_ram
from pagewalk.system.census import Count
from pagewalk.system.ram import GROUPS, PARTS, UNTOLD, parts_of
from pagewalk.system.ram_map import map_ram
from tests.live.command import pagewalk

pytestmark = pytest.mark.live
NOBODY = ("setpriv", "--reuid=65534", "--clear-groups")


def test_stretches_add_up_to_ram_and_to_the_uses_of_the_document() -> None:
    ran, other = pagewalk("ram", "--map", "--format", "json"), pagewalk("ram", "--format", "json")
    assert ran.code == 0, ran.err
    told = {group: sum(row[group] for row in ran.json["stretches"]) for group in ran.json["groups"]}
    assert told == ran.json["groups"] and set(told) == set(other.json["groups"])
    assert sum(told.values()) == ran.json["total"] == other.json["total"]


def test_a_use_is_as_large_in_the_picture_as_among_the_kinds() -> None:
    # The same frames for both: another scan would find those of another process of pagewalk.
    source = open_ram("auto", kernel=True)
    assert source.ranges is not None
    count = Count(source.facts.pmd_order)

    def counted() -> Iterator[Frames]:
        for frames in source.frames():
            count.add(frames)
            yield frames

    pages = map_ram(counted(), source.ranges).stretches.pages.sum(0)
    drawn = {group: there for group, there in zip(GROUPS, pages.tolist(), strict=True) if there}
    told: Counter[str] = Counter()
    group_of_part = {part.name: part.group for part in PARTS}
    for name, there in parts_of(count.census, UNTOLD, {}).items():
        told[group_of_part[name]] += there
    assert drawn == told and told["processes"] and told["kernel"] and told["boot"]


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
