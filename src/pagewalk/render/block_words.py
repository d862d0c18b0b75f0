"""What a block of code took beside its budgets, as a failure or a warning of a test."""

from __future__ import annotations

import io
from collections.abc import Sequence

from pagewalk.history.budget import TITLES, Verdict
from pagewalk.history.own_budget import Block
from pagewalk.render.amounts import size
from pagewalk.render.run_table import say_worst


def exceeded(block: Block, verdict: Verdict) -> str:
    """Return how a budget was exceeded, and what there was at the worst moment."""
    assert verdict.at_least is not None and verdict.limit is not None
    when = "" if verdict.at is None else f", {verdict.at:.3f} s after the block began"
    grew = "was" if block.whole else "grew by"
    out = io.StringIO()
    print(f"memory budget exceeded: {TITLES[verdict.measure]} {grew} at least"
          f" {size(verdict.at_least)}, and {allowed(verdict)}{when}", file=out)
    worst = block.seen.worst.get(verdict.measure)
    if worst is not None:
        print(file=out)
        say_worst(worst.look, [worst], out)
    return out.getvalue().rstrip()


def allowed(verdict: Verdict) -> str:
    """Return what the budget allows, in words."""
    return f"{size(verdict.limit)} are allowed" if verdict.limit else "none is allowed"


def uncertain(block: Block, verdicts: Sequence[Verdict]) -> list[str]:
    """Return a sentence for each budget of which it is not known whether it was exceeded."""
    said = [f"memory budget not certain: {TITLES[one.measure]} was between {size(one.at_least)} and"
            f" {size(one.most)}, and {allowed(one)}: /proc does not tell how much"
            " several processes have in common; PSS is told exactly"
            for one in verdicts if one.limit is not None and one.exceeded is None]
    said += [f"memory budget not certain: no look saw more than {size(one.most)} of"
             f" {TITLES[one.measure]}, and {allowed(one)}; but between two looks"
             f" there were {size(highest)} of RSS (VmHWM): look more often (every=)"
             for one, highest in block.unseen(verdicts)]
    return said
