"""Which of several looks counts, and what of it did not move."""

from __future__ import annotations

from collections.abc import Callable

from pagewalk.account.ledger import Cause, Line
from pagewalk.system.group import Group
from pagewalk.system.looks import LOOKS, closest
from tests.by_hand import PAGE
from tests.system.by_hand import group


def seen(moved: int, unexplained: int = 0) -> Group:
    """Return a group of one line, with a residue that frames which changed would explain."""
    causes = (Cause("frames_changed", moved, False, 1 << 30),) if moved else ()
    line = Line("memory.current", "pages", PAGE, PAGE - moved - unexplained, causes, unexplained)
    return group(lines=[line])


def looking(*looks: Group) -> tuple[Callable[[], Group], list[Group]]:
    """Return what looks at one after the other, and those that are left."""
    left = list(looks)
    return lambda: left.pop(0), left


def test_a_first_look_without_doubt_is_enough() -> None:
    look, left = looking(seen(0), seen(0))
    assert closest(look, steady=True).lines == seen(0).lines
    assert len(left) == 1


def test_the_best_look_counts_not_the_last() -> None:
    look, left = looking(seen(0, 3), seen(9, 1), seen(5, 1), seen(0, 3))
    assert closest(look).lines == seen(0, 3).lines  # as many are unexplained, and less moved
    look, left = looking(seen(0, 3), seen(-8), seen(0, 5))
    assert closest(look).lines == seen(-8).lines
    assert len(left) == 1


def test_the_least_that_is_said_to_have_moved_counts() -> None:
    look, left = looking(seen(-9 * PAGE), seen(PAGE), seen(0))
    assert closest(look, steady=True).lines == seen(PAGE).lines
    assert len(left) == 1  # it moves: that is proved


def test_a_residue_that_stays_to_the_byte_is_not_movement() -> None:
    look, left = looking(*[seen(-8000 * PAGE)] * LOOKS)
    [line] = closest(look, steady=True).lines
    assert (line.causes, line.unexplained) == ((), -8000 * PAGE)
    assert not left
    look, left = looking(*[seen(-8000 * PAGE)] * (LOOKS - 1), seen(-8000 * PAGE + 1))
    [line] = closest(look, steady=True).lines
    assert (line.unexplained, line.causes[0].bytes) == (0, -8000 * PAGE + 1)


def test_where_the_kernel_counts_what_moves_one_look_is_enough() -> None:
    look, left = looking(seen(PAGE), seen(0))
    assert closest(look).lines == seen(PAGE).lines
    assert len(left) == 1
