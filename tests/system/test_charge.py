"""What of a charge is not used yet: exact if it was read, else bounded."""

from __future__ import annotations

import pytest

from pagewalk.model.frames import Kind
from pagewalk.system.unused import Unused
from tests.by_hand import PAGE
from tests.system.by_hand import Run, charge

CPUS = 2
COUNTED = charge(Run(Kind.ANON, 8))
FOUND = Unused(left=3000, objcgs=2000, listed=True, objects=96, pages=5 * PAGE, still=True)


def test_what_was_read_while_nothing_moved_is_exact() -> None:
    counted = COUNTED._replace(unused=FOUND)
    assert counted.exactly("object_stock") == 3096
    assert counted.exactly("charged_in_advance") == 5 * PAGE


@pytest.mark.parametrize(("unused", "objects", "pages"), [
    (None, None, None), (FOUND._replace(still=False), None, None),
    (FOUND._replace(listed=False), None, 5 * PAGE),
    (FOUND._replace(objects=None, pages=None), None, None),
])
def test_what_moved_or_could_not_be_read_is_not(
    unused: Unused | None, objects: int | None, pages: int | None
) -> None:
    counted = COUNTED._replace(unused=unused)
    assert (counted.exactly("object_stock"), counted.exactly("charged_in_advance")) == (
        objects, pages)


def test_what_is_left_is_bounded_by_what_was_read_of_it() -> None:
    # Two pages that were too few for an object, and one that came for it, on each CPU.
    held = 3 * CPUS * PAGE
    known = COUNTED._replace(unused=FOUND._replace(objects=None), groups=7)
    assert known.in_stock == held + 3000
    # Each CPU may have left less than a page of an obj_cgroup.
    unlisted = COUNTED._replace(unused=FOUND._replace(listed=False))
    assert unlisted.in_stock == held + 2000 * CPUS * PAGE
    assert COUNTED._replace(groups=3).in_stock == held + 3 * CPUS * PAGE
    assert COUNTED._replace(kernel=False).in_stock == 0


def test_a_kernel_page_may_have_a_second_one() -> None:
    found = charge(Run(Kind.KERNEL, 3), Run(Kind.PAGE_TABLE, 9))
    assert found.second_pages == 0
    assert found._replace(pairs=True).second_pages == 3 * 4096
