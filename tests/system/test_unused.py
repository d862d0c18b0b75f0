"""What is not used is read before and after the kernel's numbers, until it holds still."""

from __future__ import annotations

from pagewalk.proc.cgroup_numbers import GroupNumbers
from pagewalk.system.unused import TRIES, Unused, beside

FOUND = Unused(left=3000, objcgs=2, listed=True, objects=96, pages=4096)


def looked(*readings: Unused | None) -> tuple[GroupNumbers, Unused | None, int]:
    """Return what is found when it reads so, one after the other, and how many are left."""
    left, calls = list(readings), iter(range(1, 9))
    numbers, unused = beside(lambda: GroupNumbers(current=next(calls)), lambda: left.pop(0))
    return numbers, unused, len(left)


def test_what_holds_still_is_exact() -> None:
    numbers, unused, left = looked(FOUND, FOUND)
    assert (numbers.current, left) == (1, 0)
    assert unused == FOUND._replace(still=True)
    assert unused.for_objects == 3096 and unused.in_advance == 4096


def test_it_is_read_again_while_it_moves() -> None:
    more = FOUND._replace(left=0, objects=3096)
    numbers, unused, left = looked(FOUND, more, more)
    assert (numbers.current, unused, left) == (2, more._replace(still=True), 0)


def test_what_never_holds_still_is_not_exact() -> None:
    moving = [FOUND._replace(pages=4096 * at) for at in range(TRIES + 1)]
    numbers, unused, left = looked(*moving)
    assert (numbers.current, unused, left) == (TRIES, moving[-1], 0)
    assert unused is not None and unused.for_objects is unused.in_advance is None


def test_a_kernel_without_obj_cgroups_tells_nothing() -> None:
    assert looked(None, None)[:2] == (GroupNumbers(current=1), None)
