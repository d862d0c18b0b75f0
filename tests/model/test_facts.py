"""Only the sources ask the host what kernel it runs, and each rule follows the walk's facts."""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pagewalk
from pagewalk.account.smaps import others, vmflags
from pagewalk.account.table import Table, by_vma
from pagewalk.commands.pages import within
from pagewalk.model.columns import READ, SHARED, Backing, Flag, State
from pagewalk.model.facts import Facts
from pagewalk.render import view
from tests import by_hand
from tests.by_hand import FACTS, HERE, ONCE, PAGE, SOFT, Row

ROOT = Path(pagewalk.__file__).parent
COUNTING = ROOT.parents[1] / "docs" / "counting.md"

# These may ask, because they read the kernel that they run on.
ASKING = ("proc", "kernel", "sources")
# The questions: the names in proc/ for the host's facts, and Python's own.
OURS = {"PAGE", "PAGE_SHIFT", "HUGE_SIZE", "read_facts", "release", "read_config", "architecture",
        "has_protection_keys"}
PYTHONS = {"uname", "sysconf", "cpu_count", "process_cpu_count", "sched_getaffinity", "PAGESIZE",
           "ALLOCATIONGRANULARITY", "getpagesize", "platform", "multiprocessing"}


def folder(name: str) -> str:
    """Return the room in ``pagewalk.room.module``."""
    return f"{name}.".split(".")[1]


def asks(module: str) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of each question to the host in ``module``, a file in the package."""
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.ImportFrom):
            of = node.module or ""
            for alias in node.names:
                ours = folder(of) in ASKING and alias.name in OURS
                if ours or "pagewalk.proc.kernel" in (of, f"{of}.{alias.name}") or (
                    {of, alias.name} & PYTHONS
                ):
                    yield node.lineno, f"{of}.{alias.name}"
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            yield from ((node.lineno, n) for n in names
                        if n in PYTHONS or n == "pagewalk.proc.kernel")
        elif isinstance(node, ast.Attribute) and node.attr in PYTHONS - {"platform"}:
            yield node.lineno, node.attr


def modules(*, asking: bool) -> list[str]:
    paths = (path.relative_to(ROOT) for path in sorted(ROOT.rglob("*.py")))
    return [str(path) for path in paths if (path.parts[0] in ASKING) == asking]


@pytest.mark.parametrize("module", modules(asking=False))
def test_only_the_sources_and_what_they_read_ask_the_host(module: str) -> None:
    assert list(asks(module)) == []


def test_the_check_finds_the_sources_questions() -> None:
    found = {name.rpartition(".")[2] for module in modules(asking=True) for _, name in asks(module)}
    assert {"PAGE", "PAGESIZE", "uname", "cpu_count", "read_facts"} <= found


# ---- the rules, on one kernel and on another


OLD, NEW = FACTS._replace(release=(6, 1)), FACTS._replace(release=(6, 18))
RULES = [name for name, value in vars(Facts).items() if isinstance(value, property)]


def test_every_fact_and_every_rule_is_documented() -> None:
    section = COUNTING.read_text().partition("\n## The facts of a kernel\n")[2]
    assert {*RULES, *Facts._fields} - {"read_config", "read_protection_keys"} == (
        set(re.findall(r"^\|.*\| `(\w+)` \|$", section, re.MULTILINE))
    )


def one(*rows: tuple[State, Flag, int], facts: Facts, backing: Backing = Backing.ANON,
        vm_flags: int | None = None, **outcome: object) -> Table:
    """Return the Table of one VMA with these pages (state, flags, mapcount)."""
    of = by_hand.vmas([(1 << 30, len(rows), READ, 0, backing, "")])
    if vm_flags is not None:
        of = replace(of, flags=np.array([vm_flags], np.uint64))
    made: list[Row] = [
        ((1 << 30) + i * PAGE, PAGE, state, flags, 1 + i, ("anon",), mapcount)
        for i, (state, flags, mapcount) in enumerate(rows)
    ]
    return by_vma(by_hand.walk([by_hand.pages(made, of)], of, facts=facts, **outcome))


@pytest.mark.parametrize(("facts", "uss"), [(OLD, 3 * PAGE), (NEW, PAGE)])
def test_pages_that_are_not_present_are_private_up_to_6_10(facts: Facts, uss: int) -> None:
    table = one((State.ANON, ONCE, 1), (State.MIGRATING, SOFT | Flag.MIGRATION, 0),
                (State.POISONED, SOFT | Flag.HWPOISON, 0), facts=facts, counts_hwpoison=True)
    assert (table.totals["rss"], table.totals["pss"]) == (3 * PAGE, 3 * PAGE)
    assert table.totals["uss"] == uss


@pytest.mark.parametrize(("facts", "told"), [(OLD, False), (NEW, True)])
def test_pagemap_shows_shared_page_tables_of_hugetlb_since_6_12(
    facts: Facts, *, told: bool
) -> None:
    gib = 1 << 30  # a whole PUD, since that is what is shared
    of = by_hand.vmas([(gib, gib // PAGE, READ | SHARED, 0, Backing.HUGETLB, "/h")])
    row: Row = (gib, 2 << 20, State.HUGETLB, ONCE | Flag.HUGE, 512, ("huge", "head"), 1)
    totals = by_vma(by_hand.walk([by_hand.pages([row], of)], of, facts=facts)).totals
    assert totals["private_hugetlb"] == (2 << 20 if told else None)


@pytest.mark.parametrize(
    ("facts", "codes"),
    [
        # rd and mr; lock on fault; what became the shadow stack; the last bit, once used for sealed
        (OLD, ["rd", "mr", "??", "ui", "??"]),
        (FACTS._replace(release=(6, 6)), ["rd", "mr", "??", "ss", "??"]),
        (FACTS._replace(release=(6, 12)), ["rd", "mr", "lf", "ss", "sl"]),
        (NEW, ["rd", "mr", "lf", "ss", "??"]),
    ],
)
def test_vmflags_have_the_letters_of_their_kernel(facts: Facts, codes: list[str]) -> None:
    word = 1 << 0 | 1 << 4 | 1 << 19 | 1 << 37 | 1 << 63
    table = one((State.ANON, ONCE, 1), facts=facts, vm_flags=word)
    assert vmflags(table, 0) == codes


@pytest.mark.parametrize(("keys", "key"), [(True, 5), (False, None)])
def test_a_protection_key_is_reported_where_the_cpu_has_them(keys: bool, key: int | None) -> None:
    facts = FACTS._replace(read_protection_keys=lambda: keys)
    table = one((State.ANON, ONCE, 1), facts=facts, vm_flags=5 << 32)
    assert others(table, 0)["protection_key"] == key


def test_without_mapcounts_amounts_that_need_them_are_withheld() -> None:
    config = frozenset({"CONFIG_NO_PAGE_MAPCOUNT"})
    for facts, told in ((FACTS, PAGE), (FACTS._replace(read_config=lambda: config), None)):
        totals = one((State.ANON, ONCE, 1), facts=facts).totals
        assert (totals["distinct"], totals["freed"]) == (told, told)


# ---- pages of another size


LARGE = FACTS._replace(architecture="aarch64", page_size=1 << 16)


def test_pss_divides_a_page_of_the_walks_size() -> None:
    size = LARGE.page_size
    of = by_hand.vmas([(size, 2 * size // PAGE, READ, 0, Backing.ANON, "")])
    rows: list[Row] = [(size, size, State.ANON, ONCE, 1, ("anon",), 1),
                       (2 * size, size, State.ANON, HERE, 2, ("anon",), 3)]
    table = by_vma(by_hand.walk([by_hand.pages(rows, of)], of, facts=LARGE))
    # 65536 / 3 is truncated to 1/4096 bytes: 65536 + 21845.333
    assert table.pss_fixed is not None
    assert table.pss_fixed.tolist() == [(size << 12) + (size << 12) // 3]
    assert table.totals["uss"] == size


def test_a_pmd_leaf_of_64_kib_pages_maps_512_mib() -> None:
    assert (FACTS.huge_size, LARGE.huge_size) == (2 << 20, 512 << 20)


@pytest.mark.parametrize("form", ["text", "csv", "json", "log"])
def test_a_frame_number_times_the_page_size_is_the_physical_address(form: str) -> None:
    size = LARGE.page_size
    of = by_hand.vmas([(size, size // PAGE, READ, 0, Backing.ANON, "")])
    row: Row = (size, size, State.ANON, ONCE, 0x123, ("anon",), 1)
    out = io.StringIO()
    view(form, "pages")([by_hand.pages([row], of)], by_hand.walk([], of, facts=LARGE), out)
    assert f"{0x1230000:016x}" in out.getvalue()
    if form == "log":
        assert "RSS : 1 (64 kB)\n" in out.getvalue()


def test_a_range_is_extended_to_whole_pages() -> None:
    all_of_it = np.array([[0, 1 << 30]], np.uint64)
    for size in (PAGE, LARGE.page_size):
        assert within(all_of_it, "12345-23456", size).tolist() == [
            [0x12345 // size * size, -(-0x23456 // size) * size]
        ]
