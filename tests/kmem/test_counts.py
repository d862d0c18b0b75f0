"""What page tables add up to, as Counts."""

from __future__ import annotations

import numpy as np

from pagewalk.kmem.counts import tallied
from pagewalk.pages import READ, WRITE, Backing, State
from pagewalk.states import hwpoison
from pagewalk.tally import Kind
from tests import by_hand
from tests.by_hand import HEAP, PAGE


def test_a_lost_page_is_distinguished_from_a_poison_marker() -> None:
    of = by_hand.vmas([(HEAP, 8, READ | WRITE, 0, Backing.ANON, "")])
    size = np.zeros((1, len(Kind)), np.uint64)
    size[0, Kind.HWPOISON], size[0, Kind.POISON], size[0, Kind.PAGE] = PAGE, 2 * PAGE, 5 * PAGE
    counts = tallied(of, np.zeros(1, np.int64), size, np.ones(1, bool))
    poisoned = counts.state == State.POISONED.value
    assert int(counts.size[poisoned].sum()) == 3 * PAGE
    assert counts.size[hwpoison(counts.flags)].tolist() == [PAGE]
