"""What a block of code took beside its budgets, as a failure or a warning of a test."""

from __future__ import annotations

import io
from collections.abc import Sequence

from pagewalk.history.budget import TITLES
from pagewalk.history.own_budget import Block
from pagewalk.history.verdicts import Verdict
from pagewalk.render.amounts import size
from pagewalk.render.run_table import say_worst


def exceeded(block: Block, verdict: Verdict) -> str:
    """Return how a budget was exceeded, and what there was at the worst moment."""
    assert verdict.at_least is not None and verdict.limit is not None
    when = "" if verdict.at is None else f", {verdict.at:.3f} s after the block began"
    grew = "was" if block.whole else "grew by"
    out = io.StringIO()
    print(f"memory budget exceeded: {TITLES[verdict.measure]} {grew} at least"
          f" {size(verdict.at_least)}{when}; its budget is {size(verdict.limit)}", file=out)
    worst = block.seen.worst.get(verdict.measure)
    if worst is not None:
        print(file=out)
        say_worst(worst.look, [worst], block.seen, out)
    return out.getvalue().rstrip()


def uncertain(block: Block, verdicts: Sequence[Verdict]) -> list[str]:
    """Return a sentence for each budget of which it is not known whether it was exceeded."""
    unknown = "cannot tell whether the memory budget was kept"
    was = "was" if block.whole else "grew by"
    open_ones = [one for one in verdicts if one.limit is not None and one.exceeded is None]
    return [
        f"{unknown}: no look saw more than {size(one.most)} of {TITLES[one.measure]}, whose budget"
        f" is {size(one.limit)}, but between two looks RSS was {size(one.between)} higher than any"
        " saw (VmHWM): look more often (every=)" if one.between else
        f"{unknown}: {TITLES[one.measure]} {was} {size(one.at_least)} to {size(one.most)}, and its"
        f" budget is {size(one.limit)}: /proc does not tell how much several processes have in"
        " common; PSS is exact, budget that"
        for one in open_ones]
