"""Pages and recordings made by hand."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from pagewalk.model.columns import Flag, Pages, State
from pagewalk.model.facts import Facts
from pagewalk.snapshot.schema import VERSION, Meta

PAGE = 4096
FACTS = Facts("x86_64", (6, 18), PAGE, 2, lambda: frozenset({"SWAP"}), lambda: False)
META = Meta(VERSION, "0.1", 1_700_000_000_000_000_000, 5, "host", "boot", "6.18.0", True, False,
            "by hand")


def pages(
    rows: Sequence[tuple[int, int, State, int]], mapcount: int = 1, size: int = PAGE
) -> Pages:
    """Return pages of (addr, vma, state, pfn), all of one size and mapcount."""
    addr, vma, state, pfn = (np.array(c) for c in zip(*rows, strict=True))
    count = len(rows)
    flags = np.where(np.isin(state, [State.ANON, State.FILE]), Flag.PRESENT.value, 0)
    flags[state == State.SWAPPED] = (Flag.SOFT | Flag.SWAP).value
    return Pages(
        addr.astype(np.uint64), np.full(count, size, np.uint64), vma.astype(np.int64),
        state.astype(np.uint8), np.zeros(count, np.uint8), flags.astype(np.uint32),
        np.zeros(count, np.uint64), pfn.astype(np.uint64), np.full(count, 1 << 11, np.uint64),
        np.full(count, mapcount, np.uint64),
    )


def same(one: Pages, other: Pages) -> bool:
    """Return whether all columns are equal."""
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in one.names)


def empty_file() -> io.BytesIO:
    """Return a file in memory."""
    return io.BytesIO()
