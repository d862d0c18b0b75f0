"""Whether a tree of processes kept its budgets: what is known of each measure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pagewalk.history.budget import TITLES, Bounds, Watched
from pagewalk.proc.tree import Holds, peak_lag

LOOK, HIGH_WATER = "a look", "VmHWM"


class Verdict(NamedTuple):
    """What is known of one measure, in bytes; ``limit`` is its budget, None if it has none.

    The peak is at least ``at_least``, seen ``at`` seconds after the start, None if only VmHWM tells
    of it (``by`` says which). ``most`` is the highest amount that any look may have meant. ``last``
    is what the last look saw. ``between`` is by how much RSS was higher between two looks than any
    saw, if VmHWM tells so. ``exceeded`` is None where it lies between two bounds, where USS or PSS
    would have been too high with that much more, or if there was no look.
    """

    measure: str
    limit: int | None
    at_least: int | None
    at: float | None
    by: str
    most: int | None
    last: Bounds | None
    exceeded: bool | None
    between: int = 0


def properties(verdicts: Iterable[Verdict]) -> list[tuple[str, int]]:
    """Return what is known of each measure as names and bytes: pagewalk.uss.peak_at_least."""
    found = []
    for one in verdicts:
        amounts = {"budget": one.limit, "peak_at_least": one.at_least,
                   "peak_looks_at_most": one.most}
        if one.last is not None:
            amounts |= {"last_at_least": one.last.low, "last_at_most": one.last.high}
        found += [(f"pagewalk.{one.measure}.{name}", amount)
                  for name, amount in amounts.items() if amount is not None]
    return found


def verdicts(seen: Watched) -> list[Verdict]:
    """Return a Verdict for each of TITLES."""
    return [verdict(seen, key) for key in TITLES]


def verdict(seen: Watched, key: str) -> Verdict:
    limit, peak = seen.budgets.get(key), seen.peaks.get(key)
    if peak is None or seen.last is None:
        return Verdict(key, limit, None, None, LOOK, None, None, None)
    at_least, by = peak.amounts[key].low, LOOK
    when: float | None = peak.at
    base = seen.base.amounts["rss"].high if seen.base is not None else 0
    reached = high_water(seen.highest) - base
    between = max(0, reached - seen.peaks["rss"].amounts["rss"].low)
    if key == "rss" and between:
        at_least, when, by = reached, None, HIGH_WATER
    most = max(seen.most[key], at_least)
    perhaps = most + between if key in ("uss", "pss") else most
    exceeded = None if limit is None else (
        True if at_least > limit else None if perhaps > limit else False)
    return Verdict(key, limit, at_least, when, by, most, seen.last.amounts[key], exceeded, between)


def high_water(one: Holds | None) -> int:
    """Return what a process surely had in RAM at some time: VmHWM, less what that may overstate."""
    if one is None or one.peak <= one.rss:
        return 0
    return max(0, one.peak - peak_lag(one.threads))

