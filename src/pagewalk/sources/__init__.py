"""The places a walk can read from: the Source protocol, and SOURCES by name.

To add a source: one file here with an ``open(target, budget_ns)`` that returns a Source, and one
row in SOURCES. The contract tests (tests/test_sources.py) take every name.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Protocol

from pagewalk.errors import BadRequest
from pagewalk.pages import U64, Counts, Holes, Leaves, VMAs, Withheld
from pagewalk.proc.frames import FrameReader
from pagewalk.proc.stall import BUDGET_NS, Stall
from pagewalk.proc.target import Target

SOURCES = {
    "procfs": "pagewalk.sources.procfs",
}

# What `auto` tries, best first.
AUTO = ("procfs",)


class Source(Protocol):
    """One opened way to read one process.

    ``withheld`` lists what this source cannot tell of it; ``frames`` is the open frame database,
    None where frames are withheld; ``huge`` and ``tables`` say whether leaves carry Flag.HUGE and
    whether holes are told apart from empty slots.
    """

    name: str
    target: Target
    stall: Stall
    frames: FrameReader | None
    huge: bool
    tables: bool

    @property
    def withheld(self) -> tuple[Withheld, ...]:
        """Return what this source cannot tell of this process."""

    def vmas(self) -> VMAs:
        """Return a fresh reading of the VMAs; raises ProcessGone when the memory is gone."""

    def leaves(self, vmas: VMAs, ranges: U64) -> Iterator[tuple[Leaves, Holes | None]]:
        """Yield batches of populated leaves in ``ranges`` (u64[k, 2], sorted, half open)."""

    def counts(self, vmas: VMAs) -> Iterator[Counts]:
        """Yield bytes by VMA and state, without reading any frame."""

    def close(self) -> None:
        """Give every descriptor back."""


def open_source(name: str, target: Target, budget_ns: int = BUDGET_NS) -> Source:
    """Return source ``name`` (or the best that works, for ``auto``), opened on ``target``.

    Every file is opened here, so the caller may drop its rights afterwards: the kernel checks
    them at open. Raises SourceUnavailable, NotPermitted, ProcessGone, BadRequest.
    """
    if name == "auto":
        name = AUTO[0]
    if name not in SOURCES:
        known = ", ".join(("auto", *SOURCES))
        raise BadRequest(f"no source is called '{name}'; there are: {known}")
    module = importlib.import_module(SOURCES[name])
    source: Source = module.open(target, budget_ns)
    return source
