"""The kernel's memory by name, as the command shows it."""

from __future__ import annotations

import pytest

from tests.live.bracket import look_again
from tests.live.command import pagewalk

pytestmark = pytest.mark.live
NOBODY = ("setpriv", "--reuid=65534", "--clear-groups")


def test_slabs_are_those_of_ram() -> None:
    def look() -> None:
        before, ran, after = (pagewalk("ram", *words, "--format", "json") for words in (
            (), ("--slab",), ()))
        assert ran.code == 0, ran.err
        for key, kind in (("reclaimable", "slab_reclaimable"),
                          ("unreclaimable", "slab_unreclaimable")):
            told = [other.json["kinds"][kind] for other in (before, after)]
            assert min(told) <= ran.json[key] <= max(told)
        assert ran.json["total"] == sum(cache["size"] for cache in ran.json["caches"])

    look_again(look)


def test_who_asked_is_named() -> None:
    ran = pagewalk("ram", "--slab", "--format", "json")
    uses = {row["use"] for row in ran.json["vmalloc"]}
    assert {"stack", "vmalloc"} <= uses and "ioremap" not in uses
    assert all(row["caller"] for row in ran.json["vmalloc"])


def test_the_table_has_what_was_asked_for() -> None:
    ran = pagewalk("ram", "--slab", "--sort", "-name", "--limit", "2", "--columns", "slabs")
    assert ran.code == 0, ran.err
    lines = [line.split() for line in ran.out.splitlines()]
    at = lines.index(["SLABS", "CACHE"])
    names = [line[1] for line in lines[at + 1 : at + 3]]
    assert names == sorted(names, reverse=True)
    head = pagewalk("ram", "--slab", "--format", "csv", "--limit", "1").out.splitlines()
    assert head[0].startswith("name,size,unused") and len(head) == 2


def test_who_may_not_see_frames_is_told() -> None:
    ran = pagewalk("ram", "--slab", before=NOBODY)
    assert (ran.code, ran.out) == (6, "") and "run as root" in ran.err
    assert pagewalk("ram", "--slab", "--files").code == 2
