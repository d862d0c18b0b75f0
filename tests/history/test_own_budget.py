"""What a block of code takes: of this process, without pytest around it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pagewalk.history.budget import TITLES, Bounds
from pagewalk.history.own_budget import Block, budgets_of, told, unseen, unsure
from pagewalk.model.errors import BadRequest

ROOT = Path(__file__).parents[2]
MIB = 1 << 20


def test_a_block_that_takes_nothing_grows_by_little() -> None:
    block = Block({"uss": 8 * MIB, "rss": 8 * MIB, "swap": 0}, whole=False, every=0.01)
    block.begin()
    found = {one.measure: one for one in block.end()}
    assert set(found) == set(TITLES)
    for name in ("uss", "rss", "swap"):
        assert found[name].exceeded is False and (found[name].at_least or 0) < 8 * MIB
    assert not block.thread.is_alive()


def test_what_a_block_holds_is_told_with_what_it_is_made_of() -> None:
    block = Block({"uss": 16 * MIB}, whole=False, every=None)
    block.begin()
    held = b"x" * (32 * MIB)
    (uss, *_) = block.end()
    assert uss.exceeded and 32 * MIB <= (uss.at_least or 0) < 40 * MIB
    said = told(block, uss)
    assert len(held) == 32 * MIB
    first, *rest = said.splitlines()
    assert first.startswith("memory budget exceeded: USS grew by at least 3")
    assert "anonymous, not told apart" in said and f"{block.pid} " in said
    assert all(line.isprintable() for line in rest)


def test_between_two_bounds_a_budget_is_not_certain() -> None:
    block = Block({"rss": 10 * MIB}, whole=True, every=None)
    block.begin()
    look = block.look()
    amounts = {**look.amounts, "rss": Bounds(9 * MIB, 12 * MIB)}
    block.seen.peaks, block.seen.most = {"rss": look._replace(amounts=amounts)}, {"rss": 12 * MIB}
    block.seen.highest = None
    from pagewalk.history.budget import verdict

    (sentence,) = unsure([verdict(block.seen, "rss")])
    assert sentence.startswith("memory budget not certain: RSS was between 9216 and 12288 KiB, and"
                               " 10240 KiB are allowed")


def test_a_peak_that_no_look_saw_is_told_by_vmhwm() -> None:
    block = Block({"uss": 16 * MIB, "rss": MIB}, whole=False, every=None)
    block.begin()
    now = block.look().holds[0]
    held = b"x" * (now.peak - now.rss + 64 * MIB)
    assert len(held) >= 64 * MIB
    del held
    found = block.end()
    assert [one.exceeded for one in found if one.measure == "uss"] == [False]
    (sentence,) = unseen(block, found)
    assert "KiB of USS, and 16384 KiB are allowed; but between two looks there were" in sentence


def test_what_looks_saw_is_certain() -> None:
    block = Block({"uss": 256 * MIB}, whole=False, every=None)
    block.begin()
    assert unseen(block, block.end()) == []


@pytest.mark.parametrize("limits", [{}, {"held": 1}, {"uss": None}, {"uss": "1 G"}])
def test_budgets_that_cannot_be(limits: dict[str, object]) -> None:
    with pytest.raises(BadRequest):
        budgets_of(limits)


def test_budgets_are_numbers_or_sizes() -> None:
    assert budgets_of({"uss": "50M", "pss": 4096, "swap": 0}) == {
        "uss": 50 * MIB, "pss": 4096, "swap": 0}


@pytest.mark.live
def test_an_ordinary_user_needs_no_rights() -> None:
    code = """
from tests.live.dropped import become, import_all
import_all()
become(65534)
from pagewalk.history.own_budget import Block
block = Block({"uss": 16 << 20}, whole=False, every=None)
block.begin()
held = b"x" * (32 << 20)
uss, *_ = block.end()
assert uss.exceeded and uss.at_least >= 32 << 20 and uss.most == uss.at_least
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
