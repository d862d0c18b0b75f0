"""Addresses and names stay out of a recording, and what is the same stays the same."""

from __future__ import annotations

import json

import pytest

from pagewalk.history.hidden import Hidden, Names, plain_cache, without_addresses, without_paths
from pagewalk.model.columns import Withheld
from pagewalk.snapshot.documents import to_text
from pagewalk.system.containers import Name
from pagewalk.system.files import Charge, Sort
from pagewalk.system.machine import FilesLook
from tests.history.test_recorded_machine import WORD, looks
from tests.system import by_hand

SECRETS = ("app.log", "libjvm", "memfd", "secret", "srv", "libc.so", "web", "/db", "old", "/app")


def test_no_address_is_left_without_physical() -> None:
    hidden = Hidden(physical=False, scrub=False)
    for one in looks().found.values():
        text = to_text(hidden.of(one))
        assert str(WORD) not in text and f"{WORD:x}" not in text
    made = looks().found["cgroups"]
    table = hidden.of(made)
    assert not table.groups.memcg.any() and table.groups.path == made.groups.path
    zones = hidden.of(by_hand.ram()).totals.zones
    assert zones is not None and zones[0].start is None


def test_who_is_charged_has_one_number_everywhere() -> None:
    hidden = Hidden(physical=False, scrub=False)
    charges = tuple(Charge(word, 1) for word in (WORD + 8, 0, WORD))
    first = hidden.of(by_hand.file(Sort.FILE, "/a", 1, charges=charges))
    assert [one.owner for one in first.charges or ()] == [1, 0, 2]
    look = hidden.of(looks().found["files"])
    assert look.owners == {2: "/app"}


def test_with_physical_nothing_is_changed() -> None:
    for one in looks().found.values():
        assert Hidden(physical=True, scrub=False).of(one) is one


def test_no_name_is_left_with_scrub() -> None:
    hidden = Hidden(physical=False, scrub=True)
    for one in (*looks().found.values(), by_hand.group(path="/app/old")):
        text = to_text(hidden.of(one))
        for secret in SECRETS:
            assert secret not in text, (secret, text)


def test_the_same_cgroup_has_the_same_number_and_place_in_the_tree() -> None:
    hidden = Hidden(physical=True, scrub=True)
    table = hidden.of(by_hand.group_table())
    assert table.groups.path == ("/", "/1", "/2", "/1/3")
    assert hidden.of(FilesLook(by_hand.group_table().keepers[0].files, {7: "/db"})).owners == {
        7: "/2"}
    named = hidden.of(Names({"/db": Name("container", "db", "docker", "f" * 64)})).of
    assert named == {"/2": Name("container", "2", "docker")}


def test_amounts_are_not_touched() -> None:
    group = by_hand.group()
    plain = Hidden(physical=False, scrub=True).of(group)
    assert sum(plain.elsewhere.values()) == sum(group.elsewhere.values())
    assert plain.parts == group.parts and plain.numbers == group.numbers
    assert json.loads(to_text(plain.lines)) == json.loads(to_text(group.lines))


@pytest.mark.parametrize(("text", "left"), [
    ("cannot read /home/x/y: refused", "cannot read (a path) ..."),
    ("cannot read /home/my secret/y z: refused", "cannot read (a path) ..."),
    ("cannot read /proc/1/maps: refused", "cannot read /proc/1/maps: refused"),
    ("and/or 3/4", "and/or 3/4"), ("no cgroup '/a b'", "no cgroup '(a path) ..."),
])
def test_paths_in_sentences(text: str, left: str) -> None:
    assert without_paths(text) == left
    assert Hidden(physical=True, scrub=True).of(Withheld("x", text)).why == left


def test_addresses_in_sentences() -> None:
    assert without_addresses("0xffff888100000000 and ff11000000000000") == (
        "(an address) and (an address)")
    assert without_addresses("0x7fff00000000, ffff") == "0x7fff00000000, ffff"


def test_a_cache_of_one_cgroup() -> None:
    assert plain_cache("dentry(12:web)") == "dentry" and plain_cache(None) is None
