"""What a block of code takes: of this process, without pytest around it."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pagewalk.history.budget import TITLES
from pagewalk.history.own_budget import Block, budgets_of
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


def test_what_a_block_holds_is_seen_with_what_it_is_made_of() -> None:
    block = Block({"uss": 16 * MIB}, whole=False, every=None)
    block.begin()
    held = b"x" * (32 * MIB)
    (uss, *_) = block.end()
    assert len(held) == 32 * MIB
    # Less what it had for itself, and another process has begun to map meanwhile.
    assert uss.exceeded and 28 * MIB <= (uss.at_least or 0) < 40 * MIB
    worst = block.seen.worst["uss"]
    assert [one.pid for one in worst.look.holds] == [block.pid] == list(worst.commands)
    # Its USS of libraries falls when another process maps them too: the sum may, not the largest.
    assert worst.made is not None
    assert max(part.uss or 0 for part in worst.made.kinds) >= 32 * MIB


def test_what_a_block_unmaps_is_told_of_what_grew() -> None:
    with mmap.mmap(-1, 24 * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as before:
        before.write(b"x" * (24 * MIB))
        block = Block({"uss": 16 * MIB}, whole=False, every=None)
        block.begin()
    held = b"x" * (64 * MIB)
    (uss, *_) = block.end()
    assert uss.exceeded and len(held) == 64 * MIB
    made = block.seen.worst["uss"].made
    assert made is not None
    kinds = {part.name: part.uss for part in made.kinds}
    # The kernel may have merged either with other mappings: then it is in the kind's own sum.
    assert 36 * MIB <= sum(amount or 0 for amount in kinds.values()) < 48 * MIB


def test_a_file_that_grew_is_named_though_its_name_is_no_text(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff \xe9\n"))
    path.write_bytes(b"x" * (32 * MIB))
    block = Block({"rss": 16 * MIB}, whole=False, every=None)
    block.begin()
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        assert mapped[:].count(b"x") == 32 * MIB
        block.end()
    made = block.seen.worst["rss"].made
    assert made is not None
    # The kernel writes a line's end in a name as \012.
    name = str(path).replace("\n", "\\012")
    assert {part.name: part.rss for part in made.mappings}[name] > 16 * MIB


def test_a_peak_that_no_look_saw_is_told_by_vmhwm() -> None:
    block = Block({"uss": 16 * MIB, "rss": MIB}, whole=False, every=None)
    block.begin()
    now = block.look().holds[0]
    held = b"x" * (now.peak - now.rss + 64 * MIB)
    assert len(held) >= 64 * MIB
    del held
    found = block.end()
    [uss] = [one for one in found if one.measure == "uss"]
    assert uss.exceeded is None and uss.between >= 48 * MIB  # less what VmHWM may overstate


def test_what_looks_saw_is_certain() -> None:
    block = Block({"uss": 256 * MIB}, whole=False, every=None)
    block.begin()
    [uss, *_] = block.end()
    assert uss.exceeded is False


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
assert uss.exceeded and uss.at_least >= 28 << 20 and uss.most == uss.at_least
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
