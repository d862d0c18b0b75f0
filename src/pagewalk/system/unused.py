"""What a cgroup is charged for and does not use yet: leftovers of pages, and stocks of CPUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pagewalk.kernel.running import RunningKernel
from pagewalk.kernel.structs.memcgs import Memcgs
from pagewalk.kernel.structs.objcgs import read_stocks
from pagewalk.model.columns import U64, Bool
from pagewalk.model.errors import NotInBtf
from pagewalk.proc.cgroup_numbers import GroupNumbers

TRIES = 3  # as long as it moves while the kernel's numbers are read


class Unused(NamedTuple):
    """What a group and those below it are charged for and do not use yet, bytes.

    ``left`` is what ``objcgs`` obj_cgroups have left of a page, all of the group's if ``listed``.
    ``objects`` waits on CPUs for kernel objects and ``pages`` for pages; both are None if the CPUs'
    areas cannot be found. ``still``: it did not change while the kernel's numbers were read.
    """

    left: int
    objcgs: int
    listed: bool
    objects: int | None
    pages: int | None
    still: bool = False

    @property
    def for_objects(self) -> int | None:
        """Return all that is charged for kernel objects and not used; None if not surely all."""
        if not self.listed or not self.still or self.objects is None:
            return None
        return self.left + self.objects

    @property
    def in_advance(self) -> int | None:
        """Return the pages that are charged in advance, in bytes; None if not surely all."""
        return self.pages if self.still else None


def unused_of(
    running: RunningKernel, groups: Memcgs, inside: Bool, objcgs: U64
) -> Unused | None:
    """Return what the groups ``inside`` (bool) do not use; None if nothing tells.

    ``objcgs`` (u64) are those that were found in kernel objects.
    """
    try:
        found = read_stocks(running.kernel, running.direct_map, groups, objcgs)
    except NotInBtf:
        return None
    objects, pages = (None if column is None else int(column[inside].sum())
                      for column in (found.objects, found.pages))
    return Unused(int(found.left[inside].sum()), int(found.objcgs[inside].sum()), found.listed,
                  objects, pages)


def beside(
    numbers: Callable[[], GroupNumbers], unused: Callable[[], Unused | None]
) -> tuple[GroupNumbers, Unused | None]:
    """Return the kernel's numbers and what of them is not used, read before and after them."""
    first = unused()
    for _ in range(TRIES):
        told, again = numbers(), unused()
        if first == again:
            return told, None if again is None else again._replace(still=True)
        first = again
    return told, first
