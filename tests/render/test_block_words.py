"""What a test is told of its budgets; amounts and the worst moment are made by hand."""

from __future__ import annotations

from pagewalk.history.budget import Bounds
from pagewalk.history.own_budget import Block
from pagewalk.history.verdicts import verdict
from pagewalk.proc.tree import peak_lag
from pagewalk.render.block_words import exceeded, uncertain
from tests.run_by_hand import MIB, report


def block(*, whole: bool = False, **budgets: int) -> Block:
    """Return a block that has begun, whose first look is all that was seen."""
    found = Block(budgets, whole=whole, every=None)
    found.begin()
    found.seen.highest = None
    return found


def saw(block: Block, measure: str, low: int, high: int) -> None:
    """Let the block have seen this much at its worst."""
    look = block.look()
    block.seen.peaks[measure] = look._replace(
        at=1.25, amounts={**look.amounts, measure: Bounds(low, high)})
    block.seen.most[measure] = high


def test_what_was_exceeded_is_said_with_the_worst_moment() -> None:
    one = block(uss=16 * MIB)
    saw(one, "uss", 20 * MIB, 20 * MIB)
    one.seen.worst["uss"] = report().worst[0]
    first, empty, *rest = exceeded(one, verdict(one.seen, "uss")).splitlines()
    assert first == ("memory budget exceeded: USS grew by at least 20480 KiB, 1.250 s after the"
                     " block began; its budget is 16384 KiB") and not empty
    rows = [line.split() for line in rest]
    assert ["10", "204800", "235520", "307200", "0", "/srv/server", "--fast"] in rows
    assert ["153600", "153600", "153600", "0", "heap"] in rows


def test_with_whole_it_was_and_did_not_grow() -> None:
    one = block(whole=True, rss=MIB)
    saw(one, "rss", 2 * MIB, 2 * MIB)
    assert exceeded(one, verdict(one.seen, "rss")).startswith(
        "memory budget exceeded: RSS was at least 2048 KiB, 1.250 s after the block began;"
        " its budget is 1024 KiB")


def test_a_name_obeys_no_terminal() -> None:
    one = block(uss=16 * MIB)
    saw(one, "uss", 20 * MIB, 20 * MIB)
    worst = report().worst[0]
    one.seen.worst["uss"] = worst._replace(commands={10: "\x1b[2J\nx"}, made=None)
    lines = exceeded(one, verdict(one.seen, "uss")).splitlines()
    assert all(line.isprintable() for line in lines)
    assert lines[-1] == "what they were made of is not known: that was looked at too late"


def test_between_two_bounds_a_budget_is_not_certain() -> None:
    one = block(whole=True, rss=10 * MIB)
    saw(one, "rss", 9 * MIB, 12 * MIB)
    (sentence,) = uncertain(one, [verdict(one.seen, "rss")])
    assert sentence.startswith("cannot tell whether the memory budget was kept: RSS was 9216 KiB to"
                               " 12288 KiB, and its budget is 10240 KiB: /proc does not tell")


def test_a_peak_between_two_looks_is_not_certain() -> None:
    one = block(whole=True, uss=10 * MIB)
    saw(one, "uss", MIB, MIB)
    saw(one, "rss", 2 * MIB, 2 * MIB)
    one.seen.highest = one.look().holds[0]._replace(
        rss=2 * MIB, peak=12 * MIB + peak_lag(1), threads=1)
    (sentence,) = uncertain(one, [verdict(one.seen, "uss")])
    assert sentence == (
        "cannot tell whether the memory budget was kept: no look saw more than 1024 KiB of USS,"
        " whose budget is 10240 KiB, but between two looks RSS was 10240 KiB higher than any saw"
        " (VmHWM): look more often (every=)")


def test_what_was_kept_is_not_spoken_of() -> None:
    one = block(whole=True, uss=10 * MIB)
    saw(one, "uss", MIB, MIB)
    assert uncertain(one, [verdict(one.seen, "uss")]) == []
