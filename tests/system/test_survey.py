"""Groups and those below them."""

from __future__ import annotations

import numpy as np

from pagewalk.model.frames import Kind
from pagewalk.system.census import Count
from pagewalk.system.survey import below, of_groups, outermost_removed
from tests.system.by_hand import Run, frames, memcgs

GROUPS = memcgs(("/", -1, False, 0, -1), ("/a", 0, False, 0, -1), ("/b", 0, False, 0, -1),
                ("/a/x", 1, False, 0, -1), ("/a/x/y", 3, True, 0, -1))


def test_a_group_includes_all_below_it() -> None:
    assert below(GROUPS, 0).all()
    assert below(GROUPS, 1).tolist() == [False, True, False, True, True]
    assert below(GROUPS, 2).tolist() == [False, False, True, False, False]


def test_a_census_of_groups_leaves_out_the_others_and_what_nobody_is_charged_for() -> None:
    count = Count(9, lambda _: np.array([0, 1, 2, 4, 5]))
    count.add(frames(*(Run(Kind.ANON, pages) for pages in (1, 2, 4, 8, 16))))
    assert int(of_groups(count.census, below(GROUPS, 1)).pages.sum()) == 4 + 8 + 16
    assert int(of_groups(count.census, below(GROUPS, 0)).pages.sum()) == 30


def test_of_removed_groups_inside_one_another_the_outermost_has_the_charge() -> None:
    groups = memcgs(
        ("/", -1, False, 9, -1), ("/gone", 0, True, 5, -1), ("/kept", 0, False, 4, -1),
        ("/gone/a", 1, True, 3, -1), ("/kept/b", 2, True, 2, -1), ("/gone/a/c", 3, True, 1, -1),
        ("/kept/b/d", 4, True, 1, -1),
    )
    assert outermost_removed(groups).nonzero()[0].tolist() == [1, 4]
    assert groups.usage[outermost_removed(groups)].sum() == 7


def test_a_topmost_group_that_was_removed_is_outermost() -> None:
    # its parent is the last row, for numpy, and that was removed too
    assert outermost_removed(memcgs(("/x", -1, True, 9, -1), ("/x/y", 0, True, 3, -1))
                             ).tolist() == [True, False]
