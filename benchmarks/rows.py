"""A row of the table: our samples, the opponent's, and the limit that applies."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum


class Of(Enum):
    """What a limit applies to."""

    RATIO = "ratio"  # the median of ours over theirs, round by round
    WORST = "worst"  # the largest of our own samples


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that a row may show, and what it applies to."""

    value: float
    of: Of = Of.RATIO


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. ``ours`` and ``theirs`` are samples in ``unit``, in the order taken.

    ``theirs`` is empty if there is no opponent, and has another length if the opponent was not run
    in every round; then each round is compared with the median of ``theirs``. ``missing`` says why
    nothing was measured, ``note`` what a reader has to know about the figures.
    """

    measure: str
    opponent: str
    unit: str
    ours: tuple[float, ...] = ()
    theirs: tuple[float, ...] = ()
    limit: Limit | None = None
    missing: str = ""
    note: str = ""

    @property
    def ratios(self) -> tuple[float, ...]:
        """Return ours over theirs, one per round, without the rounds in which theirs was 0."""
        if not self.theirs:
            return ()
        theirs = self.theirs
        if len(theirs) != len(self.ours):
            theirs = (statistics.median(theirs),) * len(self.ours)
        return tuple(a / b for a, b in zip(self.ours, theirs, strict=True) if b)

    @property
    def met(self) -> bool | None:
        """Return whether the limit was met; None without a limit or without figures."""
        of_ratio = self.limit is not None and self.limit.of is Of.RATIO
        figures = self.ratios if of_ratio else self.ours
        if self.limit is None or not figures:
            return None
        return (statistics.median(figures) if of_ratio else max(figures)) <= self.limit.value


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to do. Sizes of targets are divided by ``scale``, which is 1 in a full run."""

    rounds: int
    scale: int

    @property
    def quick(self) -> bool:
        """Return whether sizes differ from those that the limits are meant for."""
        return self.scale > 1

    def mib(self, gib: float) -> int:
        """Return the size in MiB of a target that is ``gib`` GiB in a full run."""
        return int(gib * 1024) // self.scale


def interleave(
    rounds: int, contestants: dict[str, Callable[[], float]]
) -> dict[str, tuple[float, ...]]:
    """Run all contestants in turn, ``rounds`` times (A B A B ...), and return their samples.

    One turn before that is discarded: it warms the caches for all of them.
    """
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            figure = run()
            if turn:
                samples[name].append(figure)
    return {name: tuple(figures) for name, figures in samples.items()}


def size(mib: int) -> str:
    """Return a size in words: '4 GiB', '512 MiB'."""
    return f"{mib // 1024} GiB" if mib % 1024 == 0 else f"{mib} MiB"


def absent(rows: Sequence[Row], why: str) -> list[Row]:
    """Return ``rows`` as not measured."""
    return [Row(r.measure, r.opponent, r.unit, limit=r.limit, missing=why) for r in rows]
